"""The kernel of embeddings: one launch for the gradient of the whole table."""

from __future__ import annotations

from typing import Any

import cupy

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp.backends._cupy.kernels.rendering import FLOATS, kernel
from mlp_xp.nn import layers
from mlp_xp.nn.layers import LayerPullback

__all__ = ["run_layer"]


@kernel()
def _sum_kernel() -> Any:
    # A thread for each number of the table: no two add to the same one, so that the bits repeat.
    return cupy.ElementwiseKernel(
        "raw T lines, raw int32 positions, int32 n, int32 width",
        "T y",
        """
        int row = (int)(i / width), column = (int)(i % width);
        T sum = T(0);
        for (int k = 0; k < n; ++k) {
            if (positions[k] == row) sum += lines[(ptrdiff_t)k * width + column];
        }
        y = sum;
        """,
        "mlp_xp_sum_rows",
    )


def run_layer(
    function: Any, params: Tree, x: Array, *args: Any, xp: Namespace
) -> tuple[Array, LayerPullback]:
    """Compute `mlp_xp.nn.layers.run_layer`."""
    if function is not layers.embed:
        return layers.run_layer(function, params, x, *args, xp=xp)
    return layers.embed(params, x, sum_rows=_sum_rows, xp=xp)


def _sum_rows(lines: Any, positions: Any, n_rows: int, *, xp: Namespace) -> Array:
    if lines.dtype.str not in FLOATS or positions.dtype != cupy.int32:
        return layers.sum_rows_of_table(lines, positions, n_rows, xp=xp)
    n, width = lines.shape
    summed = cupy.empty((n_rows, width), lines.dtype)
    return _sum_kernel()(lines, positions, n, width, summed)
