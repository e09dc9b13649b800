"""Gradient descent that sets small weights to zero."""

from __future__ import annotations

from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter
from mlp_xp.optimizers._base import Coefs, Kind, Optimizer, check_at_least_0
from mlp_xp.optimizers._sgd import SGD


@dataclass(frozen=True)
class BetaLasso(SGD):
    r"""SGD with an L1 penalty that also sets small weights to zero.

    For a hidden matrix, `SGD` uses the gradient :math:`g = \nabla f(p) + \lambda\,
    \mathrm{sign}(p)`. Then :math:`p \leftarrow p \cdot [\, |p| \ge \beta \lambda \,]`, elementwise.
    The threshold does not depend on the learning rate.

    The penalty and the threshold do not apply to vectors and the output layer, since only hidden
    layers should become sparse, and an output layer that starts at zero would remain zero. A zero
    weight in a hidden matrix changes only if the step is longer than :math:`\beta \lambda`.

    Parameters
    ----------
    momentum : float in [0, 1], default=0.9
        The paper uses no momentum.
    nesterov : bool, default=True
    l1 : float of at least 0, default=1e-5
        The :math:`\lambda` above.
    beta : float of at least 0, default=50
        The :math:`\beta` above. With 0, the rule is SGD with an L1 penalty; larger values set more
        weights to zero.

    References
    ----------
    Neyshabur, "Towards learning convolutions from scratch" (2020), arXiv:2007.13657, algorithm 1,
    for the case without momentum.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import BetaLasso
    >>> rule = BetaLasso(momentum=0.0, l1=0.5, beta=2.0)
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=0.1, t=1)]
    >>> W, dW = xp.asarray([[1.5, 1.0, -3.0]]), xp.asarray([[1.0, 1.0, 1.0]])
    >>> rule.update(W, dW, rule.state_type(), coefs, xp=xp)
    (array([[ 1.35,  0.  , -3.05]]), Stateless())
    """

    l1: float = hyperparameter(1e-5)
    beta: float = hyperparameter(50.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_0("l1", self.l1)
        check_at_least_0("beta", self.beta)

    def of_kind(self, kind: Kind, coefs: Coefs) -> tuple[Optimizer, Coefs]:
        """Return this rule for hidden matrices, else SGD."""
        return (self if kind == "matrix" else SGD(self.momentum, self.nesterov)), coefs

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Apply SGD, then set small weights to zero."""
        if kind != "matrix":
            return super().update(p, g, state, coefs, kind=kind, xp=xp)
        pull = xp.sign(p)
        pull *= self.l1
        g += pull
        p, state = super().update(p, g, state, coefs, kind=kind, xp=xp)
        p *= xp.astype(xp.abs(p) >= self.beta * self.l1, p.dtype)
        return p, state
