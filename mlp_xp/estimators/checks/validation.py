"""Checks of X, y and sample weights, by scikit-learn wherever it can."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_n_features,
    _check_sample_weight,
    assert_all_finite,
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from mlp_xp._utils.signals.forks import between_forks
from mlp_xp.backends import get_backend, namespace_backend, to_numpy
from mlp_xp.training.data.rows import Rows, is_mapped

__all__ = [
    "asks_for_table",
    "check_labels",
    "check_values",
    "check_weights",
    "check_x",
    "check_y",
    "encode",
    "host",
]

# Dtypes that are kept; all others are converted to the first.
_DTYPES = (np.float64, np.float32, np.uint8)
_vdot = between_forks(np.vdot)  # A fork in a product of another thread hangs.
_KEPT = frozenset(map(np.dtype, _DTYPES))
# In the error of scikit-learn, which is NumPy's.
_TEXT, _NAN = "could not convert string to float", "contains NaN"
# Numbers of a memory-mapped file that are checked at once.
_BLOCK = 1 << 18


def host(values: Any) -> Any:
    """Convert arrays of other libraries to NumPy; lists and frames are left to scikit-learn."""
    return to_numpy(values) if namespace_backend(values) not in (None, "numpy") else values


def check_x(
    estimator: Any, X: Any, *, reset: bool, exchange: Callable[[Any], list[Any]] | None = None
) -> Any:
    """Check X: NumPy's and what it can convert by scikit-learn, other arrays on their device.

    Scikit-learn takes other libraries' arrays only with its array API dispatch switched on, for the
    whole process; here they are checked without leaving their device. The ``n_features_in_`` of the
    estimator is set (``reset``) or compared with. ``exchange`` is given where the columns of a
    table are learned from the rows of several processes. Numbers are uint8, float32 or float64 for
    NumPy, and have the dtype of a memory-mapped file; sparse input is CSR.
    """
    if reset:
        vars(estimator).pop("columns_", None)  # Of an earlier fit.
    if isinstance(X, Rows) and X.shared is not None and reset:
        _note_features(estimator, X)  # Checked for all fits.
        vars(estimator).update(X.shared.names)
        return X
    if isinstance(X, Rows) and X.shared is not None and "columns_" in X.shared.names:
        return X.x  # Encoded for all estimators with these columns.
    if asks_for_table(estimator) if reset else "columns_" in vars(estimator):
        from mlp_xp.estimators.tables.encoding import encode_table  # Most data are plain numbers.

        return encode_table(estimator, X, reset=reset, exchange=exchange)
    if isinstance(X, Rows):
        checked = check_x(estimator, X.x, reset=reset)
        return X if checked.dtype == X.dtype else Rows(checked, X.rows)
    if _is_plain(X):
        if reset:
            return _note_features(estimator, X)
        if X.shape[1] == estimator.n_features_in_ and not hasattr(estimator, "feature_names_in_"):
            return X
    if is_mapped(X) and X.dtype.kind in "biuf":
        return _check_mapped(estimator, X, reset=reset)
    if namespace_backend(X) in (None, "numpy"):
        accepted = ["csr", "csc"]
        try:
            checked = validate_data(
                estimator, X, accept_sparse=accepted, dtype=_DTYPES, reset=reset
            )
        except ValueError as error:
            if _TEXT in str(error):
                from mlp_xp.estimators.checks.text_advice import text_advice  # Most X have none.

                raise ValueError(f"{error}. {text_advice(X, type(estimator).__name__)}") from error
            if _NAN in str(error):
                raise _nan_error() from None
            raise
        except TypeError as error:
            if re.search("date|timestamp", str(error), re.IGNORECASE):
                raise TypeError(
                    f"X has dates, and {type(estimator).__name__} takes numbers: set "
                    "categorical_features='from_dtype', which makes year, day of year, weekday and "
                    "second of day of them."
                ) from error
            raise
        # Batches are rows, and taking rows of columns would walk over all of them each time.
        return checked.tocsr() if sparse.issparse(checked) else checked
    backend = get_backend(X)
    xp = backend.xp
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead: shape {tuple(X.shape)}. Reshape your "
            "data using X.reshape(-1, 1) for a single feature or X.reshape(1, -1) for one sample."
        )
    if X.shape[0] < 1 or X.shape[1] < 1:
        raise ValueError(
            f"Found array with shape {tuple(X.shape)} while a minimum of 1 sample and 1 feature "
            "is required."
        )
    if xp.isdtype(X.dtype, "complex floating"):
        raise ValueError(f"Complex data not supported: dtype {X.dtype}.")
    if xp.isdtype(X.dtype, "bool"):
        raise ValueError("X is of bool; convert it first, e.g. xp.astype(X, xp.float32).")
    if xp.isdtype(X.dtype, "real floating"):
        with backend.scope():  # Both propagate NaN, and write nothing as large as X.
            is_finite = bool(xp.isfinite(xp.max(X)) & xp.isfinite(xp.min(X)))
        if not is_finite:
            raise _nan_error("NaN or infinity")
    if reset:
        return _note_features(estimator, X)
    _check_n_features(estimator, X, reset=False)
    return X


def _nan_error(what: str = "NaN") -> ValueError:
    from mlp_xp.estimators.checks.text_advice import IMPUTE  # Most X are finite.

    return ValueError(f"Input X contains {what}: {IMPUTE}.")


def asks_for_table(estimator: Any) -> bool:
    """Whether a setting is for columns that are not all of plain numbers."""
    return (
        getattr(estimator, "categorical_features", None) is not None
        or getattr(estimator, "missing_values", "error") != "error"
        or getattr(estimator, "input_scaling", None) in ("robust", "quantile")
    )


def _note_features(estimator: Any, X: Any) -> Any:
    """Set the number of features of an estimator; return X, whose columns have no names."""
    vars(estimator).pop("feature_names_in_", None)  # Of an earlier fit.
    _check_n_features(estimator, X, reset=True)
    return X


def _check_mapped(estimator: Any, X: np.ndarray, *, reset: bool) -> np.ndarray:
    """Check a memory-mapped file by blocks of rows, without a copy of it."""
    settings = {"dtype": None, "ensure_all_finite": False, "reset": reset}
    checked: np.ndarray = validate_data(estimator, X, **settings)
    if checked.dtype.kind == "f":
        n_rows = max(1, _BLOCK // checked.shape[1])
        for start in range(0, len(checked), n_rows):
            block = checked[start : start + n_rows].astype(np.float64, copy=False)
            assert_all_finite(block, input_name="X", estimator_name=type(estimator).__name__)
    return checked


def _is_plain(X: Any) -> bool:
    """Whether scikit-learn would return X unchanged and without a warning, in microseconds.

    In doubt it is not, and scikit-learn checks X and words the error.
    """
    if not (
        type(X) is np.ndarray
        and X.dtype in _KEPT
        and X.ndim == 2
        and X.size > 0
        and X.flags.forc  # So that it can be made flat without a copy.
    ):
        return False
    # Squares cannot cancel out: their sum is finite only if every number is. Unlike other sums
    # this one never warns, and it runs on all threads of the BLAS.
    flat = X.ravel(order="K")
    return X.dtype.kind == "u" or math.isfinite(_vdot(flat, flat))


def check_y(estimator: Any, y: Any, n_samples: int, name: str = "y") -> np.ndarray:
    """Return the targets of an estimator on the host; raise ValueError if it cannot take them."""
    known, kind = getattr(estimator, "classes_", None), type(estimator).__name__
    checked: np.ndarray = estimator._targets_type.check(y, kind, n_samples, name=name, known=known)
    return checked


def check_labels(
    y: Any, estimator: str, n_samples: int, *, name: str = "y", known: np.ndarray | None = None
) -> np.ndarray:
    """Return class labels on the host; raise ValueError if they are none, TypeError if mixed.

    They are (samples,), (samples, targets), or (samples, classes) of 0 and 1 for several at once.
    ``known`` are classes that a later check compares them with.
    """
    # Integers of the right number are good. Scikit-learn would warn where more than half are
    # different: there cannot be so many, or it decides.
    if type(y) is np.ndarray and y.shape == (n_samples,) and y.dtype.kind in "biu":
        if not isinstance(known, np.ndarray) or known.dtype.kind not in "biu":
            known = np.unique(y)
        if 2 * len(known) <= n_samples:
            return y
    labels = _given(y, estimator, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = column_or_1d(labels, warn=True)
    check_consistent_length(np.empty((n_samples, 0)), labels)
    columns = [labels]
    if labels.ndim == 2 and labels.dtype == object:  # Each target may have its own type of labels.
        columns = list(labels.T)
    for column in columns:
        types = {type(label) for label in column} if labels.dtype == object else set()
        if str in types and len(types) > 1:
            found = " and ".join(sorted(kind.__name__ for kind in types))
            raise TypeError(
                f"{name} must have labels of one type, got {found}: convert them, e.g. "
                f"{name} = [str(label) for label in {name}]."
            )
        check_classification_targets(np.asarray(column.tolist()) if len(columns) > 1 else column)
    return np.asarray(labels)


def check_values(
    y: Any, estimator: str, n_samples: int, *, name: str = "y", known: np.ndarray | None = None
) -> np.ndarray:
    """Return real targets on the host, (samples,) or (samples, outputs); or raise ValueError."""
    try:
        values = _given(y, estimator, name, numeric=True)
    except ValueError as error:
        text = next(filter(_is_word, np.ravel(host(y)).tolist()), None)
        if text is None:
            raise
        raise ValueError(
            f"{name} has text, e.g. {text!r}, and {estimator} learns numbers: take "
            "MLPClassifier for classes, or convert it to numbers."
        ) from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = column_or_1d(values, warn=True)
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is of dtype {values.dtype}.")
    check_consistent_length(np.empty((n_samples, 0)), values)
    return np.asarray(values)


def _is_word(value: Any) -> bool:
    """Whether a value is text that is no number."""
    if isinstance(value, str | bytes):
        try:
            float(value)
        except ValueError:
            return True
    return False


def _given(y: Any, estimator: str, name: str, *, numeric: bool = False) -> np.ndarray:
    """Return dense targets; raise ValueError for None, NaN or infinity."""
    if y is None:
        raise ValueError(
            f"This {estimator} estimator requires y to be passed, but the target y is None."
        )
    y = host(y)
    if isinstance(y, np.ndarray) and y.dtype.kind == "T":  # Unknown to scikit-learn.
        y = np.asarray(y.tolist())
    settings = {"accept_sparse": "csr", "ensure_2d": False, "ensure_all_finite": False}
    y = check_array(y, **settings, dtype=None, input_name=name, estimator=estimator)
    if numeric and y.dtype.kind in "OUS":
        y = y.astype(np.float64)
    assert_all_finite(y, input_name=name, estimator_name=estimator)
    return y.toarray() if sparse.issparse(y) else y


def encode(labels: np.ndarray, classes: np.ndarray, name: str = "y") -> np.ndarray:
    """Return the int32 positions of labels among the classes, which are sorted."""
    if _are_integers(labels, classes):  # No sorting.
        positions = np.searchsorted(classes, labels)
        if np.array_equal(classes.take(positions, mode="clip"), labels):
            return positions.astype(np.int32)
    unknown = np.setdiff1d(labels, classes)
    if unknown.size:
        raise ValueError(
            f"`{name}` has classes not in `self.classes_`: {unknown}. `self.classes_` has "
            f"{classes}: "
            + (
                "name all classes in the first call of partial_fit."
                if name == "y"
                else f"leave such samples out of {name}, or fit on samples of these classes too."
            )
        )
    return np.searchsorted(classes, labels).astype(np.int32)


def _are_integers(*arrays: np.ndarray) -> bool:
    return all(array.dtype.kind in "biu" for array in arrays)


def check_weights(
    sample_weight: Any, n_samples: int, *, name: str = "sample_weight"
) -> np.ndarray | None:
    """Return sample weights on the host, (samples,); raise ValueError if negative or all 0."""
    if sample_weight is None:
        return None
    weights: np.ndarray = _check_sample_weight(
        host(sample_weight), np.empty((n_samples, 0)), dtype=np.float64, ensure_non_negative=True
    )
    if not np.any(weights):
        raise ValueError(f"{name} is 0 for all samples; at least one must be above 0.")
    return weights
