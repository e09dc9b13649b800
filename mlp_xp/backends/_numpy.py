"""NumPy on the CPU; with numba installed, the optimizer's update is one fused loop."""

from __future__ import annotations

import importlib.util
from typing import Any

import array_api_compat.numpy
import numpy as np

from mlp_xp._typing import Array
from mlp_xp.backends._base import Backend
from mlp_xp.step import Kernels

__all__ = ["NumpyBackend", "create"]


class NumpyBackend(Backend):
    """Arrays in the host's memory; `put` copies nothing."""

    name = "numpy"
    shares_host_memory = True
    xp = array_api_compat.numpy
    device = "cpu"

    def __init__(self) -> None:
        if importlib.util.find_spec("numba") is not None:
            from mlp_xp.backends import _numba

            self.kernels = Kernels(update=_numba.update_tree)

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)

    def get(self, array: Array) -> np.ndarray:
        return np.asarray(array)

    def _move(self, array: Any) -> Array:
        return array

    def describe(self) -> dict[str, str]:
        from threadpoolctl import threadpool_info

        pools = "; ".join(
            f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        )
        return super().describe() | {"blas": pools}


def create(device: Any) -> NumpyBackend:
    """Give the backend; the only device is ``"cpu"``."""
    if device not in (None, "cpu"):
        raise ValueError(f"device is {device!r}, and backend 'numpy' has only 'cpu'.")
    return NumpyBackend()
