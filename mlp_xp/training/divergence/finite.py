"""The check for infinity and NaN, and the error raised by a fit that produces them."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves
from mlp_xp.backends import Backend

NON_FINITE_WEIGHTS = "Solver produced non-finite parameter weights."  # scikit-learn's message

# The BLAS computes dot products up to this length in a single thread.
_SHORT = 10_000

Cause = Literal["input", "target", "weight", "rate"]


class NonFiniteError(ValueError):
    """Raised if a fit produces infinity or NaN; the model keeps the last finite weights.

    Attributes
    ----------
    epoch : int
        The epoch's number, from 1, as in ``history_``; for "lbfgs", the iteration's number.
    step : int or None
        The step's number in the epoch, from 1; None for "lbfgs".
    layer : str or None
        Where infinity or NaN first appeared, e.g. ``"hidden layer 1"``, ``"loss"``, ``"gradient of
        output layer"`` or ``"update of hidden layer 1"``; None if repeating the step does not
        reproduce it.
    cause : {"input", "target", "weight", "rate"}
        The likely cause: X, y, the sample weights, or the learning rate.

    Examples
    --------
    >>> from mlp_xp import MLPRegressor
    >>> from mlp_xp.training.divergence.finite import NonFiniteError
    >>> model = MLPRegressor(solver="sgd", learning_rate_init=1e200, random_state=0)
    >>> try:
    ...     model.fit([[0.0], [1.0]], [0.0, 1.0])
    ... except NonFiniteError as error:
    ...     print(error.epoch, error.step, error.layer, error.cause)
    2 1 output layer rate
    """

    def __init__(
        self,
        message: str,
        *,
        epoch: int = 0,
        step: int | None = None,
        layer: str | None = None,
        cause: Cause = "rate",
    ) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.layer = layer
        self.cause = cause


def is_finite(backend: Backend, tree: Tree) -> bool:
    """Whether all arrays are finite.

    If they are, only one scalar is read from the device.
    """
    xp = backend.xp
    first, *others = arrays = leaves(tree)
    if all(map(_is_short_and_finite, arrays)):
        return True
    with backend.scope(), np.errstate(all="ignore"):
        # A sum reads each array only once, and is finite only if all terms are finite.
        total: Any = sum(map(xp.sum, others), start=xp.sum(first))
        if math.isfinite(total):
            return True
        return all(bool(xp.all(xp.isfinite(array))) for array in (first, *others))


def _is_short_and_finite(array: Any) -> bool:
    """Whether a NumPy array is short and finite; may be False for large finite values.

    This computes the sum of squares as a dot product, which never warns and takes half the time
    of `numpy.sum`.
    """
    return (
        type(array) is np.ndarray and array.size <= _SHORT and math.isfinite(np.vdot(array, array))
    )
