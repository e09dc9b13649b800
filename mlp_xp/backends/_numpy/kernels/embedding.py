"""The kernel of embeddings: gradients are added to their rows, entry by entry."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mlp_xp._utils.array_types import Namespace, Tree
from mlp_xp.backends._numpy.kernels.writing import call
from mlp_xp.nn import layers
from mlp_xp.nn.layers import LayerPullback

__all__ = ["run_layer"]

Array: TypeAlias = Any  # NumPy's, or one that is traced


def run_layer(
    function: Any, params: Tree, x: Array, *args: Any, xp: Namespace
) -> tuple[Array, LayerPullback]:
    """Compute `mlp_xp.nn.layers.run_layer`."""
    if function is not layers.embed:
        return layers.run_layer(function, params, x, *args, xp=xp)
    return layers.embed(params, x, sum_rows=_sum_rows, xp=xp)


def _sum_rows(lines: Array, positions: Array, n_rows: int, *, xp: Namespace) -> Array:
    summed = np.empty_like(lines, shape=(n_rows, lines.shape[1]))
    call(_add_rows, lines, positions, summed)
    return summed


def _add_rows(lines: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
    # 20 us for 1,280 lines of 8 numbers; row by row 80 us, a one-hot product of 5,000 rows 30 ms.
    width = lines.shape[1]
    places = positions.astype(np.intp)[:, None] * width + np.arange(width)
    out.fill(0)
    np.add.at(out.reshape(-1), places.reshape(-1), lines.reshape(-1))
