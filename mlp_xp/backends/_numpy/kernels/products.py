"""Tiled matrix products in compiled code, with packed or unpacked operands, also in bfloat16."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mlp_xp.backends._numpy.kernels.writing import run
from mlp_xp.backends._numpy.runtime.caches import cache_bytes, make_blocks
from mlp_xp.backends._numpy.runtime.memory import empty
from mlp_xp.backends._numpy.runtime.tasks import (
    AMX,
    FEW_ROWS,
    MAY_SPLIT_STEPS,
    NUMBERS,
    TILES,
    Pack,
    Product,
    Task,
    TiledProduct,
)
from mlp_xp.backends._numpy.runtime.thread_pool import bfloat16_packing, find_tile, is_zen
from mlp_xp.backends._numpy.runtime.tuning import (
    AMX_TILE,
    LEAST_NUMBERS,
    SAMPLES_AT_ONCE,
    SCRATCH,
    Tile,
    fits_in_update,
)
from mlp_xp.backends._numpy.tracing.traced import Traced

Array: TypeAlias = Any  # A NumPy array or a traced array.
# Operands that are already packed, by array id and packing order.
Ahead: TypeAlias = dict[tuple[int, str], Array]

# The number of rows of an AMX tile register.
_TILE_ROWS = 16
# Smaller matrix products, counted in multiplications, are faster in one thread.
LEAST_PRODUCTS = 250_000
# The depth of a block, in steps along the summed axis, if the right operand is not packed.
_STEPS = 512
# Matrix products with at most this many rows are not tiled.
_FEW_ROWS = 4
# Packing the weights W pays off for batches of at least 256 rows, or of at least 50 rows if the
# rows of W are at least 4,096 bytes long. On an Intel Xeon (family 6, model 207), such long rows
# may map to few sets of the second-level cache; x W then takes three times as long. Zen 5 is not
# affected.
_MANY_ROWS, _ROWS_FAR_APART, _FAR = 256, 50, 4096
# If small products are packed, these are the minimum batch sizes for packing W and dy, and the
# minimum length of a row of dy in bytes.
_SOME_ROWS, _SOME_SAMPLES, _SOME_BYTES = 64, 64, 256
# Packing x and dy pays off if x^T dy is larger than this size in bytes. Without packing, x^T dy is
# read and written once per `SAMPLES_AT_ONCE` samples.
_LARGE = 2 << 20


class Factors(NamedTuple):
    """Whether each operand of a matrix product is packed."""

    a: bool
    b: bool


def multiply(
    a: Array,
    b: Array,
    out: Array,
    *,
    ta: bool = False,
    tb: bool = False,
    bias: Array | int = 0,
    in_pairs: bool = False,
    ahead: Ahead | None = None,
) -> None:
    """Write the product of two matrices, each possibly transposed, plus a bias, to ``out``.

    With ``in_pairs``, float32 operands are rounded to bfloat16; sums are computed in float32. An
    operand from `pack_ahead` can be used only once.
    """
    if out.shape[1] == 1 and not in_pairs and hasattr(bias, "dtype"):
        multiply(a, b, out, ta=ta, tb=tb)
        out += bias
        return
    packed = Factors(True, True) if in_pairs else choose_packed(a, b, out, ta=ta, tb=tb)
    options: Any = {"ta": ta, "tb": tb, "bias": bias, "in_pairs": in_pairs, "ahead": ahead}
    options["may_split"] = True
    for task in product_tasks(a, b, out, packed, **options):
        run(*task)


def pack_ahead(ahead: Ahead, x: Array, *, is_left: bool) -> None:
    """Round a batch to bfloat16, and pack it for two matrix products in one pass.

    The forward pass multiplies the batch by the weights; the backward pass computes x^T dy.
    """
    packing = bfloat16_packing()
    tile = _find_tile(packing)
    assert tile is not None
    width = _left_width(tile) if is_left else _tile_width(tile, x.shape[1], x.itemsize)
    widths = {"lines": _line_words(x.shape[1]), "columns": width}
    task, found = _pack(x, widths, packing)
    run(*task)
    ahead.update({(id(x), order): out for order, out in found.items()})


def choose_packed(a: Array, b: Array, out: Array, *, ta: bool, tb: bool) -> Factors:
    """Return which operands to pack.

    Packing pays off if tiles would otherwise read an operand slowly and repeatedly. In x W, x is
    never packed, and W only if x has many rows. In dy W^T, dy is never packed, and W is packed
    unless dy has few rows. In x^T dy, both are packed if the result is large and the batch has many
    rows. See `Tile` for processors that also pack small products.
    """
    (m, n), itemsize, tile = out.shape, out.itemsize, find_tile()
    packs_small = tile is not None and tile.packs_small
    if tb:
        return Factors(False, m > _FEW_ROWS)
    if packs_small and not ta:
        is_split = m < _MANY_ROWS and _may_split(m, n, a.shape[1], itemsize)
        return Factors(False, m >= _SOME_ROWS and not is_split)
    if packs_small:
        n_samples = a.shape[0]
        is_packed = n_samples >= _SOME_SAMPLES and n * itemsize >= _SOME_BYTES
        # An update that computes the gradient packs x itself.
        return Factors(is_packed and not fits_in_update(n_samples, n, itemsize), is_packed)
    if not ta:
        least = _ROWS_FAR_APART if n * itemsize >= _FAR and not is_zen() else _MANY_ROWS
        return Factors(False, m >= least)
    is_large = a.shape[0] > SAMPLES_AT_ONCE and m * n * itemsize > _LARGE
    return Factors(*[is_large and min(m, n) >= _MANY_ROWS] * 2)


def product_tasks(
    a: Array,
    b: Array,
    out: Array,
    packed: Factors,
    *,
    ta: bool = False,
    tb: bool = False,
    bias: Array | int = 0,
    in_pairs: bool = False,
    ahead: Ahead | None = None,
    may_split: bool = False,
) -> list[Task]:
    """Return the kernel calls for a matrix product, including the calls that pack its operands.

    If ``may_split`` is true, threads may split sums, whose order then depends on their number.
    """
    (m, n), k = out.shape, a.shape[0] if ta else a.shape[1]
    if m > n == 1 and b.flags.c_contiguous and not (in_pairs or hasattr(bias, "dtype")):
        # Compute it as the product of a row, so that A is read only once.
        row, out = np.reshape(b, (1, k)), np.reshape(out, (1, m))
        return product_tasks(row, a, out, Factors(False, False), tb=not ta)
    is_double, is_shared = out.dtype == np.float64, m * n * k >= LEAST_PRODUCTS
    packing = bfloat16_packing() if in_pairs else NUMBERS
    tile = _find_tile(packing)
    if tile is None:
        fields: Any = Product(
            is_double, ta, tb, m, n, k, a, _distance(a), b, _distance(b), out, n, bias
        )
        return [Task(fields, is_shared)]
    # Tiles read rows of B, so a transposed B must be packed, except in products with few rows.
    assert packed.b or not tb or m <= _FEW_ROWS
    tasks: list[Task] = []

    def pack(x: Array, order: str, width: int) -> Array:
        found = (ahead or {}).pop((id(x), order), None)
        if found is None:
            task, outs = _pack(x, {order: width}, packing)
            tasks.append(task)
            found = outs[order]
        return found

    itemsize, n_steps = out.itemsize, _n_steps(k, packing)
    lda, ldb = _distance(a), _distance(b)
    a_row, a_tile, a_step = (1, 1, lda) if ta else (lda, lda, 1)
    if packed.a and ta:
        a, a_tile, a_step = pack(a, "columns", _left_width(tile)), n_steps, tile.rows
    elif packed.a:
        a_row = a_tile = _line_words(k)
        a = pack(a, "lines", a_row)
    if packing == AMX:
        a_row, a_tile, a_step = n_steps, n_steps, _TILE_ROWS
    width, b_column, b_step, way = 0, 1, ldb, TILES
    if packed.b:
        width = b_step = _tile_width(tile, n, itemsize)
        b, b_column = pack(b, "rows" if tb else "columns", width), n_steps
    elif m <= _FEW_ROWS and not ta:
        way, b_column, b_step = FEW_ROWS, *((ldb, 1) if tb else (1, ldb))
    elif may_split and not ta and _may_split(m, n, k, itemsize):
        way = MAY_SPLIT_STEPS
    blocks = make_blocks(tile, itemsize)
    steps, depth, rows, columns = n_steps, blocks.depth, blocks.rows, blocks.columns
    if packed.b:
        is_small = 2 * k * n * itemsize <= cache_bytes()  # B fits in half the cache.
        columns = n if is_small else max(columns // width, 1) * width
    else:
        rows, columns = (tile.rows, n) if ta else (m, n)
        steps = depth = SAMPLES_AT_ONCE if ta else _STEPS
    product = TiledProduct(
        is_double=is_double,
        in_pairs=packing,
        m=m,
        n=n,
        n_steps=n_steps,
        a=a,
        a_row=a_row,
        a_tile=a_tile,
        a_step=a_step,
        b=b,
        b_column=b_column,
        b_step=b_step,
        width=width,
        c=out,
        ldc=n,
        bias=bias,
        steps_at_once=steps,
        depth=depth,
        rows_at_once=rows,
        columns_at_once=columns,
        way=way,
    )
    return [*tasks, Task(product, is_shared)]


def _may_split(m: int, n: int, k: int, itemsize: int) -> bool:
    """Whether a product's result fits in the threads' work space, so they may split its sums."""
    return itemsize == 4 and 4 * m * n <= SCRATCH and k > max(m, n)


def _find_tile(packing: int) -> Tile | None:
    return AMX_TILE if packing == AMX else find_tile()


def _left_width(tile: Tile) -> int:
    """Return the width of the left operand's column panels, or 0 for AMX, which uses tiles."""
    return 0 if tile == AMX_TILE else tile.rows


