"""Momentum, made orthogonal: every direction of a matrix moves by as much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mlp_xp._typing import Array, Namespace
from mlp_xp.optimizers._adam import AdamW
from mlp_xp.optimizers._base import Kind, Slots, check_at_least_0, check_decay

__all__ = ["Muon"]


@dataclass(frozen=True)
class Muon:
    r"""Momentum whose matrix is made orthogonal, for hidden layers; AdamW for everything else.

    For a matrix :math:`W` that is not the output layer's,
    :math:`B \leftarrow \mu B + (1 - \mu) G`, then with Nesterov's momentum
    :math:`D = \mu B + (1 - \mu) G`, else :math:`D = B`; with the singular value decomposition
    :math:`D = U \Sigma V^\top`,

    .. math:: W \leftarrow (1 - \eta \lambda)\, W - \eta\, s\, U V^\top,

    where :math:`U V^\top` comes from a few Newton-Schulz steps, which leave its singular values
    between about 0.7 and 1.2, tiny ones aside. Vectors and the output layer follow AdamW at the
    learning rate :math:`\eta` times ``adam_rate``.

    Parameters
    ----------
    momentum : float in [0, 1), default=0.95
    nesterov : bool, default=True
    ns_steps : int of at least 1, default=5
        Newton-Schulz steps.
    weight_decay : float of at least 0, default=0
        On matrices, the output layer's too; vectors do not decay.
    scale : {"match_rms_adamw", "original"}, default="match_rms_adamw"
        The factor :math:`s`. The first, :math:`0.2 \sqrt{\max(n_{in}, n_{out})}`, moves a matrix
        about as far as Adam does, so that Adam's learning rates serve as they are. The second is
        :math:`\sqrt{\max(1, n_{out} / n_{in})}`; customary then are a ``learning_rate`` of 0.02
        and an ``adam_rate`` of 0.015.
    adam_rate : float of at least 0, default=1
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.95
        Of AdamW, as ``epsilon``.
    epsilon : float of at least 0, default=1e-8

    Notes
    -----
    For each matrix the Newton-Schulz steps cost about ``ns_steps * min(shape) / batch_size`` times
    what its other products in a training step cost. Large batches pay for Muon, small ones do not.
    A hidden matrix needs one slot, everything else two; its second one stays zero.

    References
    ----------
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024),
    https://kellerjordan.github.io/posts/muon/; Liu et al., "Muon is scalable for LLM training"
    (2025), arXiv:2502.16982, for ``"match_rms_adamw"``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import Muon
    >>> rule = Muon(scale="original")
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=1.0, t=1)]
    >>> W, dW = xp.zeros((2, 2)), xp.asarray([[3.0, 0.0], [0.0, -1e-2]])
    >>> W, _ = rule.update(W, dW, (xp.zeros((2, 2)), xp.zeros((2, 2))), coefs, xp=xp)
    >>> xp.round(W, 1)
    array([[-0.7,  0. ],
           [ 0. ,  1.2]])
    """

    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    weight_decay: float = 0.0
    scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    adam_rate: float = 1.0
    beta_1: float = 0.9
    beta_2: float = 0.95
    epsilon: float = 1e-8
    n_slots: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_decay("momentum", self.momentum)
        if not (isinstance(self.ns_steps, int) and self.ns_steps >= 1):
            raise ValueError(
                f"ns_steps is {self.ns_steps!r}, and must be an integer of at least 1."
            )
        if self.scale not in ("match_rms_adamw", "original"):
            raise ValueError(
                f"scale is {self.scale!r}, and must be 'match_rms_adamw' or 'original'."
            )
        check_at_least_0("adam_rate", self.adam_rate)
        self._adamw  # noqa: B018 - checks its own settings.

    @property
    def _adamw(self) -> AdamW:
        return AdamW(self.beta_1, self.beta_2, self.epsilon, self.weight_decay)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Give the learning rate, what hidden matrices shrink by, and AdamW's coefficients."""
        adam = self._adamw.coefficients(learning_rate * self.adam_rate, t)
        return (learning_rate, 1.0 - learning_rate * self.weight_decay, *adam)

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
        """Move along the orthogonal matrix nearest to the momentum; see the class."""
        if kind != "matrix":
            return self._adamw.update(p, g, slots, coefs[2:], kind=kind, xp=xp)
        velocity, unused = slots
        velocity *= self.momentum
        g *= 1.0 - self.momentum
        velocity += g
        if self.nesterov:
            g += self.momentum * velocity
        move = _orthogonal(g if self.nesterov else velocity, self.ns_steps, xp=xp)
        move *= self._factor(*p.shape) * coefs[0]
        if self.weight_decay:
            p *= coefs[1]
        p -= move
        return p, (velocity, unused)

    def _factor(self, fan_in: int, fan_out: int) -> float:
        if self.scale == "original":
            return math.sqrt(max(1.0, fan_out / fan_in))
        return 0.2 * math.sqrt(max(fan_in, fan_out))


def _orthogonal(D: Array, steps: int, *, xp: Namespace) -> Array:
    """Bring all singular values of a matrix near 1, with products alone.

    Each step sends a singular value s to a s + b s^3 + c s^5. The numbers are Jordan's: they raise
    small values as fast as can be, and let large ones hover about 1 rather than converge to it.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    # The Gram matrix is square in the rows of X: let them be the shorter side.
    rows, columns = D.shape
    X = D.T if rows > columns else D
    flat = xp.reshape(D, (-1,))
    # No singular value is above the Frobenius norm. The summand keeps a zero matrix at zero.
    X = X / (xp.sqrt(xp.vecdot(flat, flat)) + 1e-7)
    for _ in range(steps):
        gram = X @ X.T
        polynomial = gram @ gram
        polynomial *= c
        gram *= b
        polynomial += gram
        change = polynomial @ X
        X *= a
        X += change
    return X.T if rows > columns else X
