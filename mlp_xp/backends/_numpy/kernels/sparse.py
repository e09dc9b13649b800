"""Products with sparse rows, using SciPy functions that a compiled step can record."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mlp_xp.backends._numpy.kernels.writing import call
from mlp_xp.backends.kernels import SparseMatrix, Transposed

Array: TypeAlias = Any  # A NumPy array or a traced array.

# Weights up to this size in bytes fit in the caches. With larger weights, the sparse entries are
# processed by column, so that each row of weights is read only once; this takes 0.4 to 0.9 times as
# long as processing by row (bench, drop-in/sparse).
_CACHED = 1 << 21


class TakenRows:
    """Gathered rows of a sparse matrix (or all rows), as the left operand of a product.

    ``rows @ W`` must be computed before ``rows.T @ dy``. This object must not refer to the data,
    since a compiled step keeps the object.
    """

    ndim = 2

    def __init__(self, x: SparseMatrix, rows: Array | None) -> None:
        self.dtype = x.data.dtype
        self._given: Any = (*x, rows)
        self._entries: Any = None
        self._n_rows = x.indptr.shape[0] - 1 if rows is None else rows.shape[0]
        self._n_columns = 0

    def __matmul__(self, W: Array) -> Array:
        return self.affine(W, 0)

    def affine(self, W: Array, b: Array | int) -> Array:
        """Return ``x W + b``. Starting the sums at ``b`` saves a pass over the result."""
        self._n_columns = W.shape[0]
        y = np.empty_like(W, shape=(self._n_rows, W.shape[1]), order="C")
        given, self._given = self._given, None
        call(self._multiply, *given, W, b, y)
        return y

    @property
    def T(self) -> Transposed:
        return Transposed(self)

    def transposed_product(self, dy: Array) -> Array:
        """Return the product of the transposed matrix and ``dy``."""
        dW = np.empty_like(dy, shape=(self._n_columns, dy.shape[1]), order="C")
        call(self._multiply_transposed, dy, dW)
        return dW

    def _multiply(
        self,
        data: np.ndarray,
        indices: np.ndarray,
        indptr: np.ndarray,
        rows: np.ndarray | None,
        W: np.ndarray,
        b: np.ndarray | int,
        out: np.ndarray,
    ) -> None:
        # Call a private SciPy function, because the public ones would allocate the result, e.g. 16
        # MB for 20,000 x 100 elements.
        from scipy.sparse import _sparsetools as tools

        if rows is not None:
            rows = rows.astype(indptr.dtype, copy=False)
            counts = indptr[rows + 1] - indptr[rows]
            starts = np.concatenate([indptr[:1] * 0, np.cumsum(counts, dtype=indptr.dtype)])
            taken = np.empty(starts[-1], indices.dtype), np.empty(starts[-1], data.dtype)
            tools.csr_row_index(len(rows), rows, indptr, indices, data, *taken)
            indptr, (indices, data) = starts, taken
        self._by_column = W.nbytes > _CACHED
        if self._by_column:
            by_row, n_rows, n_columns = (indptr, indices, data), *(self._n_rows, self._n_columns)
            indptr = np.empty(n_columns + 1, indptr.dtype)
            indices, data = np.empty_like(indices), np.empty_like(data)
            tools.csr_tocsc(n_rows, n_columns, *by_row, indptr, indices, data)
        self._entries = indptr, indices, data
        multiply = tools.csc_matvecs if self._by_column else tools.csr_matvecs
        out[...] = b
        self._add(multiply, (self._n_rows, self._n_columns), W, out)

    def _multiply_transposed(self, dy: np.ndarray, out: np.ndarray) -> None:
        from scipy.sparse import _sparsetools as tools

        # A matrix in CSC format is its transpose in CSR format.
        multiply = tools.csr_matvecs if self._by_column else tools.csc_matvecs
        out.fill(0)
        self._add(multiply, (self._n_columns, self._n_rows), dy, out)
        self._entries = None

    def _add(
        self, multiply: Any, shape: tuple[int, int], right: np.ndarray, out: np.ndarray
    ) -> None:
        multiply(*shape, out.shape[1], *self._entries, right.ravel(), out.reshape(-1))
