"""Gather, cast and scale rows of a data set in one launch."""

from __future__ import annotations

from typing import Any, cast

import cupy

from mlp_xp._utils.array_types import Array, DType, Namespace
from mlp_xp.backends import kernels
from mlp_xp.backends._cupy.kernels.rendering import kernel
from mlp_xp.backends._cupy.kernels.sparse import TakenRows
from mlp_xp.backends.kernels import Source, SparseMatrix


@kernel()
def _gather_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "raw X x, I row, F shift, F scale, int64 width",
        "F out",
        "out = (F(x[(long long)row * width + i % width]) - shift) * scale;",
        "mlp_xp_gather",
    )


def gather(source: Source, *, dtype: DType, xp: Namespace) -> Array:
    """Compute `mlp_xp.backends.kernels.gather`, in one launch unless images are augmented."""
    x, rows, scaling, pixel_map = source
    if isinstance(x, SparseMatrix):
        return cast(Array, TakenRows(x, rows))
    dtypes = {dtype} if scaling is None else {dtype, *(array.dtype for array in scaling)}
    if rows is None or pixel_map is not None or len(dtypes) > 1:
        return kernels.gather(source, dtype=dtype, xp=xp)
    out = cupy.empty((rows.shape[0], x.shape[1]), dtype=dtype)
    number = out.dtype.type
    shift, scale = (number(0), number(1)) if scaling is None else scaling
    _gather_kernel()(x, rows[:, None], shift, scale, x.shape[1], out)
    return out
