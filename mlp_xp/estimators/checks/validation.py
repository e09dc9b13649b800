"""Checks of X, y and sample weights, with scikit-learn's own checks if possible.

NaN in an array X is an error here. In a data frame, NaN is a missing value, which
`mlp_xp.estimators.tables.columns` replaces with the column's median if ``missing_values`` is
"impute".
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.validation import (
    _check_n_features,
    _check_sample_weight,
    assert_all_finite,
    validate_data,
)

from mlp_xp._utils.signals.forks import between_forks
from mlp_xp.backends import Backend, get_backend, host, namespace_backend
from mlp_xp.estimators.checks.unusable import refuse_masked, refuse_unusable
from mlp_xp.training.data.rows import Rows, is_mapped, some_rows, take_rows
from mlp_xp.training.processes import SingleProcess

# Arrays of these dtypes are not converted; all others are converted to the first dtype.
_DTYPES = (np.float64, np.float32, np.uint8)
_vdot = between_forks(np.vdot)  # Delay forks, since a fork during a dot product would hang.
_KEPT = frozenset(map(np.dtype, _DTYPES))
# Parts of scikit-learn's error messages.
_TEXT, _NAN = "could not convert string to float", "contains NaN"
# The number of entries of a memory-mapped file to check at once.
_BLOCK = 1 << 18


SampleArguments = tuple[Any, Any, Any]  # The arguments X, y and sample_weight.


class Sample(NamedTuple):
    """Checked samples: X (or `Rows` of X) on its own device, targets and weights on the host.

    If each process passes a different part of the samples, X is a `Shard`, and y has the targets of
    all processes.
    """

    X: Any
    y: np.ndarray
    weights: np.ndarray | None

    def take(self, rows: np.ndarray) -> Sample:
        """Return the samples at the given positions."""
        weights = None if self.weights is None else self.weights[rows]
        return Sample(some_rows(self.X, rows), self.y[rows], weights)


def check_sample(
    model: Any, given: SampleArguments, *, reset: bool, suffix: str = "", processes: SingleProcess
) -> Sample:
    """Return the checked samples of all processes; ``suffix`` is appended to names in errors."""
    check = functools.partial(_check_inputs, model, reset=reset, suffix=suffix)
    x, y, weights = processes.join_samples(check, given, suffix)
    n_samples = x.shape[0]
    y = check_y(model, y, n_samples, f"y{suffix}")
    weights = check_weights(weights, n_samples, name=f"sample_weight{suffix}")
    processes.agree_on_samples(x, y, weights, suffix)
    return Sample(x, y, weights)


def check_held_out(model: Any, given: SampleArguments, processes: SingleProcess) -> Sample | None:
    """Return the checked held-out samples, or None if none are given."""
    X, y, weights = given
    if X is None and y is None:
        if weights is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val: pass them, too.")
        return None
    if X is None or y is None:
        missing = "X_val" if X is None else "y_val"
        raise ValueError(f"X_val and y_val must be given together, but {missing} is None.")
    return check_sample(model, given, reset=False, suffix="_val", processes=processes)


def _check_inputs(model: Any, X: Any, *, suffix: str, **settings: Any) -> Any:
    """Check X or X_val; an error about X_val says how to transform X_val in a pipeline."""
    try:
        return check_x(model, X, **settings)
    except ValueError as error:
        if not suffix:
            raise
        # Use the original error, without the advice on text in X.
        cause = str(error.__cause__ or error).rstrip(".")
        raise ValueError(
            f"X{suffix}: {cause}. By default, a Pipeline does not transform X{suffix}: type "
            "sklearn.set_config(enable_metadata_routing=True), Pipeline(..., "
            f"transform_input=['X{suffix}']) and, in the Pipeline, "
            f"{type(model).__name__}().set_fit_request(X_val=True, y_val=True), or transform "
            f"X{suffix} with the steps before the network."
        ) from error


def check_x(
    estimator: Any, X: Any, *, reset: bool, exchange: Callable[[Any], list[Any]] | None = None
) -> Any:
    """Check X with scikit-learn if NumPy can convert X, otherwise on the device of X.

    If ``reset``, set the estimator's ``n_features_in_``; otherwise compare it with X. ``exchange``
    is given if X is one process's part of the samples. X may then have no rows, but the result has
    at least one. A NumPy result has dtype uint8, float32, float64 or the dtype of a memory-mapped
    file. A sparse result is in CSR format.
    """
    if reset:
        vars(estimator).pop("columns_", None)  # Left over from an earlier fit.
    is_table = asks_for_table(estimator) if reset else "columns_" in vars(estimator)
    if isinstance(X, Rows) and (X.shared is not None or not is_table):
        return _check_rows(estimator, X, reset=reset)
    if isinstance(X, Rows):  # Learn the table's columns from the selected rows only.
        X = take_rows(X, slice(None))
    if exchange is not None and not is_table:
        X = _fill_rows(X)
    if not is_table and _is_plain(X):
        if reset:
            return _set_n_features(estimator, X)
        if X.shape[1] == estimator.n_features_in_ and not hasattr(estimator, "feature_names_in_"):
            return X
    refuse_unusable(X, type(estimator).__name__, is_table=is_table)
    backend = None if namespace_backend(X) in (None, "numpy") else get_backend(X)
    if not is_table and is_mapped(X) and X.dtype.kind in "biuf":
        return _check_mapped(estimator, X, reset=reset)
    if is_table:
        from mlp_xp.estimators.tables.encoding import encode_table  # Import only for tables.

        on_host = X if backend is None else backend.get(X)
        matrix = encode_table(estimator, on_host, reset=reset, exchange=exchange)
        return matrix if backend is None else backend.put(matrix)
    if backend is None:
        return _check_by_sklearn(estimator, X, reset=reset)
    return _check_array(estimator, X, backend, reset=reset)


def asks_for_table(estimator: Any) -> bool:
    """Whether the settings require X to be encoded column by column."""
    return (
        getattr(estimator, "categorical_features", None) is not None
        or getattr(estimator, "missing_values", "error") != "error"
        or getattr(estimator, "input_scaling", None) in ("robust", "quantile")
        or getattr(estimator, "monotonic_cst", None) is not None
    )


def _check_rows(estimator: Any, X: Rows, *, reset: bool) -> Any:
    """Check rows of an array, unless a search has already checked the array for many fits."""
    if X.shared is not None and reset:
        _set_n_features(estimator, X)
        vars(estimator).update(X.shared.names)
        return X
    if X.shared is not None and "columns_" in X.shared.names:
        return X  # The caller has encoded X for all estimators with these columns.
    checked = check_x(estimator, X.x, reset=reset)
    return X if checked.dtype == X.dtype else Rows(checked, X.rows)


def _fill_rows(X: Any) -> Any:
    """Return X, or a placeholder row of zeros if X has no rows."""
    if X.shape[0] if hasattr(X, "shape") else len(X):
        return X
    if sparse.issparse(X):
        return sparse.csr_array((1, X.shape[1]), dtype=X.dtype)
    if hasattr(X, "reindex"):  # Keep the column names of a data frame.
        return X.reindex(range(1), fill_value=0)
    if isinstance(X, np.ndarray):
        return np.zeros((1, X.shape[1]), X.dtype)
    if namespace_backend(X) is not None:
        backend = get_backend(X)
        return backend.xp.zeros((1, X.shape[1]), dtype=X.dtype, device=backend.device)
    raise ValueError(
        "X has no rows. For a rank without samples in a distributed fit, pass a NumPy array of "
        "shape (0, features)."
    )


def _check_by_sklearn(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Check X with scikit-learn, and add advice to its errors."""
    settings = {"accept_sparse": ["csr", "csc"], "dtype": _DTYPES, "reset": reset}
    name = type(estimator).__name__
    try:
        checked = validate_data(estimator, X, **settings)
    except ValueError as error:
        if _TEXT in str(error):
            from mlp_xp.estimators.checks.text_advice import text_advice  # Import only for text.

            raise ValueError(f"{error}. {text_advice(X, name)}") from error
        if _NAN in str(error):
            raise _nan_error() from None
        raise
    except OverflowError as error:
        from mlp_xp._utils.columns.values import large_integer  # Import only if needed.

        raise ValueError(f"X has {large_integer(X)}: correct it.") from error
    except TypeError as error:
        if re.search(r"\b(date|timestamp)", str(error), re.IGNORECASE):
            raise TypeError(
                f"X has dates, but {name} requires numbers: set categorical_features='from_dtype', "
                "which converts them to year, day of year, weekday and second of day."
            ) from error
        raise
    # Convert to CSR, since selecting the rows of a batch from CSC would read all the data.
    return checked.tocsr() if sparse.issparse(checked) else checked


