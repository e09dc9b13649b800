"""The contenders: file, options and input data of each."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.suite.workloads import Workload

OURS = "mlp_xp, NumPy"
PLAIN = "plain NumPy, float64"


class Entry(NamedTuple):
    """A contender: its module, options, data and environment."""

    module: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to
    data: str = "scaled"  # float32, standardized beforehand; or "raw": uint8 pixels
    precision: str = "float32"
    quick: bool = False  # Whether it takes part in a quick run.
    repeats: int | None = None  # Instead of the workload's.
    environment: dict[str, str] = {}  # noqa: RUF012


def _entry(module: str, options: dict[str, Any] | None = None, **more: Any) -> Entry:
    return Entry(f"bench.peers.{module}", options or {}, **more)


_CONTENDERS = {
    OURS: _entry("ours", {"backend": "numpy"}, quick=True),
    "mlp_xp, NumPy, from uint8": _entry("ours", {"backend": "numpy"}, data="raw"),
    "mlp_xp, NumPy, bf16": _entry(
        "ours", {"backend": "numpy", "precision": "bf16"}, precision="bfloat16"
    ),
    "mlp_xp, torch": _entry("ours", {"backend": "torch"}),
    "mlp_xp, torch, bf16": _entry(
        "ours", {"backend": "torch", "precision": "bf16"}, precision="bfloat16"
    ),
    "mlp_xp, JAX": _entry("ours", {"backend": "jax"}),
    "scikit-learn": _entry("scikit_learn", quick=True),
    "torch": _entry("torch_eager", quick=True),
    "torch, compiled": _entry("torch_eager", {"compiled": True}),
    "torch, bfloat16 autocast": _entry("torch_eager", {"bfloat16": True}, precision="bfloat16"),
    "JAX": _entry("jax_jit", quick=True),
    "JAX, epoch in a scan": _entry("jax_jit", {"scan": True}),
    "Keras on JAX": _entry("keras_fit", environment={"KERAS_BACKEND": "jax"}),
    "Keras on torch": _entry("keras_fit", environment={"KERAS_BACKEND": "torch"}),
    "skorch": _entry("skorch_fit"),
    "thinc": _entry("thinc_update"),
}
_FULL_BATCH = {
    OURS: _entry("ours", quick=True),
    PLAIN: _entry("plain_numpy", precision="float64", quick=True, repeats=1),
    "torch": _entry("torch_eager", quick=True, repeats=3),
    "JAX": _entry("jax_jit", quick=True, repeats=3),
}

# On a GPU, by name: the library whose device they use, and the options of their module.
GPU_PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "torch": ("torch", "torch_gpu", {"mode": "eager"}),
    "torch, a step in a CUDA graph": ("torch", "torch_gpu", {"mode": "graph"}),
    "JAX, epoch in a scan": ("jax", "jax_jit", {"scan": True}),
    "torch, compiled": ("torch", "torch_gpu", {"mode": "compiled"}),
}


def entries(workload: Workload, *, quick: bool = False) -> dict[str, Entry]:
    """Return the contenders of a workload by name."""
    chosen = _FULL_BATCH if workload.solver == "descent" else _CONTENDERS
    if workload.kind == "predict":
        # A scan over steps makes no difference to a prediction.
        chosen = {name: entry for name, entry in chosen.items() if "scan" not in entry.options}
    return {name: entry for name, entry in chosen.items() if entry.quick or not quick}
