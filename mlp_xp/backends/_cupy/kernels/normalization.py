"""Layer and batch normalization: one launch forward, one or two backward.

In layer normalization, a group of threads shares a row. In batch normalization, a block of threads
processes several columns, and reads each column more than once.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.backends._cupy.kernels.rendering import (
    FLOATS,
    SHARES,
    THREADS,
    blocks_for,
    is_plain,
    kernel,
    raw_kernel,
    share_arguments,
)
from mlp_xp.nn import layers
from mlp_xp.nn.layers import BatchPart, BatchStats, LayerPullback, Norm

# The number of threads that share a row: one warp.
_LANES = 32
# The number of columns per block: the smallest memory read, 32 bytes, contains 8 float32 numbers.
# Several threads share a column.
_COLUMNS = 8

_ROWS = """
  const int lane = threadIdx.x % LANES;
  const long long row = (long long)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
  const int n = row < rows ? width : 0;
  const long long start = row * width;
"""

_LAYER_NORM = f"""(const T* x, const T* scale, const T* shift, T epsilon, T* y, T* means,
    T* factors, long long rows, int width) {{
  __shared__ T shared[THREADS];
  {_ROWS}
  T mean = 0, variance = 0;
  for (int k = lane; k < n; k += LANES) mean += x[start + k];
  mean = sum_of<LANES, 1>(mean, shared) / width;
  for (int k = lane; k < n; k += LANES) {{
    const T centered = x[start + k] - mean;
    variance += centered * centered;
  }}
  variance = sum_of<LANES, 1>(variance, shared) / width;
  const T factor = T(1) / sqrt(variance + epsilon);
  for (int k = lane; k < n; k += LANES)
    y[start + k] = (x[start + k] - mean) * factor * scale[k] + shift[k];
  if (lane == 0 && n > 0) {{
    means[row] = mean;
    factors[row] = factor;
  }}
}}"""

_LAYER_NORM_GRADIENT = f"""(const T* x, const T* dy, const T* scale, const T* means,
    const T* factors, T* dx, long long rows, int width) {{
  __shared__ T shared[THREADS];
  {_ROWS}
  const T mean = n > 0 ? means[row] : T(0), factor = n > 0 ? factors[row] : T(0);
  T average = 0, along = 0;
  for (int k = lane; k < n; k += LANES) {{
    const T dz = product(dy[start + k], scale[k]);  // A row of equal numbers has gradients of 0.
    average += dz;
    along += dz * (x[start + k] - mean) * factor;
  }}
  average = sum_of<LANES, 1>(average, shared) / width;
  along = sum_of<LANES, 1>(along, shared) / width;
  for (int k = lane; k < n; k += LANES) {{
    const T z = (x[start + k] - mean) * factor;
    dx[start + k] = (product(dy[start + k], scale[k]) - average - z * along) * factor;
  }}
}}"""

_COLUMN = """
  const long long column = (long long)blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
  const long long first = threadIdx.x / COLUMNS, step = THREADS / COLUMNS;
  const long long n = column < width ? rows : 0;