def _check_array(estimator: Any, X: Any, backend: Backend, *, reset: bool) -> Any:
    """Check an array of a library other than NumPy, on the array's device.

    Scikit-learn accepts such arrays only if array API dispatch is enabled for the whole process.
    """
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
        raise ValueError("X has dtype bool: convert it first, e.g. xp.astype(X, xp.float32).")
    if xp.isdtype(X.dtype, "real floating"):
        # Check `max` and `min`, which propagate NaN, to avoid a temporary array as large as X.
        with backend.scope():
            is_finite = bool(xp.isfinite(xp.max(X)) & xp.isfinite(xp.min(X)))
        if not is_finite:
            raise _nan_error("NaN or infinity")
    if reset:
        return _set_n_features(estimator, X)
    _check_n_features(estimator, X, reset=False)
    return X


def _nan_error(what: str = "NaN") -> ValueError:
    from mlp_xp.estimators.checks.text_advice import IMPUTE  # Import only for errors.

    return ValueError(f"Input X contains {what}: {IMPUTE}.")


def _set_n_features(estimator: Any, X: Any) -> Any:
    """Set the number of features of an estimator, and return X, which has no column names."""
    vars(estimator).pop("feature_names_in_", None)  # Left over from an earlier fit.
    _check_n_features(estimator, X, reset=True)
    return X


