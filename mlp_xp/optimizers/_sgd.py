"""Stochastic gradient descent, with or without momentum."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter, is_array, is_zero
from mlp_xp.optimizers._base import Coefs, Kind, Stateless


class SGDState(NamedTuple):
    """The velocity."""

    velocity: Array


@dataclass(frozen=True)
class SGD:
    r"""Stochastic gradient descent with momentum, in scikit-learn's form.

    :math:`v \leftarrow \mu v - \eta g`, then :math:`p \leftarrow p + v`, or with Nesterov's
    momentum :math:`p \leftarrow p + \mu v - \eta g`.

    Parameters
    ----------
    momentum : float in [0, 1], default=0.9
    nesterov : bool, default=True

    References
    ----------
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
    learning" (2013), section 2.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import SGD
    >>> rule = SGD(momentum=0.5, nesterov=False)
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=0.1, t=1)]
    >>> state = rule.state_type(xp.asarray([0.4]))
    >>> rule.update(xp.asarray([1.0]), xp.asarray([2.0]), state, coefs, xp=xp)
    (array([1.]), SGDState(velocity=array([0.])))
    """

    momentum: float = hyperparameter(0.9)
    nesterov: bool = True

    def __post_init__(self) -> None:
        if not is_array(self.momentum) and not 0.0 <= self.momentum <= 1.0:  # As in scikit-learn.
            raise ValueError(f"`momentum` must be from 0 to 1, got {self.momentum!r}.")

    @property
    def state_type(self) -> type[SGDState | Stateless]:
        """The velocity, or nothing if the momentum is 0."""
        return Stateless if is_zero(self.momentum) else SGDState

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the learning rate."""
        return (learning_rate,)

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Update a parameter with the formula in the class docstring."""
        rate, *_ = coefs
        g *= rate
        if not state:
            p -= g
            return p, state
        v = state.velocity
        v *= self.momentum
        v -= g
        if self.nesterov:
            p += self.momentum * v
            p -= g
        else:
            p += v
        return p, SGDState(v)
