"""RMSprop: gradients divided by their running root mean square."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter, is_zero
from mlp_xp.optimizers._base import Coefs, Kind, check_at_least_0, check_decay


class RMSpropState(NamedTuple):
    """The moving average of the squared gradient."""

    variance: Array


class RMSpropMomentumState(NamedTuple):
    """The moving average of the squared gradient, and the velocity."""

    variance: Array
    velocity: Array


@dataclass(frozen=True)
class RMSprop:
    r"""Gradients divided by their running root mean square (RMSprop), in PyTorch's form.

    :math:`v \leftarrow \rho v + (1 - \rho) g^2`, :math:`d = g / (\sqrt v + \epsilon)`, then
    :math:`p \leftarrow p - \eta d`, or with momentum :math:`b \leftarrow \mu b + d` and
    :math:`p \leftarrow p - \eta b`.

    Parameters
    ----------
    rho : float in [0, 1), default=0.9
        PyTorch's name is ``alpha``, and its default is 0.99.
    epsilon : float of at least 0, default=1e-8
    momentum : float in [0, 1), default=0

    References
    ----------
    Tieleman, Hinton, "Lecture 6.5 - rmsprop", Neural Networks for Machine Learning, Coursera
    (2012).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import RMSprop
    >>> rule = RMSprop(rho=0.75, epsilon=0.0)
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=0.1, t=1)]
    >>> state = rule.state_type(xp.zeros(1))
    >>> rule.update(xp.asarray([1.0]), xp.asarray([2.0]), state, coefs, xp=xp)
    (array([0.8]), RMSpropState(variance=array([1.])))
    """

    rho: float = hyperparameter(0.9)
    epsilon: float = hyperparameter(1e-8)
    momentum: float = hyperparameter(0.0)

    def __post_init__(self) -> None:
        check_decay("rho", self.rho)
        check_at_least_0("epsilon", self.epsilon)
        check_decay("momentum", self.momentum)

    @property
    def state_type(self) -> type[RMSpropState | RMSpropMomentumState]:
        """The mean square and, with momentum, the velocity."""
        return RMSpropState if is_zero(self.momentum) else RMSpropMomentumState

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the learning rate."""
        return (learning_rate,)

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Update a parameter with the formula in the class docstring."""
        rate, *_ = coefs
        v = state.variance
        square = g * g
        square *= 1.0 - self.rho
        v *= self.rho
        v += square
        size = xp.sqrt(v)
        size += self.epsilon
        g /= size
        if is_zero(self.momentum):
            g *= rate
            p -= g
            return p, RMSpropState(v)
        b = state.velocity
        b *= self.momentum
        b += g
        p -= rate * b
        return p, RMSpropMomentumState(v, b)