def _check_mapped(estimator: Any, X: np.ndarray, *, reset: bool) -> np.ndarray:
    """Check a memory-mapped file in blocks of rows, without copying the file."""
    settings = {"dtype": None, "ensure_all_finite": False, "reset": reset}
    checked: np.ndarray = validate_data(estimator, X, **settings)
    if checked.dtype.kind == "f":
        n_rows = max(1, _BLOCK // checked.shape[1])
        for start in range(0, len(checked), n_rows):
            block = checked[start : start + n_rows].astype(np.float64, copy=False)
            if np.isnan(block).any():
                raise _nan_error()
            assert_all_finite(block, input_name="X", estimator_name=type(estimator).__name__)
    return checked


def _is_plain(X: Any) -> bool:
    """Whether scikit-learn's slower check would return X unchanged and without a warning.

    If in doubt, return False; scikit-learn then checks X and raises the error.
    """
    if not (
        type(X) is np.ndarray
        and X.dtype in _KEPT
        and X.ndim == 2
        and X.size > 0
        and X.flags.forc  # A contiguous array can be flattened without a copy.
    ):
        return False
    # The sum of squares is finite only if every number is finite, since squares cannot cancel out.
    # `vdot` never warns, and uses all BLAS threads.
    flat = X.ravel(order="K")
    return X.dtype.kind == "u" or math.isfinite(_vdot(flat, flat))


def check_y(estimator: Any, y: Any, n_samples: int, name: str = "y") -> np.ndarray:
    """Return an estimator's targets on the host; raise ValueError if they are not valid."""
    known, kind = getattr(estimator, "classes_", None), type(estimator).__name__
    checked: np.ndarray = estimator._targets_type.check(y, kind, n_samples, name=name, known=known)
    return checked


def check_weights(
    sample_weight: Any, n_samples: int, *, name: str = "sample_weight"
) -> np.ndarray | None:
    """Return sample weights on the host, (samples,); raise ValueError if negative or all 0."""
    if sample_weight is None:
        return None
    refuse_masked(sample_weight, name, f"fill them in, e.g. {name} = {name}.filled(0)")
    weights: np.ndarray = _check_sample_weight(
        host(sample_weight), np.empty((n_samples, 0)), dtype=np.float64, ensure_non_negative=True
    )
    if not np.any(weights):
        raise ValueError(f"{name} must be above 0 for at least one sample, got only zeros.")
    with np.errstate(over="ignore"):
        total = np.sum(weights)
    if not np.isfinite(total):
        raise ValueError(
            f"The sum of {name} must be finite, got weights of up to {np.max(weights):.3g}: type "
            f"{name} / numpy.max({name})."
        )
    return weights
