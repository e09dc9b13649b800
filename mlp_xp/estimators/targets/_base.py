"""The base class of all kinds of targets."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse
from sklearn.utils.validation import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    column_or_1d,
)

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends import host
from mlp_xp.estimators.checks.unusable import refuse_broken, refuse_masked
from mlp_xp.nn.losses import Custom, Loss


class Targets(ABC):
    """The meaning of a network's outputs, learned from the targets of the first fit.

    ``kind`` is "binary", "multiclass", "multilabel", "multiclass-multioutput" or "real", and
    ``metric`` is the name of the default score. y is encoded as ``n_outputs`` columns; for some
    losses, the network has several outputs per column. ``classes`` are sorted labels, a list of
    arrays for several targets, or None for real values. ``output`` is the output activation, unless
    a loss for real values defines a different one. If ``is_sparse`` is true, y and predictions are
    sparse.
    """

    metric: ClassVar[str]
    kind: str
    n_outputs: int
    classes: np.ndarray | None
    output: str
    is_sparse: bool = False

    @staticmethod
    @abstractmethod
    def check(
        y: Any, estimator: str, n_samples: int, *, name: str = "y", known: np.ndarray | None = None
    ) -> np.ndarray:
        """Return y on the host; raise ValueError if it is not valid for this kind of targets.

        ``known`` are the classes of an earlier fit, if any, which only make the check faster.
        """

    @abstractmethod
    def resolve_loss(self, params: Mapping[str, Any]) -> Loss:
        """Return the loss for the parameters; raise ValueError if it is invalid for the targets."""

    @abstractmethod
    def encode(self, y: np.ndarray, dtype: str, name: str = "y") -> np.ndarray:
        """Return y encoded for the loss, on the host."""

    @abstractmethod
    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return predictions for activated outputs, on the host."""

    @abstractmethod
    def score(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        """Return the default score."""

    def check_loss(self, y: np.ndarray, loss: Loss, name: str = "y") -> None:  # noqa: B027
        """Raise ValueError if the loss does not support the values of y."""

    def check_known(  # noqa: B027
        self, y: np.ndarray, output_activation: str, *, warm_start: bool
    ) -> None:
        """Raise ValueError if a network with these targets cannot continue training on y."""

    @property
    def log_loss(self) -> Loss:
        """The log loss of the probabilities, for fitting a temperature."""
        raise ValueError(
            "scoring='refinement' is only for classifiers: use scoring='loss', or leave it out."
        )

    def strata(self, y: np.ndarray, fraction: float) -> np.ndarray | None:
        """Return the groups by which held-out samples are stratified, or None."""
        return None

    def weigh(
        self, y: np.ndarray, weights: np.ndarray | None, class_weight: Any
    ) -> np.ndarray | None:
        """Return the sample weights, multiplied by the class weights."""
        return weights

    @property
    def plain(self) -> Self:
        """A version of the targets without standardization."""
        return self

    def restore(
        self, loss: Loss, outputs: Any, put: Callable[[np.ndarray], Any], *, xp: Namespace
    ) -> Any:
        """Return activated outputs, (..., outputs), in the unit of y and clipped to its limits.

        ``put`` returns a host array in the dtype and on the device of the outputs.
        """
        return outputs

    def with_classes(self, classes: np.ndarray) -> Self:
        """Return the targets with the class labels that a user has assigned."""
        return self


def dense_targets(
    y: Any, estimator: str, n_samples: int, name: str, *, numeric: bool = False
) -> np.ndarray:
    """Return dense targets; raise ValueError for None, NaN, infinity or a wrong number of rows."""
    if y is None:
        raise ValueError(
            f"This {estimator} estimator requires y to be passed, but the target y is None."
        )
    X = f"X{name.removeprefix('y')}" if name.startswith("y") else "X"
    keep = f"then {X}[keep] and {name}[keep]"
    refuse_masked(
        y, name, f"leave out their samples, e.g. keep = ~numpy.ma.getmaskarray({name}), {keep}"
    )
    y = host(y)
    if isinstance(y, np.ndarray) and y.dtype.names:
        raise TypeError(
            f"{name} must be an array of labels or numbers, got a structured array with the fields "
            f"{', '.join(y.dtype.names)}: pass one field, e.g. {name}[{y.dtype.names[0]!r}]."
        )
    if isinstance(y, np.ndarray) and y.dtype.kind == "T":  # scikit-learn cannot read StringDType.
        y = np.asarray(y.tolist())
    if sparse.issparse(y):
        refuse_broken(y, name)
    settings = {"accept_sparse": "csr", "ensure_2d": False, "ensure_all_finite": False}
    try:
        y = check_array(y, **settings, dtype=None, input_name=name, estimator=estimator)
        row = _missing_row(y) if y.dtype == object else None
        if row is None:
            if numeric and y.dtype.kind in "OUS":
                y = y.astype(np.float64)
            assert_all_finite(y, input_name=name, estimator_name=estimator)
    except OverflowError as error:
        from mlp_xp._utils.columns.values import large_integer  # Import only if needed.

        raise ValueError(f"{name} has {large_integer(y)}: correct it.") from error
    except (TypeError, ValueError):
        row = _missing_row(y)
        if row is None:
            raise
    if row is not None:
        raise ValueError(
            f"Input {name} contains NaN, in row {row}: leave out samples without a target, e.g. "
            f"keep = pandas.notna({name}), {keep} (in polars, "
            f"{X}.filter(keep) and {name}.filter(keep))."
        )
    y = y.toarray() if sparse.issparse(y) else y
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    check_consistent_length(np.empty((n_samples, 0)), y)
    return np.asarray(y)


def _missing_row(y: Any) -> int | None:
    """Return the first row that is None, NaN, or pandas' NA or NaT; None if there is none."""
    from mlp_xp._utils.columns.kinds import is_missing  # Import only if needed.

    values = np.asarray(y, dtype=object)
    if values.ndim == 0:  # y is a sparse matrix.
        return None
    with contextlib.suppress(TypeError):  # Not all values can be in a set.
        if not any(map(is_missing, set(values.flat))):  # Faster than each of a million rows.
            return None
    position = next((i for i, value in enumerate(values.flat) if is_missing(value)), None)
    return None if position is None else position // (values.size // len(values))


def make_loss(given: Any, named: Mapping[str, Callable[[], Loss]], output: str) -> Loss:
    """Return the loss for a name, a loss object, or a function of the outputs."""
    if isinstance(given, str):
        return named[given]()
    # Reject a class here, since `Custom` would wrap it like a function.
    if isinstance(given, type):
        raise TypeError(
            f"loss is the class {given.__name__}: pass an instance, {given.__name__}(...)."
        )
    return given if isinstance(given, Loss) else Custom(given, output)
