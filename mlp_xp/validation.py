"""Checks of what a user hands in; scikit-learn does them wherever it can."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_n_features,
    _check_sample_weight,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from mlp_xp.backends import get_backend, namespace_backend, to_numpy

__all__ = ["check_labels", "check_weights", "check_x", "encode"]


def check_x(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Check the input, by scikit-learn for what NumPy can hold, and where it lies for the rest.

    Scikit-learn takes other libraries' arrays only with its array API dispatch switched on, for
    the whole process; here they are checked without leaving their device.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` is set (``reset``) or compared with.
    X : array-like of shape (samples, features)
    reset : bool

    Returns
    -------
    array of shape (samples, features)
        uint8, float32 or float64 for NumPy; an array of the library that X is of otherwise.

    Raises
    ------
    ValueError
        If X is not 2-D, empty, complex, has NaN or infinity, or a wrong number of features.
    """
    name = namespace_backend(X)
    if name in (None, "numpy"):
        return validate_data(estimator, X, dtype=(np.float64, np.float32, np.uint8), reset=reset)
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
    with backend.scope():
        is_bad = xp.isdtype(X.dtype, "real floating") and not bool(xp.all(xp.isfinite(X)))
    if is_bad:
        raise ValueError("Input X contains NaN or infinity.")
    _check_n_features(estimator, X, reset=reset)
    return X


def check_labels(y: Any, n_samples: int) -> np.ndarray:
    """Check class labels and bring them to the host.

    Returns
    -------
    (samples,) array
        Of integers, strings or whatever else scikit-learn takes for classes.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None.")
    host = column_or_1d(to_numpy(y) if namespace_backend(y) else y, warn=True)
    check_consistent_length(np.empty((n_samples, 0)), host)
    check_classification_targets(host)
    return np.asarray(host)


def encode(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Turn labels into their int32 positions among the classes, which are sorted.

    Raises
    ------
    ValueError
        If a label is not among the classes.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.validation import encode
    >>> encode(np.asarray(["cat", "ant"]), np.asarray(["ant", "bee", "cat"]))
    array([2, 0], dtype=int32)
    """
    unknown = np.setdiff1d(labels, classes)
    if unknown.size:
        raise ValueError(
            f"`y` has classes not in `self.classes_`: {unknown}. `self.classes_` has {classes}; "
            "name all classes in the first call of partial_fit."
        )
    return np.searchsorted(classes, labels).astype(np.int32)


def check_weights(sample_weight: Any, n_samples: int) -> np.ndarray | None:
    """Check sample weights and bring them to the host: (samples,), at least 0, not all 0."""
    if sample_weight is None:
        return None
    host = to_numpy(sample_weight) if namespace_backend(sample_weight) else sample_weight
    weights: np.ndarray = _check_sample_weight(
        host, np.empty((n_samples, 0)), dtype=np.float64, ensure_non_negative=True
    )
    if not np.any(weights):
        raise ValueError("sample_weight is 0 for all samples; at least one must be above 0.")
    return weights
