"""The contenders: file, options and input data of each."""

from __future__ import annotations

from typing import Any, NamedTuple

from workloads import Workload

__all__ = ["GPU_PEERS", "OURS", "PLAIN", "Entry", "entries"]

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


_CONTENDERS = {
    OURS: Entry("ours", {"backend": "numpy"}, quick=True),
    "mlp_xp, NumPy, from uint8": Entry("ours", {"backend": "numpy"}, data="raw"),
    "mlp_xp, torch": Entry("ours", {"backend": "torch"}),
    "mlp_xp, torch, bf16": Entry(
        "ours", {"backend": "torch", "precision": "bf16"}, precision="bfloat16"
    ),
    "mlp_xp, JAX": Entry("ours", {"backend": "jax"}),
    "scikit-learn": Entry("peers.scikit_learn", quick=True),
    "torch": Entry("peers.torch_eager", quick=True),
    "torch, compiled": Entry("peers.torch_compile"),
    "torch, bfloat16 autocast": Entry("peers.torch_bfloat16", precision="bfloat16"),
    "JAX": Entry("peers.jax_jit", quick=True),
    "JAX, epoch in a scan": Entry("peers.jax_jit", {"scan": True}),
    "Keras on JAX": Entry("peers.keras_fit", environment={"KERAS_BACKEND": "jax"}),
    "Keras on torch": Entry("peers.keras_fit", environment={"KERAS_BACKEND": "torch"}),
    "skorch": Entry("peers.skorch_fit"),
    "thinc": Entry("peers.thinc_update"),
}
_FULL_BATCH = {
    OURS: Entry("our_lab", quick=True),
    PLAIN: Entry("peers.plain_numpy", precision="float64", quick=True, repeats=1),
    "torch": Entry("peers.torch_eager", quick=True, repeats=3),
    "JAX": Entry("peers.jax_jit", quick=True, repeats=3),
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