def _n_steps(n: int, packing: int) -> int:
    """Return how many steps a sum of n products takes."""
    if packing == AMX:
        return _line_words(n)
    return -(-n // 2) if packing else n


def _tile_width(tile: Tile, n: int, itemsize: int) -> int:
    """Return the number of columns per panel that makes all panels equally wide."""
    lanes = tile.vector_bytes // itemsize
    n_vectors = -(-n // lanes)
    return -(-n_vectors // -(-n_vectors // tile.vectors)) * lanes


def _line_words(n: int) -> int:
    """Return the number of 32-bit words for n bfloat16 elements, padded to whole vectors."""
    return -(-n // 32) * 16


def _pack(source: Array, widths: dict[str, int], packing: int) -> tuple[Task, dict[str, Array]]:
    """Return the packed arrays, and the kernel call that packs an operand in one or more orders."""
    (n_rows, n_columns), dtype = source.shape, f"u{source.itemsize}"
    outs: dict[str, Array] = {}
    fields: dict[str, Any] = {}
    for order, width in widths.items():
        n_lanes, n_sums = (n_columns, n_rows) if order == "columns" else (n_rows, n_columns)
        size = n_rows * width
        if order != "lines" or packing == AMX:
            multiple = width if width and order != "lines" else _TILE_ROWS
            size = -(-n_lanes // multiple) * multiple * _n_steps(n_sums, packing)
        like = isinstance(source, Traced)
        out = np.empty_like(source, shape=(size,), dtype=dtype) if like else empty((size,), dtype)
        outs[order] = out
        fields |= {order: out, f"{order}_{'ld' if order == 'lines' else 'width'}": width}
    is_double = source.dtype == np.float64
    pack = Pack(is_double, packing, n_rows, n_columns, source, _distance(source), **fields)
    return Task(pack, source.size >= LEAST_NUMBERS), outs


def _distance(x: Array) -> int:
    """Return the number of elements from the start of one row to the start of the next."""
    # An axis of length 1 may have any stride in NumPy, but the BLAS rejects invalid strides.
    return x.strides[0] // x.itemsize if x.shape[0] > 1 else x.shape[1]
