"""The contenders: file, options and input data of each."""

import importlib
from typing import Any, NamedTuple

from bench.suite.records import processor_kind
from bench.suite.workloads import Contender, Task, Workload

OURS = "mlp_xp, NumPy"
PLAIN = "plain NumPy, float64"


class Entry(NamedTuple):
    """A contender: its module, options, data and environment."""

    module: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to
    data: str = "scaled"  # "scaled": standardized float32; or "raw": uint8 pixels
    precision: str = "float32"
    quick: bool = False  # Whether it is part of a quick run.
    repeats: int | None = None  # Overrides the workload's repeats.
    environment: dict[str, str] = {}  # noqa: RUF012

    def make(self, task: Task, **more: Any) -> Contender:
        """Import the contender's module and prepare its task."""
        return importlib.import_module(self.module).make(task, **self.options, **more)


def _entry(module: str, options: dict[str, Any] | None = None, **more: Any) -> Entry:
    return Entry(f"bench.peers.{module}", options or {}, **more)


_BF16 = {"precision": "bf16"}
_CONTENDERS = {
    OURS: _entry("estimators", {"backend": "numpy"}, quick=True),
    "mlp_xp, NumPy, epochs in one fit": _entry("estimators", {"in_one_fit": True}),
    "mlp_xp, NumPy, from uint8": _entry("estimators", {"backend": "numpy"}, data="raw"),
    "mlp_xp, NumPy, bf16": _entry("estimators", {"backend": "numpy"} | _BF16, precision="bfloat16"),
    "mlp_xp, torch": _entry("estimators", {"backend": "torch"}),
    "mlp_xp, torch, bf16": _entry("estimators", {"backend": "torch"} | _BF16, precision="bfloat16"),
    "mlp_xp, JAX": _entry("estimators", {"backend": "jax"}),
    "scikit-learn": _entry("estimators", {"library": "sklearn.neural_network"}, quick=True),
    "torch": _entry("torch_loop", quick=True),
    "torch, compiled": _entry("torch_loop", {"mode": "compiled"}),
    "torch, bfloat16 autocast": _entry("torch_loop", _BF16, precision="bfloat16"),
    "JAX": _entry("jax_jit", quick=True),
    "JAX, epoch in a scan": _entry("jax_jit", {"scan": True}),
    "Keras on JAX": _entry("keras_fit", environment={"KERAS_BACKEND": "jax"}),
    "Keras on torch": _entry("keras_fit", environment={"KERAS_BACKEND": "torch"}),
    "skorch": _entry("skorch_fit"),
    "thinc": _entry("thinc_update"),
}
_FULL_BATCH = {
    OURS: _entry("estimators", quick=True),
    PLAIN: _entry("plain_numpy", precision="float64", quick=True, repeats=1),
    "torch": _entry("torch_loop", quick=True, repeats=3),
    "JAX": _entry("jax_jit", quick=True, repeats=3),
}

# The contenders on a GPU by name, each with the library whose device it uses.
GPU_PEERS = {
    "torch": ("torch", _entry("torch_loop")),
    "torch, a step in a CUDA graph": ("torch", _entry("torch_loop", {"mode": "graph"})),
    "JAX, epoch in a scan": ("jax", _entry("jax_jit", {"scan": True})),
    "torch, compiled": ("torch", _entry("torch_loop", {"mode": "compiled"})),
}


def entries(workload: Workload, *, quick: bool = False) -> dict[str, Entry]:
    """Return the contenders of a workload by name."""
    chosen = _FULL_BATCH if workload.solver == "descent" else _CONTENDERS
    # Predictions do not depend on how steps or epochs are called.
    calls = {"scan", "in_one_fit"} if workload.kind == "predict" else set()
    is_slow = is_slow_in_bfloat16()
    return {
        name: entry
        for name, entry in chosen.items()
        if (entry.quick or not quick)
        and not calls & entry.options.keys()
        and not (is_slow and entry.precision == "bfloat16" and "torch" in name)
    }


def is_slow_in_bfloat16() -> bool:
    """Whether torch takes some 400 times as long in bfloat16 as in float32 on this processor."""
    return processor_kind().endswith("AVX2")
