"""The size of the second-level cache, and block sizes of matrix products that fit in the cache."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from mlp_xp.backends._numpy.runtime.tuning import AMX_TILE, Tile

_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
# The default size in bytes if the system reports no size (or 0K, as in some virtual machines). It
# is the smallest second-level cache of current processors with AVX-512.
_LEAST_BYTES = 512 << 10
# The number of rows and columns (`depth` elements each) that must fit in the cache: 96 rows of the
# left operand, a panel of 48 float32 columns of the right operand, and a margin.
_HELD = 256
# The number of tiles per block, vertically and horizontally.
_DOWN, _ACROSS = 12, 4


class Blocks(NamedTuple):
    """The size of a block of a matrix product: steps along the summed axis, rows, and columns."""

    depth: int
    rows: int
    columns: int


# The block size for AMX, on processors with 48 KiB of first-level and 2 MiB of second-level cache.
# The second-level cache is too slow to supply all operands, so a panel of 16 KiB remains in the
# first-level cache.
_AMX_BLOCKS = Blocks(128, 384, 384)


@functools.cache
def cache_bytes(folder: Path = _FOLDER) -> int:
    """Return the size in bytes of a core's second-level cache."""
    for index in folder.glob("index*"):
        try:
            level, size = ((index / name).read_text().strip() for name in ("level", "size"))
            if level == "2":
                return max(int(size.removesuffix("K")) << 10, _LEAST_BYTES)
        except (OSError, ValueError):
            continue
    return _LEAST_BYTES


@functools.cache
def make_blocks(tile: Tile, item_bytes: int, n_bytes: int | None = None) -> Blocks:
    """Return the block sizes for elements of ``item_bytes`` bytes and a cache of ``n_bytes``.

    Deeper blocks write results less often: on Zen 5, blocks of 1,024 steps and 96 rows take 9 %
    less time than blocks of 256 steps and 192 rows, although the panels of the latter fit in the
    first-level cache.
    """
    if tile == AMX_TILE:
        return _AMX_BLOCKS
    depth = (n_bytes or cache_bytes()) // (_HELD * item_bytes)
    columns = tile.vectors * tile.vector_bytes // item_bytes
    return Blocks(max(1, depth), _DOWN * tile.rows, _ACROSS * columns)
