"""Large arrays in memory that the torch kernels reuse at each step.

On a CPU, torch allocates every tensor with the C library, which returns large blocks to the system
and requests them again. New pages are slow: batches of 4,096 rows take a tenth to a fifth longer in
a network 1,024 or 2,048 wide. The library keeps smaller blocks, for which searching our own takes
longer. On a GPU, torch keeps its memory.
"""

from __future__ import annotations

import math
import sys
import weakref

import numpy as np
import torch

# The size from which the C library returns blocks to the system, plus a margin.
_MIN_BYTES = 1 << 22
# Alignment in bytes, so that vectors do not cross cache lines.
_ALIGNMENT = 64

_Kept = dict[str, tuple[np.ndarray, int]]

# By the identity of the owner, then by role. A buffer is always written before it is read.
_kept: dict[int, _Kept] = {}


def _take(kept: _Kept, role: str) -> tuple[np.ndarray | None, int, int]:
    """Remove a buffer, if one exists; return it with its start and its reference count."""
    raw, start = kept.pop(role, (None, 0))
    return raw, start, sys.getrefcount(raw)


def _count_of_unused() -> int:
    """Measure the reference count of an unused buffer, which depends on the Python version.

    Return 0, an impossible count, if a tensor does not raise the count by one.
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
    """Return an uninitialized tensor, which reuses the memory for this role if it is unused.

    The memory is on the owner's device and kept as long as the owner lives. Memory that another
    tensor or a view of one still uses is not touched.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if owner.device.type != "cpu" or n_bytes < _MIN_BYTES:
        return torch.empty(shape, dtype=dtype, device=owner.device)
    number = id(owner)
    kept = _kept.get(number)
    if kept is None:
        kept = _kept[number] = {}
        weakref.finalize(owner, _kept.pop, number, None).atexit = False
    # Removed during the check, so that another thread allocates its own.
    raw, start, holders = _take(kept, role)
    if raw is None or raw.nbytes - start < n_bytes or holders > _UNUSED:
        raw = np.empty(n_bytes + _ALIGNMENT, dtype=np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
    # The tensor keeps the array alive until its last view is gone.
    tensor = torch.from_numpy(raw[start : start + n_bytes]).view(dtype).view(shape)
    kept[role] = raw, start
    return tensor


def cast(owner: torch.Tensor, role: str, array: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in another dtype; itself if it has that dtype; see `empty`."""
    if array.dtype == dtype:
        return array
    return empty(owner, role, tuple(array.shape), dtype).copy_(array)
