"""Memory that the torch kernels use again at each step.

On a CPU torch asks the C library for every tensor. That gives large blocks back to the system and
asks for them anew at times, and new pages are slow: 13 MB of them a step, which is what a 512-wide
network can come to, took the system a second for 20,000 images. On a GPU torch keeps its memory.
"""

from __future__ import annotations

import math
import sys
import weakref

import numpy as np
import torch

__all__ = ["cast", "empty"]

# Where the C library starts to give blocks back.
_MIN_BYTES = 1 << 17
# Vectors of the processor read whole cache lines.
_ALIGNMENT = 64

_Kept = dict[str, tuple[np.ndarray, int]]

# By the identity of the tensor that they are for, and by what they are for. Nothing is ever read
# from a buffer that was not written since it was handed out.
_kept: dict[int, _Kept] = {}


def _take(kept: _Kept, role: str) -> tuple[np.ndarray | None, int, int]:
    """Take a buffer out, where there is one: with where it starts, and how many hold it."""
    raw, start = kept.pop(role, (None, 0))
    return raw, start, sys.getrefcount(raw)


def _count_of_unused() -> int:
    """Measure how many hold a buffer that no tensor uses, which differs from Python to Python.

    Where a tensor makes no difference of one, nothing is told by it: none is unused then.
    """
    raw = np.empty(1)
    kept = {"held": (raw, 0), "unused": (np.empty(1), 0)}
    tensor = torch.from_numpy(raw[:1])
    del raw
    held, unused = _take(kept, "held")[2], _take(kept, "unused")[2]
    del tensor
    return unused if held == unused + 1 else 0


_UNUSED = _count_of_unused()


def empty(
    owner: torch.Tensor, role: str, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """Return a tensor of any content, in the memory of the last one of this role if that is unused.

    Parameters
    ----------
    owner : tensor
        Where the new one is to be; the memory is kept as long as the owner.
    role : str
    shape : tuple of int
    dtype : torch.dtype

    Returns
    -------
    tensor
        Nobody else's: memory that another tensor still uses, or a view of one, is left alone.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if owner.device.type != "cpu" or n_bytes < _MIN_BYTES:
        return torch.empty(shape, dtype=dtype, device=owner.device)
    number = id(owner)
    kept = _kept.get(number)
    if kept is None:
        kept = _kept[number] = {}
        weakref.finalize(owner, _kept.pop, number, None).atexit = False
    # Taken out while it is looked at: another thread then finds nothing, and allocates.
    raw, start, holders = _take(kept, role)
    if raw is None or raw.nbytes - start < n_bytes or holders > _UNUSED:
        raw = np.empty(n_bytes + _ALIGNMENT, dtype=np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
    # The tensor's memory holds on to the array until its last view is gone.
    tensor = torch.from_numpy(raw[start : start + n_bytes]).view(dtype).view(shape)
    kept[role] = raw, start
    return tensor


def cast(owner: torch.Tensor, role: str, array: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in another dtype, as it is if it has that; see `empty`."""
    if array.dtype == dtype:
        return array
    return empty(owner, role, tuple(array.shape), dtype).copy_(array)
