"""Products with sparse rows, each in one launch that sums in a fixed order.

CuPy's sparse matrices copy entries to the host to find the shape and check the order of the
entries, and cuSPARSE cannot be captured in a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from mlp_xp.backends._cupy.kernels.rendering import FLOATS, blocks_for, kernel, raw_kernel
from mlp_xp.backends.kernels import SparseMatrix, Transposed
from mlp_xp.compiler.print_cuda import THREADS

# The number of features per thread in the transposed product; a thread processes one column.
_PER_THREAD = 16
# The maximum number of columns per block. With fewer columns, a block processes more features.
_MOST_COLUMNS = 128

_ENTRIES = "const T* data, const I* indices, const I* indptr, const I* rows"

# One thread per element of the result.
_MULTIPLY = f"""({_ENTRIES}, const T* W, T* out, long long n, int columns) {{
  const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (i >= n) return;
  const long long place = i / columns, row = TAKEN ? (long long)rows[place] : place;
  const int column = i % columns;
  T sum = 0;
  for (long long k = indptr[row]; k < indptr[row + 1]; k++)
    sum += data[k] * W[(long long)indices[k] * columns + column];
  out[i] = sum;
}}"""

# A block computes several features and columns of the result; a thread computes several features of
# one column. Each thread first searches one row for entries of the block's features; then all
# threads add up the entries found. Blocks do not share sums, so atomic additions are not needed.
# Their random order would make the result irreproducible.
_MULTIPLY_TRANSPOSED = f"""({_ENTRIES}, const T* dy, T* out, long long n_rows, long long features,
    int columns) {{
  __shared__ T sums[PER_THREAD * THREADS];
  __shared__ long long starts[THREADS], stops[THREADS];
  const int thread = threadIdx.x, column = blockIdx.y * LANES + thread % LANES;
  const long long of_block = THREADS / LANES * PER_THREAD, first = blockIdx.x * of_block;
  const long long own = first + thread / LANES * PER_THREAD;
  for (int k = 0; k < PER_THREAD; k++) sums[k * THREADS + thread] = 0;
  for (long long base = 0; base < n_rows; base += THREADS) {{
    long long start = 0, stop = 0;
    if (base + thread < n_rows) {{
      const long long place = base + thread, row = TAKEN ? (long long)rows[place] : place;
      for (long long k = indptr[row]; k < indptr[row + 1]; k++) {{
        if (indices[k] >= first && indices[k] < first + of_block) {{
          if (stop == 0) start = k;
          stop = k + 1;
        }}
      }}
    }}
    starts[thread] = start;
    stops[thread] = stop;
    __syncthreads();
    for (int r = 0; r < THREADS && column < columns; r++) {{
      for (long long k = starts[r]; k < stops[r]; k++) {{
        const long long place = indices[k] - own;
        if (place >= 0 && place < PER_THREAD)
          sums[place * THREADS + thread] += data[k] * dy[(base + r) * columns + column];
      }}
    }}
    __syncthreads();
  }}
  for (int k = 0; k < PER_THREAD && column < columns && own + k < features; k++)
    out[(own + k) * columns + column] = sums[k * THREADS + thread];
}}"""

_VARIANTS = (
    *((FLOATS[0], index, taken) for index in ("<i4", "<i8") for taken in (0, 1)),
    (FLOATS[1], "<i4", 1),
)


@kernel(*_VARIANTS)
def _multiply_kernel(dtype: str, index: str, taken: int) -> Any:
    return raw_kernel("mlp_xp_sparse", _MULTIPLY, {"T": dtype, "I": index}, TAKEN=taken)


@kernel(*((*variant, 32) for variant in _VARIANTS), (*_VARIANTS[0], 1), (*_VARIANTS[0], 128))
def _transposed_kernel(dtype: str, index: str, taken: int, lanes: int) -> Any:
    types = {"T": dtype, "I": index}
    constants = {"TAKEN": taken, "LANES": lanes, "PER_THREAD": _PER_THREAD}
    return raw_kernel("mlp_xp_sparse_transposed", _MULTIPLY_TRANSPOSED, types, **constants)


class TakenRows:
    """Gathered rows of a sparse matrix (or all rows), as the left operand of a product.

    ``rows @ W`` must be computed before ``rows.T @ dy``. Entries may be unsorted and duplicated.
    """

    ndim = 2

    def __init__(self, x: SparseMatrix, rows: Any) -> None:
        data: Any
        indptr: Any
        data, indices, indptr = x
        self.dtype = data.dtype
        self._n_rows = indptr.shape[0] - 1 if rows is None else rows.shape[0]
        indices, places = (
            indptr if array is None else cupy.ascontiguousarray(array, indptr.dtype)
            for array in (indices, rows)
        )
        self._entries = data, indices, indptr, places
        self._variant = data.dtype.str, indptr.dtype.str, int(rows is not None)
        self._n_features = 0

    def __matmul__(self, W: Any) -> Any:
        self._n_features, columns = W.shape
        out = cupy.empty((self._n_rows, columns), self.dtype)
        numbers = np.int64(out.size), np.int32(columns)
        _multiply_kernel(*self._variant)(
            (blocks_for(out.size, THREADS),),
            (THREADS,),
            (*self._entries, cupy.ascontiguousarray(W), out, *numbers),
        )
        return out

    @property
    def T(self) -> Transposed:
        return Transposed(self)

    def transposed_product(self, dy: Any) -> Any:
        """Return the product of the transposed matrix and ``dy``."""
        columns = dy.shape[1]
        lanes = min(1 << (columns - 1).bit_length(), _MOST_COLUMNS)
        out = cupy.empty((self._n_features, columns), self.dtype)
        numbers = np.int64(self._n_rows), np.int64(self._n_features), np.int32(columns)
        of_block = THREADS // lanes * _PER_THREAD
        _transposed_kernel(*self._variant, lanes)(
            (blocks_for(self._n_features, of_block), blocks_for(columns, lanes)),
            (THREADS,),
            (*self._entries, cupy.ascontiguousarray(dy), out, *numbers),
        )
        return out
