"""A rule whose settings differ from model to model of a stack, as numbers of each step."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.per_model import names_of, with_any, with_values
from mlp_xp.optimizers._base import KINDS, Kind, Optimizer, Scalars, low_precision, rule_of
from mlp_xp.optimizers._by_kind import ByKind

__all__ = ["Varied", "varied", "with_decay"]


@dataclass(frozen=True)
class Varied:
    """A rule of a stack of models, each with its own settings, which follow the coefficients.

    Rules name such settings in ``per_model``, where `update` uses them only in arithmetic, and in
    ``in_coefficients``, where the coefficients have them already. What is 0 stays as it is.

    Parameters
    ----------
    rule : Optimizer
        Of one model, or with any number for these settings.
    names : tuple of str
        Those that follow the coefficients.
    """

    rule: Optimizer
    names: tuple[str, ...]

    @property
    def state_type(self) -> type[Any]:
        """That of the rule."""
        return self.rule.state_type

    @property
    def low_precision(self) -> tuple[Kind, ...]:
        """That of the rule."""
        return low_precision(self.rule)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return what the rule needs, and its settings."""
        return (*self.rule.coefficients(learning_rate, t), *self._settings)

    @cached_property
    def _settings(self) -> tuple[float, ...]:
        """The settings, which are asked for at each step."""
        return tuple(getattr(self.rule, name) for name in self.names)

    def update(
        self,
        p: Array,
        g: Array,
        state: Any,
        coefs: Scalars,
        *,
        kind: Kind = "matrix",
        xp: Namespace,
    ) -> tuple[Array, Any]:
        """Update each model by the rule with its own settings."""
        n_own = len(self.rule.coefficients(1.0, 1))
        # Arrays would not pass the checks of a rule that is made of them.
        rule, own = rule_of(self.rule, kind, coefs[:n_own])
        own_rule = with_values(rule, self.names, coefs[n_own : n_own + len(self.names)])
        return own_rule.update(p, g, state, own, kind=kind, xp=xp)


def varied(rule: Optimizer, *, is_program: bool = False) -> Optimizer:
    """Return the rule for stacks of models with this rule, or one that differs in settings.

    Parameters
    ----------
    rule : Optimizer
        Of one model.
    is_program : bool, default=False
        Whether to return that of the program, which is the same for all of them.

    Examples
    --------
    >>> from mlp_xp.optimizers import SGD, varied
    >>> varied(SGD(momentum=0.8)).coefficients(learning_rate=0.1, t=1)
    (0.1, 0.8)
    >>> rules = [varied(SGD(momentum=number), is_program=True) for number in (0.8, 0.9, 0.0)]
    >>> rules[0] == rules[1], rules[1] == rules[2]
    (True, False)
    """
    names = names_of(rule)
    carried = names_of(rule, "in_coefficients")
    shared = with_any(rule, (*names, *carried)) if is_program else rule
    if not isinstance(shared, ByKind):
        return Varied(shared, names)
    given = {kind: getattr(rule, kind) for kind in KINDS}
    rules = {k: varied(own, is_program=is_program) for k, own in given.items() if own is not None}
    return replace(shared, **rules)  # type: ignore[arg-type]


def with_decay(rule: Any, factor: float) -> Any:
    """Return a rule with its weight decay, and that of the rules it is made of, times a factor.

    Examples
    --------
    >>> from mlp_xp.optimizers import AdamW, with_decay
    >>> with_decay(AdamW(weight_decay=0.2), 0.5)
    AdamW(beta_1=0.9, beta_2=0.999, epsilon=1e-08, weight_decay=0.1)
    """
    changed: dict[str, Any] = {}
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.name == "weight_decay":
            changed[field.name] = factor * value
        elif is_dataclass(value):
            changed[field.name] = with_decay(value, factor)
    return replace(rule, **changed)
