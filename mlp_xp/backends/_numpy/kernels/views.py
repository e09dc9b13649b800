"""Views, such as slices and transposes, as operands and results of loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mlp_xp.backends._numpy.tracing.traced import Traced, value_of
from mlp_xp.compiler.kernel import (
    BLOCK,
    COLUMN,
    EVERY,
    FULL,
    ROW,
    SCALAR,
    SPREAD,
    STRIDED,
    VIEWS,
)

# The number of nested loops.
_N_AXES = 3


def arrange(
    arrays: Sequence[Any], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[str, ...], list[Any]] | None:
    """Return the grid of a loop over broadcast arrays, and the arrays with their layouts.

    Views are reshaped to the grid. Return None if the loop would need more than three axes.
    """
    strides = [np.broadcast_to(value_of(x), shape).strides for x in arrays]
    axes = merge_axes(shape, strides) or [(1, *(x.itemsize for x in arrays))]
    if len(axes) > _N_AXES:
        return None
    while len(axes) < _N_AXES:
        axes.insert(0, (1, *(axes[0][0] * step for step in axes[0][1:])))
    grid, *steps = zip(*axes, strict=True)
    layouts = tuple(_layout(grid, s, x.itemsize) for s, x in zip(steps, arrays, strict=True))
    given = zip(arrays, steps, layouts, strict=True)
    return grid, layouts, [_view(x, grid, s) if layout in VIEWS else x for x, s, layout in given]


def merge_axes(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Merge the axes of a loop over arrays; return each axis's length and the arrays' strides.

    Adjacent axes are merged if the strides of all arrays allow it.
    """
    axes: list[tuple[int, ...]] = []
    for length, *steps in list(zip(shape, *strides, strict=True))[::-1]:
        if axes and steps == [axes[0][0] * step for step in axes[0][1:]]:
            axes[0] = (length * axes[0][0], *axes[0][1:])
        elif length > 1:
            axes.insert(0, (length, *steps))
    return axes


def _layout(grid: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> str:
    _, n_inner, n_columns = grid
    *rows, step = strides
    plain = {
        (n_inner * n_columns, n_columns, 1): FULL,
        (n_inner, 1, 0): ROW,
        (0, 0, 1): COLUMN,
        (0, 0, 0): SCALAR,
    }
    known = {tuple(itemsize * n for n in key): layout for key, layout in plain.items()}
    if strides in known:
        return known[strides]
    if rows == [n_inner * n_columns * step, n_columns * step]:
        return EVERY
    return {0: SPREAD, itemsize: BLOCK}.get(step, STRIDED)


def _view(x: Any, grid: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    def take(value: np.ndarray) -> np.ndarray:
        return as_strided(value, grid, strides)

    return x._view(take) if isinstance(x, Traced) else take(x)
