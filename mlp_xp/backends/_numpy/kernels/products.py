"""Products as jobs: of factors as they lie, or packed first, in bfloat16 or not."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mlp_xp.backends._numpy.kernels.writing import run
from mlp_xp.backends._numpy.native.caches import make_blocks
from mlp_xp.backends._numpy.native.jobs import Job, Pack, PackedProduct, Product
from mlp_xp.backends._numpy.native.memory import empty
from mlp_xp.backends._numpy.native.thread_pool import has_tile, is_zen
from mlp_xp.backends._numpy.native.tuning import (
    FUSED_ROW,
    LARGEST_RIGHT,
    LEAST_NUMBERS,
    LEAST_TILED,
    SAMPLES_AT_ONCE,
    TILE_ROWS,
    TILE_VECTORS,
)
from mlp_xp.backends._numpy.tracing.traced import Traced

Array: TypeAlias = Any  # NumPy's, or one that is traced

# Below, meeting the other threads costs more than they bring (bench/history).
_LEAST_PRODUCTS = 100_000
# The code for packing takes a second more to compile, once, which smaller products do not repay.
_LEAST_PACKED = 50_000_000
# How often packed numbers must be used, m n / (m + n), so that a product beats the BLAS's: that of
# dy W^T and that of x^T dy (bench, products).
_LEAST_USES = 50, 35
# Bytes from row to row of W that put its rows into few sets of the second-level cache: on an Intel
# Xeon (family 6, model 207) x W then runs at a third of the speed; Zen 5 loses nothing.
_FAR = 4096


def multiply(
    a: Array,
    b: Array,
    out: Array,
    *,
    ta: bool = False,
    tb: bool = False,
    bias: Array | int = 0,
    in_pairs: bool = False,
) -> None:
    """Write the product of two matrices, either transposed or not, plus a bias.

    With ``in_pairs`` float32 factors are rounded to bfloat16; sums stay in float32.
    """
    is_packed = in_pairs or packing_pays(a, b, out, ta=ta, tb=tb)
    make = partial(product_of_packed, in_pairs=in_pairs) if is_packed else product_in_place
    for job in make(a, b, out, ta=ta, tb=tb, bias=bias):
        run(*job)


def packing_pays(a: Array, b: Array, out: Array, *, ta: bool, tb: bool) -> bool:
    """Whether a product is faster with packed factors, by shape and processor.

    Each packed number is then used for some hundred multiplications. Our own products that read
    factors as they lie stay: x W where rows of W are near each other or read without loss, and
    x^T dy where dy fits the cache or an update computes it.
    """
    (m, n), itemsize = out.shape, out.itemsize
    k = a.shape[0] if ta else a.shape[1]
    if m * n * k < _LEAST_PACKED or m * n < _LEAST_USES[ta] * (m + n) or not has_tile():
        return False
    if not ta:
        return tb or (n * itemsize >= _FAR and not is_zen())
    row = min(k, SAMPLES_AT_ONCE) * itemsize
    is_fused = isinstance(out, Traced) and k <= SAMPLES_AT_ONCE and n * itemsize <= FUSED_ROW
    return not is_fused and not (LEAST_TILED <= n < m and n * row <= LARGEST_RIGHT)


def product_in_place(
    a: Array, b: Array, out: Array, *, ta: bool = False, tb: bool = False, bias: Array | int = 0
) -> list[Job]:
    """Return the job of a product of factors as they lie, or by the BLAS."""
    m, n = out.shape
    k = a.shape[0] if ta else a.shape[1]
    is_double = a.dtype == np.float64
    product = Product(is_double, ta, tb, m, n, k, a, _distance(a), b, b.shape[1], out, n, bias)
    return [Job(product, m * n * k >= _LEAST_PRODUCTS)]


def product_of_packed(
    a: Array,
    b: Array,
    out: Array,
    *,
    ta: bool = False,
    tb: bool = False,
    bias: Array | int = 0,
    in_pairs: bool = False,
) -> list[Job]:
    """Return the jobs that pack two factors and multiply them."""
    m, n = out.shape
    k = a.shape[0] if ta else a.shape[1]
    itemsize, n_steps = out.itemsize, (k + 1) // 2 if in_pairs else k
    n_vectors = -(-n * itemsize // 64)
    n_tiles = -(-n_vectors // TILE_VECTORS)
    width = -(-n_vectors // n_tiles) * 64 // itemsize  # So that tiles are equally wide.
    pack_a = _pack(a, not ta, TILE_ROWS, n_steps, in_pairs)
    pack_b = _pack(b, tb, width, n_steps, in_pairs)
    blocks = make_blocks(itemsize)
    product = PackedProduct(
        is_double=out.dtype == np.float64,
        in_pairs=in_pairs,
        m=m,
        n=n,
        n_steps=n_steps,
        a=pack_a.out,
        b=pack_b.out,
        width=width,
        c=out,
        ldc=n,
        bias=bias,
        depth=blocks.depth,
        rows_at_once=blocks.rows,
        columns_at_once=max(blocks.columns // width, 1) * width,
    )
    packs = [Job(pack, pack.n_lanes * k >= LEAST_NUMBERS) for pack in (pack_a, pack_b)]
    return [*packs, Job(product, m * n * k >= _LEAST_PRODUCTS)]


def _pack(source: Array, lanes_are_rows: bool, width: int, n_steps: int, in_pairs: bool) -> Pack:
    n_lanes, n_sums = source.shape if lanes_are_rows else source.shape[::-1]
    size, dtype = -(-n_lanes // width) * width * n_steps, f"u{source.itemsize}"
    like = isinstance(source, Traced)
    out = np.empty_like(source, shape=(size,), dtype=dtype) if like else empty((size,), dtype)
    is_double = source.dtype == np.float64
    return Pack(
        is_double, in_pairs, lanes_are_rows, n_lanes, n_sums, width, source, _distance(source), out
    )


def _distance(x: Array) -> int:
    """Return the distance between rows, in numbers."""
    # The stride along an axis of one row may be anything, which a BLAS refuses.
    return x.strides[0] // x.itemsize if x.shape[0] > 1 else x.shape[1]
