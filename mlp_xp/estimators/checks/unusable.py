"""Errors for objects that NumPy would convert to numbers, but to the wrong ones, and for paths."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePath
from typing import Any

import numpy as np
from scipy import sparse

_ARRAY = "shape", "__array__", "__dlpack__", "__dataframe__", "__arrow_c_stream__", "iloc"
_READERS = {
    ".csv": "pandas.read_csv",
    ".parquet": "pandas.read_parquet",
    ".npy": "numpy.load",
    ".npz": "numpy.load",
}


def is_stream(X: Any) -> bool:
    """Whether X can be iterated, but is neither an array nor a sequence of rows."""
    others = str, bytes, Sequence, Mapping, Set
    is_other = isinstance(X, others) or any(hasattr(X, name) for name in _ARRAY)
    return hasattr(type(X), "__iter__") and not is_other


def refuse_path(X: Any, name: str = "X") -> None:
    """Raise TypeError if the path of a file is given instead of its contents."""
    if isinstance(X, str | os.PathLike):
        reader = _READERS.get(PurePath(X).suffix, "pandas.read_csv")
        raise TypeError(
            f"`{name}` must be the data, got the path {os.fspath(X)!r}: read the file first, e.g. "
            f"{name} = {reader}({os.fspath(X)!r})."
        )


def refuse_unusable(X: Any, estimator: str, *, is_table: bool) -> None:
    """Raise an error if X is no array, or has more than two axes, masked values, records or dates.

    Dates can be columns of a table.
    """
    refuse_path(X)
    if hasattr(X, "open_blocks"):
        raise TypeError(
            f"X must be an array or a data frame, got {X!r}: only `fit`, predictions and scores of "
            "MLPClassifier, MLPRegressor and ensembles read files in parts. Read the files first, "
            "e.g. by pandas.read_parquet."
        )
    if is_stream(X) or inspect.isroutine(X):
        raise TypeError(
            f"X must be an array, got a {type(X).__name__}: to fit on batches (X, y), pass an "
            "iterable that starts again in each epoch, and no y; to predict, call predict for the "
            "X of each batch."
        )
    if getattr(X, "ndim", 2) > 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead: shape {tuple(X.shape)}. Make each "
            "sample a row, e.g. X = X.reshape(len(X), -1)."
        )
    if np.ma.is_masked(X):
        raise ValueError(
            f"X has {X.mask.sum()} masked values, which {estimator} would read as "
            "numbers: type X = X.astype(float).filled(numpy.nan), and set missing_values='impute'."
        )
    if sparse.issparse(X):
        refuse_broken(X)
    if not isinstance(X, np.ndarray):
        return
    if X.dtype.names:
        raise TypeError(
            f"X must be numbers, got a structured array with the fields {', '.join(X.dtype.names)}"
            ": type X = structured_to_unstructured(X), imported from numpy.lib.recfunctions."
        )
    if X.dtype.kind in "mM" and not is_table:
        days = "X" if X.dtype.kind == "m" else "(X - X.min())"
        raise TypeError(
            f"X must be numbers, got {X.dtype}: convert it, e.g. to days by X = {days} / "
            "numpy.timedelta64(1, 'D')."
        )


def refuse_broken(matrix: Any, name: str = "X") -> None:
    """Raise ValueError if a sparse matrix has indices out of range, which would crash the process.

    This takes a few milliseconds per 10 million entries.
    """
    try:
        if hasattr(matrix, "check_format"):
            matrix = copy.copy(matrix)  # The method may replace the arrays.
            matrix.check_format()
            if matrix.nnz == 0 and np.any(matrix.indptr):
                raise ValueError("indptr must be a non-decreasing sequence")
        elif matrix.format == "coo":
            sparse.coo_array((matrix.data, matrix.coords), matrix.shape)
    except ValueError as error:
        raise ValueError(
            f"{name} is a damaged sparse matrix: {error}. Correct the arrays that contain its "
            f"indices, or build it again, e.g. {name} = scipy.sparse.csr_array(dense)."
        ) from error


def refuse_masked(values: Any, name: str, cure: str) -> None:
    """Raise ValueError if targets or sample weights have masked values."""
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has {values.mask.sum()} masked values: {cure}.")
