"""The sizes of the processor's caches, and the blocks of a product that they hold."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from mlp_xp.backends._numpy.native.tuning import TILE_ROWS, TILE_VECTORS

__all__ = ["Blocks", "cache_sizes", "make_blocks"]

_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
# Where the system does not say: the smallest of the processors with AVX-512 in use.
_LEAST_SIZES = 32 << 10, 512 << 10
_VECTOR = 64  # Bytes.
# The part of the second-level cache for the three blocks; lines of others pass through it.
_SHARE = 0.9


class Blocks(NamedTuple):
    """Steps of the sum, and rows and columns of the result, that a product computes at once."""

    depth: int
    rows: int
    columns: int


@functools.cache
def cache_sizes(folder: Path = _FOLDER) -> tuple[int, int]:
    """Return the bytes of a core's first- and second-level caches of data."""
    found = dict(zip((1, 2), _LEAST_SIZES, strict=True))
    for index in folder.glob("index*"):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction" and int(level) in found:
                found[int(level)] = int(size.removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return found[1], found[2]


@functools.cache
def make_blocks(item_bytes: int, first: int | None = None, second: int | None = None) -> Blocks:
    """Return the blocks for numbers of so many bytes, from the sizes of the caches.

    A panel of the right factor fills the first-level cache. A block of the result, ``24 u`` rows of
    ``3 u`` vectors, and those of both factors fill the second-level cache.
    """
    sizes = cache_sizes()
    first, second = first or sizes[0], second or sizes[1]
    tile = TILE_VECTORS * _VECTOR // item_bytes  # Columns.
    depth = max(1, first // (TILE_VECTORS * _VECTOR))
    rows, u, numbers = 3 * TILE_ROWS, 1, _SHARE * second / item_bytes
    while depth * (u + 1) * (rows + tile) + rows * tile * (u + 1) ** 2 <= numbers:
        u += 1
    return Blocks(depth, rows * u, tile * u)
