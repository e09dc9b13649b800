"""Different rules for different kinds of parameters."""

from __future__ import annotations

import itertools
from dataclasses import fields, is_dataclass, replace
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter, with_numbers
from mlp_xp.optimizers._adam import AdamW
from mlp_xp.optimizers._base import KINDS, Coefs, Kind, Optimizer, check_at_least_0
from mlp_xp.optimizers._muon import Muon

_MUON, _ADAMW = Muon(), AdamW()


@dataclass(frozen=True)
class ByKind:
    """Separate rules for hidden matrices, vectors, and the output layer's matrix.

    Each rule has its own settings, and its own factor for the learning rate. A vector is a bias or
    a gain; `mlp_xp.optimizers.kinds` returns the kind of each parameter. Rules receive the kind: as
    the rule for the output layer, `Muon` uses AdamW. The remaining kinds are category embeddings,
    numeric embeddings, learned input scales, and slopes of activations. By default, the rule for
    vectors updates the remaining kinds; its weight decay applies to them, but not to vectors.

    Parameters
    ----------
    matrix : rule, default=Muon()
    vector : rule, default=AdamW()
    head : rule, default=AdamW()
    embedding, numeric, scale, slope : rule, optional
        The default is the rule for vectors.
    matrix_rate, vector_rate, head_rate, embedding_rate, numeric_rate, scale_rate, slope_rate : \
float of at least 0, default=1
        The factor for the learning rate. With 0, the parameters do not change if the rule's update
        is proportional to the learning rate.

    Notes
    -----
    Every parameter has the state of the rule with the most fields. Fields that the parameter's own
    rule does not need remain zero.

    Examples
    --------
    >>> from mlp_xp.optimizers import SGD, ByKind, Lion, Muon
    >>> rule = ByKind(Muon(weight_decay=0.02), SGD(), Lion(), vector_rate=10.0, head_rate=0.25)
    >>> rule.state_type.__name__
    'AdamState'
    >>> rule.coefficients(learning_rate=1.0, t=1)[4:]
    (10.0, 0.25, 1.0, 1.0, 1.0, 1.0, 1.0)

    RealMLP's learning rates (arXiv:2407.04491), with weight decay proportional to the learning
    rate:

    >>> from mlp_xp.optimizers import Adam, AdamW
    >>> full, little, much = (AdamW(beta_2=0.95, weight_decay=0.02 * f) for f in (1.0, 0.1, 6.0))
    >>> rule = ByKind(
    ...     full, Adam(beta_2=0.95), full, vector_rate=0.1, embedding=full, numeric=little,
    ...     numeric_rate=0.1, scale=much, scale_rate=6.0, slope=little, slope_rate=0.1,
    ... )
    """

    matrix: Optimizer = _MUON
    vector: Optimizer = _ADAMW
    head: Optimizer = _ADAMW
    matrix_rate: float = hyperparameter(1.0)
    vector_rate: float = hyperparameter(1.0)
    head_rate: float = hyperparameter(1.0)
    embedding: Optimizer | None = None
    numeric: Optimizer | None = None
    scale: Optimizer | None = None
    slope: Optimizer | None = None
    embedding_rate: float = hyperparameter(1.0)
    numeric_rate: float = hyperparameter(1.0)
    scale_rate: float = hyperparameter(1.0)
    slope_rate: float = hyperparameter(1.0)

    def __post_init__(self) -> None:
        for kind in KINDS:
            rule = self._rule(kind)
            if isinstance(rule, type) or not hasattr(rule, "coefficients"):
                raise TypeError(
                    f"`{kind}` must be a rule of mlp_xp.optimizers, e.g. AdamW(), got {rule!r}."
                )
            check_at_least_0(f"{kind}_rate", self._rate(kind))

    def _rule(self, kind: Kind) -> Any:
        rule = getattr(self, kind)
        return self.vector if rule is None else rule

    def _rate(self, kind: Kind) -> Any:
        return getattr(self, f"{kind}_rate")

    @property
    def state_type(self) -> type[Any]:
        """The state of the rule with the most fields."""
        return max((self._rule(kind).state_type for kind in KINDS), key=lambda t: len(t._fields))

    @property
    def low_precision(self) -> tuple[Kind, ...]:
        """The kinds whose rule accepts low-precision gradients."""
        accepted = {kind: getattr(self._rule(kind), "low_precision", ()) for kind in KINDS}
        return tuple(kind for kind in KINDS if kind in accepted[kind])

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the concatenated coefficients of the rules for all kinds."""
        return tuple(
            number
            for kind in KINDS
            for number in self._rule(kind).coefficients(learning_rate * self._rate(kind), t)
        )

    def of_kind(self, kind: Kind, coefs: Coefs) -> tuple[Optimizer, Coefs]:
        """Return the rule for a kind, and coefficients that begin with the rule's own."""
        start = 0
        for earlier in KINDS[: KINDS.index(kind)]:
            # Replace the rule's settings, which may be arrays, by placeholders to count its
            # coefficients.
            rule = with_numbers(self._rule(earlier), itertools.repeat(0.5))
            start += len(rule.coefficients(1.0, 1))
        return self._rule(kind), coefs[start:]

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = "matrix", xp: Namespace
    ) -> tuple[Array, Any]:
        """Apply the rule for this kind."""
        rule, own = self.of_kind(kind, coefs)
        n_fields = len(rule.state_type._fields)
        mine = rule.state_type(*state[:n_fields])
        p, mine = rule.update(p, g, mine, own, kind=kind, xp=xp)
        return p, type(state)(*mine, *state[n_fields:])


def family(optimizer: Optimizer) -> str:
    """Return the names of an optimizer's rules, on which the meaning of its state depends."""
    name = type(optimizer).__name__
    if not isinstance(optimizer, ByKind):
        return name
    given = (getattr(optimizer, kind) for kind in KINDS)
    return f"{name}({', '.join(family(rule) for rule in given if rule is not None)})"


def with_decay(rule: Any, factor: float) -> Any:
    """Return a rule with all weight decay, also in nested rules, multiplied by a factor."""
    changed: dict[str, Any] = {}
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.name == "weight_decay":
            changed[field.name] = factor * value
        elif is_dataclass(value):
            changed[field.name] = with_decay(value, factor)
    return replace(rule, **changed)
