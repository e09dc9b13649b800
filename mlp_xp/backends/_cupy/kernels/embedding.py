"""Compute the gradient of an embedding table in one launch."""

from __future__ import annotations

from typing import Any

import cupy

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.backends._cupy.kernels.rendering import FLOATS, kernel
from mlp_xp.nn import layers


@kernel()
def _sum_kernel() -> Any:
    # One thread sums each element of the table in a fixed order, so results are reproducible.
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


def sum_rows_of_table(lines: Any, positions: Any, n_rows: int, *, xp: Namespace) -> Array:
    if lines.dtype.str not in FLOATS or positions.dtype != cupy.int32:
        return layers.sum_rows_of_table(lines, positions, n_rows, xp=xp)
    n, width = lines.shape
    summed = cupy.empty((n_rows, width), lines.dtype)
    return _sum_kernel()(lines, positions, n, width, summed)
