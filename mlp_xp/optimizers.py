"""Update rules: frozen settings, pure functions of one array each, in order of complexity.

A rule has two halves. `coefficients` runs on the host in plain Python floats, once for each step:
everything that depends only on the step's number (the scheduled rate, Adam's bias corrections) is
there, at full precision. `update` runs on the device and does only elementwise work with these
numbers, which arrive as 0-d arrays, so that a compiled step never sees a host constant change.

The old parameters, gradients and slots are donated: `update` may write to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from mlp_xp._typing import Array, Namespace, Tree
from mlp_xp.tree import leaves, map_leaves, rebuild

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "Optimizer", "init_slots", "update_tree"]

Slots = tuple[Array, ...]


class Optimizer(Protocol):
    """An update rule: host-side coefficients of a step, device-side update of one array."""

    def __hash__(self) -> int: ...

    @property
    def n_slots(self) -> int:
        """How many arrays of the parameter's shape the rule keeps."""
        ...

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Give the numbers of step ``t``, from 1, that `update` needs."""
        ...

    def update(
        self, p: Array, g: Array, slots: Slots, coefs: Slots, *, xp: Namespace
    ) -> tuple[Array, Slots]:
        """Give the new parameter and slots; all but ``coefs`` are donated."""
        ...


def _check_decay(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} is {value!r}, and must be at least 0 and below 1.")


def _check_at_least_0(name: str, value: float) -> None:
    if not value >= 0.0:
        raise ValueError(f"{name} is {value!r}, and must be at least 0.")


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
        _check_decay("momentum", self.momentum)

    @property
    def n_slots(self) -> int:
        """One velocity, or nothing without momentum."""
        return 1 if self.momentum else 0

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Give the learning rate."""
        return (learning_rate,)

    def update(
        self, p: Array, g: Array, slots: Slots, coefs: Slots, *, xp: Namespace
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


@dataclass(frozen=True)
class Adam:
    r"""Adaptive moment estimation, in the form that folds the bias corrections into the rate.

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
    Kingma, Ba, "Adam" (2015), arXiv:1412.6980, end of section 2. Scikit-learn uses this form;
    PyTorch adds epsilon after the correction of v instead, which differs by less than epsilon.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import Adam
    >>> rule = Adam(epsilon=0.0)
    >>> coefs = [xp.asarray(c) for c in rule.coefficients(learning_rate=0.1, t=1)]
    >>> slots = (xp.zeros(1), xp.zeros(1))
    >>> p, _ = rule.update(xp.asarray([1.0]), xp.asarray([2.0]), slots, coefs, xp=xp)
    >>> round(float(p[0]), 6)
    0.9
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_slots: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_decay("beta_1", self.beta_1)
        _check_decay("beta_2", self.beta_2)
        _check_at_least_0("epsilon", self.epsilon)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Give the rate with both bias corrections."""
        return (learning_rate * math.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t),)

    def update(
        self, p: Array, g: Array, slots: Slots, coefs: Slots, *, xp: Namespace
    ) -> tuple[Array, Slots]:
        """Move along the normalised first moment; see the class."""
        m, v = slots
        m *= self.beta_1
        m += (1.0 - self.beta_1) * g
        g *= g
        g *= 1.0 - self.beta_2
        v *= self.beta_2
        v += g
        size = xp.sqrt(v)
        size += self.epsilon
        direction = m / size
        direction *= coefs[0]
        p -= direction
        return p, (m, v)


@dataclass(frozen=True)
class AdamW(Adam):
    r"""Adam with decoupled weight decay: first :math:`p \leftarrow (1 - \eta \lambda)\, p`.

    Only matrices decay; biases do not.

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

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_0("weight_decay", self.weight_decay)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Give Adam's rate, and what the matrices shrink by."""
        return (*super().coefficients(learning_rate, t), 1.0 - learning_rate * self.weight_decay)

    def update(
        self, p: Array, g: Array, slots: Slots, coefs: Slots, *, xp: Namespace
    ) -> tuple[Array, Slots]:
        """Shrink a matrix, then move as Adam does."""
        if p.ndim > 1:
            p *= coefs[1]
        return super().update(p, g, slots, coefs, xp=xp)


OPTIMIZERS: dict[str, type[SGD | Adam]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


class Updated(NamedTuple):
    """What an update of the whole tree gives."""

    params: Tree
    slots: tuple[Tree, ...]
    penalty: Array | float


def init_slots(optimizer: Optimizer, params: Tree, *, xp: Namespace) -> tuple[Tree, ...]:
    """Give the rule's slots before the first step: trees of zeros like the parameters."""
    return tuple(map_leaves(xp.zeros_like, params) for _ in range(optimizer.n_slots))


def update_tree(
    optimizer: Optimizer,
    params: Tree,
    grads: Tree,
    slots: tuple[Tree, ...],
    coefs: Slots,
    l2: Array | None = None,
    *,
    xp: Namespace,
) -> Updated:
    r"""Update all parameters, with an L2 penalty :math:`\tfrac12 \lambda \sum W^2` on matrices.

    Parameters
    ----------
    optimizer : Optimizer
    params, grads : trees of arrays of one structure; donated
    slots : tuple of such trees, `optimizer.n_slots` of them; donated
    coefs : tuple of 0-d arrays
        What `optimizer.coefficients` gave for this step.
    l2 : 0-d array, optional
        The factor of the penalty. None leaves it out.
    xp : namespace

    Returns
    -------
    Updated
        The new parameters and slots, and the penalty of the old parameters.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import SGD, update_tree
    >>> params, grads = (xp.asarray([[2.0]]), xp.asarray([2.0])), (xp.zeros((1, 1)), xp.zeros(1))
    >>> rule, rate, l2 = SGD(momentum=0.0), xp.asarray(0.1), xp.asarray(1.0)
    >>> update_tree(rule, params, grads, (), (rate,), l2, xp=xp)
    Updated(params=(array([[1.8]]), array([2.])), slots=(), penalty=np.float64(2.0))
    """
    penalty: Array | float = 0.0
    new_params = []
    new_slots = []
    for p, g, *old in zip(leaves(params), leaves(grads), *map(leaves, slots), strict=True):
        if l2 is not None and p.ndim > 1:
            flat = xp.reshape(p, (-1,))
            penalty = penalty + 0.5 * l2 * xp.vecdot(flat, flat)
            g += l2 * p
        new, kept = optimizer.update(p, g, tuple(old), coefs, xp=xp)
        new_params.append(new)
        new_slots.append(kept)
    by_slot = zip(*new_slots, strict=True)
    return Updated(
        rebuild(params, new_params),
        tuple(rebuild(params, values) for values in by_slot),
        penalty,
    )