#define OVER_COLUMN(sum) sum_of<THREADS / COLUMNS, COLUMNS>(sum, shared)
"""

_BATCH_NORM = f"""(const T* x, const T* weights, T even, T smallest, const T* scale,
    const T* shift, T epsilon, T* y, T* means, T* variances, long long rows, int width) {{
  __shared__ T shared[THREADS];
  {SHARES}
  {_COLUMN}
  T mean = 0, variance = 0;
  for (long long row = first; row < n; row += step) mean += x[row * width + column] * SHARE(row);
  mean = OVER_COLUMN(mean);
  for (long long row = first; row < n; row += step) {{
    const T centered = x[row * width + column] - mean;
    variance += centered * centered * SHARE(row);
  }}
  variance = OVER_COLUMN(variance);
  const T factor = T(1) / sqrt(variance + epsilon);
  for (long long row = first; row < n; row += step)
    y[row * width + column] = (x[row * width + column] - mean) * factor * scale[column]
        + shift[column];
  if (first == 0 && n > 0) {{
    means[column] = mean;
    variances[column] = variance;
  }}
}}"""

# Compute the gradients of the parameters and, in batch normalization, of the inputs. With BY_ROW
# (layer normalization), each row has a mean and a scale. Otherwise, each column has a mean, and
# `scales` contains the variances.
_COLUMN_GRADIENTS = f"""(const T* x, const T* dy, const T* weights, T even, T smallest,
    const T* scale, const T* means, const T* scales, T epsilon, T* dx, T* dscale, T* dshift,
    long long rows, int width) {{
  __shared__ T shared[THREADS];
  {SHARES}
  {_COLUMN}
  const T mean = BY_ROW || n == 0 ? T(0) : means[column];
  const T factor = BY_ROW || n == 0 ? T(0) : T(1) / sqrt(scales[column] + epsilon);
#define CENTERED(row) (x[row * width + column] - (BY_ROW ? means[row] : mean))
#define FACTOR(row) (BY_ROW ? scales[row] : factor)
  T along = 0, sum = 0;
  for (long long row = first; row < n; row += step) {{
    const T d = dy[row * width + column];
    sum += d;
    along += d * CENTERED(row) * FACTOR(row);
  }}
  along = OVER_COLUMN(along);
  sum = OVER_COLUMN(sum);
  if (NEED_DX) {{
    for (long long row = first; row < n; row += step)
      dx[row * width + column] = (dy[row * width + column]
          - SHARE(row) * (sum + CENTERED(row) * FACTOR(row) * along)) * (scale[column] * factor);
  }}
  if (first == 0 && n > 0) {{
    dscale[column] = along;
    dshift[column] = sum;
  }}
}}"""

_SOURCES = {
    "layer_norm": _LAYER_NORM,
    "layer_norm_gradient": _LAYER_NORM_GRADIENT,
    "batch_norm": _BATCH_NORM,
    "column_gradients": _COLUMN_GRADIENTS,
}


@kernel(
    *((name, dtype) for name in list(_SOURCES)[:2] for dtype in FLOATS),
    *(("batch_norm", dtype, weighted) for dtype in FLOATS for weighted in (0, 1)),
    *(("column_gradients", dtype, *flags) for dtype in FLOATS for flags in ((0, 1, 0), (1, 0, 1))),
)
def _norm_kernel(
    name: str, dtype: str, weighted: int = 0, by_row: int = 0, need_dx: int = 0
) -> Any:
    return raw_kernel(
        f"mlp_xp_{name}",
        _SOURCES[name],
        {"T": dtype},
        LANES=_LANES,
        COLUMNS=_COLUMNS,
        WEIGHTED=weighted,
        BY_ROW=by_row,
        NEED_DX=need_dx,
    )


def layer_norm(
    params: Norm, x: Any, *, xp: Namespace, epsilon: float = 1e-5
) -> tuple[Array, LayerPullback]:
    """Compute `mlp_xp.nn.layers.layer_norm`; the pullback keeps x, not the normalized rows."""
    scale, shift = params
    if x.ndim != 2 or x.size == 0 or not is_plain(x.dtype, x, scale, shift) or scale.ndim > 1:
        return layers.layer_norm(params, x, xp=xp, epsilon=epsilon)
    rows, width = x.shape
    dtype, size = x.dtype.str, (np.int64(rows), np.int32(width))
    y, means, factors = cupy.empty_like(x), cupy.empty(rows, x.dtype), cupy.empty(rows, x.dtype)
    by_rows = (blocks_for(rows, THREADS // _LANES),), (THREADS,)
    by_columns = (blocks_for(width, _COLUMNS),), (THREADS,)
    arguments = (x, scale, shift, x.dtype.type(epsilon), y, means, factors, *size)
    _norm_kernel("layer_norm", dtype)(*by_rows, arguments)

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Array | None, Norm]:
        dy = cupy.ascontiguousarray(dy, x.dtype)
        grads = Norm(cupy.empty_like(scale), cupy.empty_like(shift))
        given: tuple[Any, ...] = (x, dy, *share_arguments(x, None), scale, means, factors)
        given += (x.dtype.type(epsilon), dy, *grads, *size)
        _norm_kernel("column_gradients", dtype, 0, 1)(*by_columns, given)
        if not need_dx:
            return None, grads
        dx = cupy.empty_like(x)
        _norm_kernel("layer_norm_gradient", dtype)(
            *by_rows, (x, dy, scale, means, factors, dx, *size)
        )
        return dx, grads

    return y, pullback


def batch_norm(
    params: Norm,
    x: Any,
    weights: Any,
    part: BatchPart | None = None,
    *,
    xp: Namespace,
    epsilon: float = 1e-5,
) -> tuple[Array, LayerPullback, BatchStats]:
    """Compute `mlp_xp.nn.layers.batch_norm`; the pullback keeps x, not the normalized columns."""
    scale, shift = params
    given = (x, scale, shift) if weights is None else (x, scale, shift, weights)
    is_known = x.ndim == 2 and x.size > 0 and is_plain(x.dtype, *given) and scale.ndim == 1
    if not is_known or part is not None:
        return layers.batch_norm(params, x, weights, part, xp=xp, epsilon=epsilon)
    rows, width = x.shape
    dtype, number, size = x.dtype.str, x.dtype.type, (np.int64(rows), np.int32(width))
    weighted = int(weights is not None)
    shares = share_arguments(x, weights)
    y, measured = cupy.empty_like(x), BatchStats(cupy.empty_like(scale), cupy.empty_like(scale))
    by_columns = (blocks_for(width, _COLUMNS),), (THREADS,)
    arguments = (x, *shares, scale, shift, number(epsilon), y, *measured, *size)
    _norm_kernel("batch_norm", dtype, weighted)(*by_columns, arguments)

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Array | None, Norm]:
        dy = cupy.ascontiguousarray(dy, x.dtype)
        grads = Norm(cupy.empty_like(scale), cupy.empty_like(shift))
        dx = cupy.empty_like(x) if need_dx else None
        outputs = (dy if dx is None else dx, *grads)
        arguments = (x, dy, *shares, scale, *measured, number(epsilon), *outputs, *size)
        compute = _norm_kernel("column_gradients", dtype, weighted, 0, int(need_dx))
        compute(*by_columns, arguments)
        return dx, grads

    return y, pullback, measured
