"""Matrices by their entries, row after row, as far as mlp_xp uses them: rows, products, `.T`."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
import scipy.sparse
from cupy import _launch
from cupy._operations import operate, read_back

__all__ = ["csc_matrix", "csr_matrix", "issparse"]


class _Matrix:
    """Entries, and a product that cuSPARSE computes: its results are in F order."""

    _on_host: Any

    def __init__(
        self,
        arg1: Any,
        shape: tuple[int, int],
        dtype: Any = None,
        copy: bool = False,
        *,
        maxprint: Any = None,
    ) -> None:
        self.data, self.indices, self.indptr = arg1
        for part in arg1:
            if not isinstance(part, cupy.ndarray) or part.ndim != 1:
                raise ValueError("data, indices, and indptr must be 1-D cupy arrays")
        if self.data.dtype.char not in "?fdFD":
            raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")
        # The ends of indptr, and the range of indices that 32 bits may not hold.
        read_back("csr_matrix", self.indptr, n=2)
        for part in (self.indices, self.indptr):
            if part.size and part.dtype == np.int64:
                read_back("csr_matrix", part, n=4)
        self.indices, self.indptr = (
            part.astype(np.int32, copy=False) for part in (self.indices, self.indptr)
        )
        self.shape = tuple(shape)
        self._is_canonical = False

    @classmethod
    def _of(cls, parts: Any, shape: tuple[int, int], is_canonical: bool) -> Any:
        matrix = cls.__new__(cls)
        matrix.data, matrix.indices, matrix.indptr = parts
        matrix.shape, matrix._is_canonical = shape, is_canonical
        return matrix

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def nnz(self) -> int:
        return self.data.size

    @property
    def ndim(self) -> int:
        return 2

    def __matmul__(self, other: cupy.ndarray) -> cupy.ndarray:
        if not isinstance(other, cupy.ndarray):
            return NotImplemented
        if not self._is_canonical:
            read_back("has_canonical_format", self.indices, n=2)
            self._is_canonical = True
        _launch.check_not_capturing("cuSPARSE cannot be captured")
        other = cupy.asfortranarray(other)
        kind, shape = self._on_host, self.shape

        def product(data: Any, indices: Any, indptr: Any, dense: Any) -> np.ndarray:
            return kind((data, indices, indptr), shape=shape) @ dense

        out = cupy.ndarray((shape[0], other.shape[1]), self.dtype, order="F")
        parts = self.data, self.indices, self.indptr, other
        return operate("spmm", product, parts, out=out, n=2)


class csr_matrix(_Matrix):  # noqa: N801 - CuPy's name
    _on_host = scipy.sparse.csr_matrix

    @property
    def T(self) -> csc_matrix:
        parts = self.data, self.indices, self.indptr
        return csc_matrix._of(parts, self.shape[::-1], self._is_canonical)

    def __getitem__(self, rows: cupy.ndarray) -> csr_matrix:
        parts = self.data, self.indices, self.indptr
        views = read_back("csr_row_index", *parts, rows, n=6)
        taken = scipy.sparse.csr_matrix(tuple(views[:3]), shape=self.shape)[views[3]]
        new = [cupy.asarray(part) for part in (taken.data, taken.indices, taken.indptr)]
        return csr_matrix._of(new, taken.shape, self._is_canonical)


class csc_matrix(_Matrix):  # noqa: N801 - CuPy's name
    _on_host = scipy.sparse.csc_matrix


def issparse(x: Any) -> bool:
    return isinstance(x, _Matrix)
