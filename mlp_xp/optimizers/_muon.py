"""Orthogonalized momentum: updates with equal singular values."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, ClassVar, Literal, TypeAlias

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter, is_zero
from mlp_xp.optimizers._adam import AdamState, AdamW
from mlp_xp.optimizers._base import Coefs, Kind, Optimizer, check_at_least_0, check_decay

# The coefficients a, b and c of the polynomial a x + b x^3 + c x^5.
Quintic: TypeAlias = tuple[float, float, float]

_JORDAN: Quintic = (3.4445, -4.7750, 2.0315)
# The maximum distance of singular values from 1 after the minimax polynomials.
_SPREAD = 0.25
# Extend each polynomial's interval by this factor, since rounding to 8 bits can exceed the
# interval.
_ROOM = 1.01
# A small number to add to norms, so that the update for a zero gradient is zero.
_TINY = 1e-7


@dataclass(frozen=True)
class Muon:
    r"""Orthogonalized momentum for hidden matrices; AdamW for everything else.

    For a hidden layer's matrix :math:`W` with gradient :math:`G`, the momentum is :math:`B
    \leftarrow \mu B + (1 - \mu) G`. The direction is :math:`D = \mu B + (1 - \mu) G` with
    Nesterov's momentum, else :math:`D = B`. With the singular value decomposition :math:`D = U
    \Sigma V^\top`,

    .. math:: W \leftarrow (1 - \eta \lambda)\, W - \eta\, s\, U V^\top,

    where :math:`U V^\top` is computed by a few Newton-Schulz steps. The steps use only matrix
    products, and bring all singular values except tiny ones close to 1. AdamW, with the learning
    rate :math:`\eta` times ``adam_rate``, updates vectors and the output layer.

    In a stack, ``(blocks, fan_in, fan_out)``, each matrix is updated separately.

    Parameters
    ----------
    momentum : float in [0, 1), default=0.95
    nesterov : bool, default=True
    ns_steps : int of at least 1, default=4
        The number of Newton-Schulz steps.
    ns_polynomial : {"minimax", "jordan"}, default="minimax"
        The polynomials that map singular values. ``"minimax"`` uses the best polynomials for
        ``ns_steps`` steps. 3, 4 or 5 steps map all singular values above 1/90, 1/380 or 1/1600 of
        the largest (or its bound) to between 0.75 and 1.25. In bfloat16, more than 4 steps amplify
        rounding errors. ``"jordan"`` uses Jordan's polynomial in each step, and works best with 5
        steps, which map singular values above 1/600 of the Frobenius norm to between 0.68 and 1.2.
    weight_decay : float of at least 0, default=0
        Weight decay for matrices, including the output layer's, but not for vectors.
    scale : {"match_rms_adamw", "original"}, default="match_rms_adamw"
        The factor :math:`s`. ``"match_rms_adamw"``, :math:`0.2 \sqrt{\max(n_{in}, n_{out})}`, moves
        a matrix about as far as Adam does, so use Adam's learning rates. ``"original"`` is
        :math:`\sqrt{\max(1, n_{out} / n_{in})}`; usual settings are a ``learning_rate`` of 0.02 and
        an ``adam_rate`` of 0.015.
    adam_rate : float of at least 0, default=1
    beta_1, beta_2 : float in [0, 1), default=0.9, 0.95
        AdamW's settings, like ``epsilon``.
    epsilon : float of at least 0, default=1e-8

    Notes
    -----
    For a square matrix, the Newton-Schulz steps cost about ``ns_steps * width / batch_size`` times
    as much as the matrix's other products in a training step; for an elongated matrix, they cost
    about half of that. Therefore Muon pays off for large batches, but not for small ones.

    Matrix products are in the gradient's dtype, e.g. bfloat16; everything else is in the
    parameters' dtype. AdamW's state stores a hidden matrix's velocity as ``mean``; its ``variance``
    remains zero.

    References
    ----------
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024),
    https://kellerjordan.github.io/posts/muon/; Liu et al., "Muon is scalable for LLM training"
    (2025), arXiv:2502.16982, for ``"match_rms_adamw"``; Amsel et al., "The Polar Express" (2025),
    arXiv:2505.16932, for ``"minimax"``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import Muon
    >>> rule = Muon(scale="original")
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=1.0, t=1)]
    >>> W, dW = xp.zeros((2, 2)), xp.asarray([[3.0, 0.0], [0.0, -1e-2]])
    >>> W, _ = rule.update(W, dW, rule.state_type(xp.zeros((2, 2)), xp.zeros((2, 2))), coefs, xp=xp)
    >>> xp.round(W, 1)
    array([[-1.2,  0. ],
           [ 0. ,  0.9]])
    """

    momentum: float = hyperparameter(0.95)
    nesterov: bool = True
    ns_steps: int = 4
    weight_decay: float = hyperparameter(0.0)
    scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    adam_rate: float = hyperparameter(1.0)
    beta_1: float = hyperparameter(0.9)
    beta_2: float = hyperparameter(0.95)
    epsilon: float = hyperparameter(1e-8)
    ns_polynomial: Literal["minimax", "jordan"] = "minimax"
    state_type: ClassVar[type[AdamState]] = AdamState
    low_precision: ClassVar[tuple[Kind, ...]] = ("matrix",)

    def __post_init__(self) -> None:
        check_decay("momentum", self.momentum)
        if not (isinstance(self.ns_steps, int) and self.ns_steps >= 1):
            raise ValueError(f"`ns_steps` must be an integer of at least 1, got {self.ns_steps!r}.")
        if self.scale not in ("match_rms_adamw", "original"):
            raise ValueError(
                f"`scale` must be 'match_rms_adamw' or 'original', got {self.scale!r}."
            )
        if self.ns_polynomial not in ("minimax", "jordan"):
            raise ValueError(
                f"`ns_polynomial` must be 'minimax' or 'jordan', got {self.ns_polynomial!r}."
            )
        check_at_least_0("adam_rate", self.adam_rate)
        self._adamw  # noqa: B018 - checks its own settings.

    @property
    def _adamw(self) -> AdamW:
        return AdamW(self.beta_1, self.beta_2, self.epsilon, self.weight_decay)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the learning rate, the decay of hidden matrices, and AdamW's coefficients."""
        adam = self._adamw.coefficients(learning_rate * self.adam_rate, t)
        return (learning_rate, 1.0 - learning_rate * self.weight_decay, *adam)

    def of_kind(self, kind: Kind, coefs: Coefs) -> tuple[Optimizer, Coefs]:
        """Return this rule for hidden matrices, else AdamW with its coefficients."""
        return (self, coefs) if kind == "matrix" else (self._adamw, coefs[2:])

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Move along the orthogonal matrix closest to the momentum."""
        if kind != "matrix":
            rule, own = self.of_kind(kind, coefs)
            return rule.update(p, g, state, own, kind=kind, xp=xp)
        dtype = g.dtype
        p, D, state = self.direct(p, g, state, coefs, xp=xp)
        return self.move(p, xp.astype(D, dtype, copy=False), coefs[0], xp=xp), state

    def move(self, p: Array, D: Array, rate: Array, *, xp: Namespace) -> Array:
        """Move a matrix along the orthogonal matrix that is nearest to D."""
        step = _orthogonal(D, self.polynomials, is_tight=self.is_tight, xp=xp)
        step = xp.astype(step, p.dtype, copy=False)
        step *= self.factor(*p.shape[-2:]) * rate
        p -= step
        return p

    def direct(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, xp: Namespace
    ) -> tuple[Array, Array, Any]:
        """Return the decayed matrix, the direction D, and the state; all are elementwise."""
        _, shrink, *_ = coefs
        velocity = state.mean
        if g.dtype != p.dtype:
            g = xp.astype(g, p.dtype)
        if self.nesterov and not is_zero(self.momentum):
            # To save passes over the arrays, divide D by the momentum factor, since only D's
            # direction matters.
            g *= (1.0 - self.momentum) / self.momentum
            velocity += g
            velocity *= self.momentum
            g += velocity
            D = g
        else:
            velocity *= self.momentum
            g *= 1.0 - self.momentum
            velocity += g
            D = velocity
        if not is_zero(self.weight_decay):
            p *= shrink
        return p, D, AdamState(velocity, state.variance)

    @property
    def is_tight(self) -> bool:
        """Whether the polynomials need a tight bound of the singular values."""
        return self.ns_polynomial == "minimax"

    @property
    def polynomials(self) -> tuple[Quintic, ...]:
        """The polynomial of each Newton-Schulz step."""
        return _minimax(self.ns_steps) if self.is_tight else (_JORDAN,) * self.ns_steps

    def factor(self, fan_in: int, fan_out: int) -> float:
        """Return the factor s of a matrix."""
        if self.scale == "original":
            return math.sqrt(max(1.0, fan_out / fan_in))
        return 0.2 * math.sqrt(max(fan_in, fan_out))


def _orthogonal(
    D: Array, polynomials: tuple[Quintic, ...], *, is_tight: bool, xp: Namespace
) -> Array:
    """Return matrices with singular values near 1, using only matrix products.

    ``D`` and the result are (..., rows, columns). Each step maps a singular value s to a s + b s^3
    + c s^5: X becomes P X with P = a I + b G + c G^2, where G = X X^T is the Gram matrix. These
    matrices commute, so the next G is P G P. Several steps therefore need only products of small
    matrices, and one large product at the end. Rounding errors in G grow from step to step, so G is
    recomputed after a few steps.
    """
    rows, columns = D.shape[-2:]
    # Use a namespace's own `matmul`, which `@` would bypass. The Gram matrix has as many rows as X,
    # so transpose X if it has more rows than columns.
    product = xp.matmul
    X = xp.matrix_transpose(D) if rows > columns else D
    width = min(rows, columns)
    eye = xp.eye(width, dtype=D.dtype, device=device(D))
    n = 1  # The number of steps per Gram matrix. If X is square, more than one step saves nothing.
    if 2 * max(rows, columns) > 3 * width:
        n = 2 if xp.finfo(D.dtype).eps > 1e-3 else 4
    for start in range(0, len(polynomials), n):
        gram = product(X, xp.matrix_transpose(X))
        square: Array | None = None
        factor: Array | None = None
        if start == 0:
            gram, square, factor = _normalised(gram, eye, is_tight=is_tight, xp=xp)
        P = total = eye
        for i, (a, b, c) in enumerate(polynomials[start : start + n]):
            if i > 0:
                gram = product(product(P, gram), P)
            P = product(gram, gram) if square is None else square
            square = None
            P *= c
            P += b * gram
            P += a * eye
            total = P if i == 0 else product(P, total)
        if factor is not None:
            total *= factor
        X = product(total, X)
    return xp.matrix_transpose(X) if rows > columns else X


def _normalised(
    gram: Array, eye: Array, *, is_tight: bool, xp: Namespace
) -> tuple[Array, Array, Array]:
    r"""Return Gram matrices divided by a bound on their eigenvalues, their squares, and a factor.

    The factor for X is :math:`1 / \sqrt{\text{bound}}`. The simplest bound is the trace, which is
    the squared Frobenius norm of X. A tighter bound is :math:`\lVert G^2 \rVert_F^{1/2}`, the
    fourth root of the sum of the eigenvalues' fourth powers. This bound is at most
    :math:`\text{rank}^{1/4}` times the largest eigenvalue, and needs no further matrix product.
    """
    wide = xp.result_type(gram.dtype, xp.float32)

    def total(terms: Array) -> Array:
        return xp.sum(terms, axis=(-2, -1), dtype=wide, keepdims=True)

    bound = xp.astype(total(gram * eye) + _TINY**2, gram.dtype, copy=False)
    gram /= bound
    square = xp.matmul(gram, gram)
    if is_tight:
        # The eigenvalues add up to 1, so their fourth powers cannot overflow.
        root = xp.astype(xp.sqrt(xp.sqrt(total(square * square))) + _TINY, gram.dtype, copy=False)
        gram /= root
        square /= root
        square /= root
        bound = bound * root
    return gram, square, 1.0 / xp.sqrt(bound)


# --- polynomials ---------------------------------------------------------------------------------


@cache
def _minimax(n_steps: int) -> tuple[Quintic, ...]:
    """Return polynomials that map the widest range of singular values to within `_SPREAD` of 1.

    Each polynomial is optimal for the output interval of the previous polynomial, so the
    composition is optimal; see Amsel et al. (2025).
    """
    # Find the lower end of the range by bisection of its logarithm.
    low, high = -4.0 * n_steps, -0.1
    for _ in range(50):
        middle = (low + high) / 2
        if _composed(math.exp(middle), n_steps)[1] < 1.0 - _SPREAD:
            low = middle
        else:
            high = middle
    return _composed(math.exp(high), n_steps)[0]


def _composed(low: float, n_steps: int) -> tuple[tuple[Quintic, ...], float]:
    """Return polynomials for singular values from ``low`` to 1, and the smallest final value."""
    high = 1.0
    polynomials = []
    for _ in range(n_steps):
        polynomials.append(_best_quintic(low, high * _ROOM))
        low = _value(polynomials[-1], low)
        high = 2.0 - low
    return tuple(polynomials), low


def _value(polynomial: Quintic, x: float) -> float:
    a, b, c = polynomial
    return x * (a + x * x * (b + x * x * c))


def _best_quintic(low: float, high: float) -> Quintic:
    """Return the odd quintic polynomial closest to 1 on an interval, by the Remez algorithm.

    The polynomial is as far below 1 at ``low`` and at its valley as it is above 1 at its peak and
    at ``high``. The condition that two values are equal is a linear equation for a, b and c. The
    cross product of two such equations gives the coefficients up to a factor.
    """
    peak, valley = (3.0 * low + high) / 4.0, (low + 3.0 * high) / 4.0
    for _ in range(30):
        (a0, a1, a2), (b0, b1, b2) = _equal_at(low, valley), _equal_at(peak, high)
        a, b, c = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
        scale = 2.0 / (_value((a, b, c), low) + _value((a, b, c), high))
        a, b, c = a * scale, b * scale, c * scale
        # Find the zeros of the derivative, a + 3 b x^2 + 5 c x^4.
        root = math.sqrt(9.0 * b * b - 20.0 * a * c)
        peak = math.sqrt((-3.0 * b - root) / (10.0 * c))
        valley = math.sqrt((-3.0 * b + root) / (10.0 * c))
    return a, b, c


def _equal_at(x: float, y: float) -> tuple[float, float, float]:
    """Return the coefficients of a, b and c in (f(y) - f(x)) / (y - x) = 0."""
    return 1.0, x * x + x * y + y * y, x**4 + x**3 * y + x * x * y * y + x * y**3 + y**4
