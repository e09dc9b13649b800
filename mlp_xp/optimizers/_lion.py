"""Lion, which updates parameters by the sign of the momentum."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter, is_zero
from mlp_xp.optimizers._base import Coefs, Kind, check_at_least_0, check_decay


class LionState(NamedTuple):
    """The exponential moving average of the gradient."""

    mean: Array


@dataclass(frozen=True)
class Lion:
    r"""Updates by the sign of the momentum: every element moves up or down by the learning rate.

    :math:`c = \beta_1 m + (1 - \beta_1) g`,
    :math:`p \leftarrow (1 - \eta \lambda)\, p - \eta\, \mathrm{sign}(c)`,
    :math:`m \leftarrow \beta_2 m + (1 - \beta_2) g`.

    Weight decay applies to matrices, not to biases. The authors recommend dividing Adam's learning
    rate by 3 to 10, and multiplying its weight decay by the same factor.

    Parameters
    ----------
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.99
    weight_decay : float of at least 0, default=0

    References
    ----------
    Chen et al., "Symbolic discovery of optimization algorithms" (2023), arXiv:2302.06675,
    program 1.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import Lion
    >>> from mlp_xp.optimizers._lion import LionState
    >>> rule = Lion(beta_2=0.75)
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=0.5, t=1)]
    >>> rule.update(xp.asarray([1.0]), xp.asarray([2.0]), LionState(xp.zeros(1)), coefs, xp=xp)
    (array([0.5]), LionState(mean=array([0.5])))
    """

    beta_1: float = hyperparameter(0.9)
    beta_2: float = hyperparameter(0.99)
    weight_decay: float = hyperparameter(0.0)
    state_type: ClassVar[type[LionState]] = LionState

    def __post_init__(self) -> None:
        check_decay("beta_1", self.beta_1)
        check_decay("beta_2", self.beta_2)
        check_at_least_0("weight_decay", self.weight_decay)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the learning rate, and the decay factor for matrices."""
        return learning_rate, 1.0 - learning_rate * self.weight_decay

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Update a parameter with the formula in the class docstring."""
        rate, shrink, *_ = coefs
        m = state.mean
        mixed = self.beta_1 * m
        mixed += (1.0 - self.beta_1) * g
        direction = xp.sign(mixed)
        direction *= rate
        if not is_zero(self.weight_decay) and kind != "vector":
            p *= shrink
        p -= direction
        m *= self.beta_2
        g *= 1.0 - self.beta_2
        m += g
        return p, LionState(m)
