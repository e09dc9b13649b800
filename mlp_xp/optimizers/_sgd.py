"""Stochastic gradient descent, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.optimizers._base import Kind, Slots, check_decay

__all__ = ["SGD"]


@dataclass(frozen=True)
class SGD:
    r"""Stochastic gradient descent with momentum, as scikit-learn writes it.

    :math:`v \leftarrow \mu v - \eta g`, then :math:`p \leftarrow p + v`, or with Nesterov's
    momentum :math:`p \leftarrow p + \mu v - \eta g`.

    Parameters
    ----------
    momentum : float in [0, 1), default=0.9
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
    >>> rule.update(xp.asarray([1.0]), xp.asarray([2.0]), (xp.asarray([0.4]),), coefs, xp=xp)
    (array([1.]), (array([0.]),))
    """

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        check_decay("momentum", self.momentum)

    @property
    def n_slots(self) -> int:
        """One velocity, or nothing without momentum."""
        return 1 if self.momentum else 0

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Give the learning rate."""
        return (learning_rate,)

    def update(
        self,
        p: Array,
        g: Array,
        slots: Slots,
        coefs: Slots,
        *,
        kind: Kind = "matrix",
        xp: Namespace,
    ) -> tuple[Array, Slots]:
        """Move along the velocity; see the class."""
        g *= coefs[0]
        if not slots:
            p -= g
            return p, ()
        (v,) = slots
        v *= self.momentum
        v -= g
        if self.nesterov:
            p += self.momentum * v
            p -= g
        else:
            p += v
        return p, (v,)
