"""NumPy on the CPU; with numba installed, a fused update and a kernel for narrow layers."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Iterator
from typing import Any

import array_api_compat.numpy
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from mlp_xp._typing import Array
from mlp_xp.backends import _narrow, _numba
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
        self._has_numba = importlib.util.find_spec("numba") is not None
        if self._has_numba:
            self.kernels = Kernels(update=_numba.update_tree)

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)

    def get(self, array: Array) -> np.ndarray:
        return np.asarray(array)

    def _move(self, array: Any) -> Array:
        return array

    @contextlib.contextmanager
    def large_batches(self, W: Array) -> Iterator[Kernels]:
        if not (self._has_numba and _narrow.suits(W)):
            yield self.kernels
            return
        # The threads of the BLAS look for work for a while before they sleep, and would take the
        # processors from those of the narrow kernel; what is left to the BLAS is small.
        with _resting_blas():
            yield self.kernels._replace(dense=_narrow.dense)

    def describe(self) -> dict[str, str]:
        pools = "; ".join(
            f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        )
        return super().describe() | {"blas": pools}


_resting = threading.Lock()
_guests: list[threadpool_limits] = []


@contextlib.contextmanager
def _resting_blas() -> Iterator[None]:
    """Hold the BLAS to one thread; of several users the last one out gives the threads back.

    The limit is the process's. Each user restoring what it saw would restore another one's limit.
    """
    with _resting:
        _guests.append(_guests[-1] if _guests else threadpool_limits(1, user_api="blas"))
    try:
        yield
    finally:
        with _resting:
            limits = _guests.pop()
            if not _guests:
                limits.restore_original_limits()


def create(device: Any) -> NumpyBackend:
    """Give the backend; the only device is ``"cpu"``."""
    if device not in (None, "cpu"):
        raise ValueError(f"device is {device!r}, and backend 'numpy' has only 'cpu'.")
    return NumpyBackend()
