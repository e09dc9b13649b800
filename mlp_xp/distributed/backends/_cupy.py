"""Sums over ranks with NCCL, with one rank per device, on the stream that runs the steps."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import cupy

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.optional import pip_command
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends import Backend, BackendError
from mlp_xp.backends._cuda.captured import report
from mlp_xp.backends._cupy.backend import CupyBackend
from mlp_xp.distributed.backends._base import RankBackend
from mlp_xp.distributed.communicator import Communicator


@cache
def _nccl() -> Any:
    """Import CuPy's NCCL module without its warning, since `_check_nccl` raises an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("cupy.cuda.nccl")


def _check_nccl() -> None:
    """Raise BackendError if CuPy cannot use NCCL."""
    if not _nccl().available:
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        raise BackendError(
            "CuPy cannot find NCCL, which sums over the GPUs of all ranks: type "
            f"{pip_command(f'nvidia-nccl-cu{major}')}"
        )


@dataclass(frozen=True)
class SumOverRanks:
    """A sum over a communicator's ranks, with one device per rank."""

    communicator: Communicator
    device: int

    def __call__(self, tree: Tree) -> Tree:
        """Sum donated arrays over all ranks."""
        taken: set[int] = set()
        arrays = [_own(leaf, taken) for leaf in leaves(tree)]
        nccl, ring = _nccl(), _connect(self.communicator, self.device)
        numbers = {"f": nccl.NCCL_FLOAT32, "d": nccl.NCCL_FLOAT64}
        stream = cupy.cuda.get_current_stream().ptr
        nccl.groupStart()  # Launch all sums at once.
        for array in arrays:
            place, number = array.data.ptr, numbers[array.dtype.char]
            ring.allReduce(place, place, array.size, number, nccl.NCCL_SUM, stream)
        nccl.groupEnd()
        return rebuild(tree, arrays)


class CupyRankBackend(RankBackend, CupyBackend):
    """CuPy on several ranks."""

    def _summing(self, backend: Backend) -> SumOverRanks:
        _check_nccl()
        return SumOverRanks(self.communicator, self.device.id)

    def loop(self, body: Callable[..., Any]) -> None:
        # Do not capture a CUDA graph, since the capture would wait for other ranks' launches.
        report(body, "sums over ranks")


KIND = CupyRankBackend


@cache
def _connect(communicator: Communicator, device: int) -> Any:
    """Create the NCCL communicator once; each rank has its own device."""
    nccl = _nccl()
    number = communicator.broadcast(nccl.get_unique_id() if communicator.rank == 0 else None)
    return nccl.NcclCommunicator(communicator.size, number, communicator.rank)


def _own(array: Any, taken: set[int]) -> Any:
    """Return the array, or a copy if its address is in ``taken``; add the result's address."""
    if not array.flags.c_contiguous or array.data.ptr in taken:
        array = array.copy(order="C")
    taken.add(array.data.ptr)
    return array
