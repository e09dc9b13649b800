"""Fuse the product that computes a weight gradient with the loop that updates the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlp_xp.backends._numpy.runtime.tasks import (
    MOST_ARRAYS,
    FormulaLoop,
    GradientLoop,
    Group,
    Task,
    TiledProduct,
    address,
)
from mlp_xp.backends._numpy.runtime.thread_pool import find_tile
from mlp_xp.backends._numpy.runtime.tuning import GRADIENT_BYTES, PANEL, fits_in_update
from mlp_xp.backends._numpy.tracing.joining import is_free, overlap
from mlp_xp.backends._numpy.tracing.traced import Memory
from mlp_xp.compiler.kernel import FULL, SCALAR


def fused(
    tasks: Sequence[Task], nest: Callable[[list[Task]], np.ndarray], *, is_last: bool = False
) -> list[Task]:
    """Fuse products x^T dy into later loops where possible; return the resulting calls.

    The loop computes and uses a few rows of a gradient x^T dy at a time, without writing them to
    memory. This is possible only if no other call uses the gradient or changes x or dy. ``nest``
    creates a table of calls to which another call refers.
    """
    found = list(tasks)
    for task in tasks:
        if _can_be_fused(task) and is_free(task.fields.c, is_last=is_last):
            place = next(i for i, other in enumerate(found) if other is task)
            users = [i for i in range(place + 1, len(found)) if _uses(found[i], task.fields)]
            loop = _gradient_loop(found[users[0]], task.fields, nest) if len(users) == 1 else None
            if loop is not None:
                found[users[0]] = loop
                del found[place]
    return found


def _uses(task: Task, product: TiledProduct) -> bool:
    """Whether a later call uses a product's result, or changes its operands."""
    if isinstance(task.fields, Group):  # Its calls are in a separate table.
        return True
    used = [(x, product.c) for x in (*task.fields, *task.others) if isinstance(x, Memory)]
    return any(overlap(*pair) for pair in used) or _changes_operand(task, product)


def _changes_operand(task: Task, product: TiledProduct) -> bool:
    """Whether a call may write to an operand of a product."""
    if isinstance(task.fields, GradientLoop):
        written = task.others  # The loop reads some of these arrays and writes the rest.
    elif isinstance(task.fields, FormulaLoop):
        written = task.fields.results
    else:
        written = (getattr(task.fields, "out", 0),)
    arrays = [out for out in written if isinstance(out, Memory)]
    return any(overlap(out, factor) for out in arrays for factor in (product.a, product.b))


def _gradient_loop(
    task: Task, product: TiledProduct, nest: Callable[[list[Task]], np.ndarray]
) -> Task | None:
    """Return the call that fuses a product with a loop, or None if that is impossible."""
    loop = task.fields
    tile = find_tile()
    if not (isinstance(loop, FormulaLoop) and task.is_shared) or tile is None:
        return None
    kernel, width = loop.loop, product.n
    row_bytes = width * product.c.value.itemsize
    places = [i for i, x in enumerate(loop.arrays) if overlap(x, product.c)]
    rows = tile.gradient_rows
    n_rows = max(loop.n_columns // width, 1) if kernel.sums_rows else rows
    n_blocks = max(rows // n_rows, 1)
    at_once = n_rows * n_blocks
    is_known = (
        len(places) == 1
        and places[0] < len(kernel.inputs)
        and address(loop.arrays[places[0]]) == address(product.c)
        and kernel.layouts[places[0]] == FULL
        and set(kernel.layouts) <= {FULL, SCALAR}
        and (kernel.total is None or kernel.sums_rows)
        and loop.size == product.m * width
        and (not kernel.sums_rows or loop.n_columns == n_rows * width)
        and at_once * row_bytes <= GRADIENT_BYTES
        and (PANEL % at_once == 0 or at_once % PANEL == 0)
        and not _changes_operand(task, product)
    )
    if not is_known:
        return None
    n_numbers = [n_rows * width * (layout == FULL) for layout in kernel.layouts]
    n_numbers += [1] * (kernel.total is not None)
    strides = np.zeros(MOST_ARRAYS, np.int64)
    for i, (n, array) in enumerate(zip(n_numbers, loop.arrays, strict=True)):
        strides[i] = n * array.dtype.itemsize
    fields = GradientLoop(
        is_double=product.is_double,
        table=nest([task._replace(is_shared=False)]),
        strides=strides,
        place=places[0],
        n_rows=n_rows,
        n_blocks=n_blocks,
        x=product.a,
        dy=product.b,
        panel=product.width,
        n_samples=product.n_steps,
        width=width,
        fan_in=product.m,
    )
    return Task(fields, True, (*loop.arrays, *task.others))


def _can_be_fused(task: Task) -> bool:
    product = task.fields
    if not isinstance(product, TiledProduct) or product.in_pairs:
        return False
    is_movable = getattr(product.a, "find_view", None) or getattr(product.b, "find_view", None)
    fits = fits_in_update(product.n_steps, product.n, 8 if product.is_double else 4)
    # Neither x nor dy has gaps between rows.
    is_transposed = product.a_row == 1 and product.a_step == product.m
    has_rows = product.width > 0 or product.b_step == product.n
    return bool(fits and is_transposed and has_rows and not is_movable)
