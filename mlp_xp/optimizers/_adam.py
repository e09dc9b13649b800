"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter, is_zero
from mlp_xp.optimizers._base import Coefs, Kind, check_at_least_0, check_decay


class AdamState(NamedTuple):
    """Exponential moving averages of the gradient and of the squared gradient."""

    mean: Array
    variance: Array


@dataclass(frozen=True)
class Adam:
    r"""Adaptive moment estimation (Adam); the learning rate includes the bias corrections.

    :math:`m \leftarrow \beta_1 m + (1 - \beta_1) g`,
    :math:`v \leftarrow \beta_2 v + (1 - \beta_2) g^2`,
    :math:`p \leftarrow p - \eta_t\, m / (\sqrt v + \epsilon)` with
    :math:`\eta_t = \eta \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`.

    Parameters
    ----------
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.999
    epsilon : float of at least 0, default=1e-8

    References
    ----------
    Kingma, Ba, "Adam" (2015), arXiv:1412.6980, end of section 2. Scikit-learn uses this form.
    PyTorch adds epsilon after correcting v, so its epsilon has less effect in early steps.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import Adam
    >>> rule = Adam(epsilon=0.0)
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=0.1, t=1)]
    >>> state = rule.state_type(xp.zeros(1), xp.zeros(1))
    >>> p, _ = rule.update(xp.asarray([1.0]), xp.asarray([2.0]), state, coefs, xp=xp)
    >>> round(float(p[0]), 6)
    0.9
    """

    beta_1: float = hyperparameter(0.9)
    beta_2: float = hyperparameter(0.999)
    epsilon: float = hyperparameter(1e-8)
    state_type: ClassVar[type[AdamState]] = AdamState

    def __post_init__(self) -> None:
        check_decay("beta_1", self.beta_1)
        check_decay("beta_2", self.beta_2)
        check_at_least_0("epsilon", self.epsilon)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the learning rate with both bias corrections."""
        return (learning_rate * math.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t),)

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Update a parameter with the formula in the class docstring."""
        rate, *_ = coefs
        m, v = state.mean, state.variance
        m *= self.beta_1
        m += (1.0 - self.beta_1) * g
        g *= g
        g *= 1.0 - self.beta_2
        v *= self.beta_2
        v += g
        size = xp.sqrt(v)
        size += self.epsilon
        direction = m / size
        direction *= rate
        p -= direction
        return p, AdamState(m, v)


@dataclass(frozen=True)
class AdamW(Adam):
    r"""Adam with decoupled weight decay: first :math:`p \leftarrow (1 - \eta \lambda)\, p`.

    Weight decay applies to matrices, not to biases.

    Parameters
    ----------
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.999
    epsilon : float of at least 0, default=1e-8
    weight_decay : float of at least 0, default=0.01

    References
    ----------
    Loshchilov, Hutter, "Decoupled weight decay regularization" (2019), arXiv:1711.05101.

    Examples
    --------
    >>> from mlp_xp.optimizers import AdamW
    >>> AdamW(weight_decay=0.5).coefficients(learning_rate=0.1, t=1)[1]
    0.95
    """

    weight_decay: float = hyperparameter(0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_0("weight_decay", self.weight_decay)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return Adam's learning rate, and the decay factor for matrices."""
        return (*super().coefficients(learning_rate, t), 1.0 - learning_rate * self.weight_decay)

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Apply the weight decay to a matrix, then apply Adam."""
        _, shrink, *_ = coefs
        if not is_zero(self.weight_decay) and kind != "vector":
            p *= shrink
        return super().update(p, g, state, coefs, kind=kind, xp=xp)
