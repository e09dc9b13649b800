"""A rule whose settings differ from model to model of a stack, as numbers of each step."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.optimizers._base import Kind, Optimizer, Scalars

__all__ = ["Varied"]

# Any number that is valid for every such setting, and not 0, which may be another program.
_ANY = 0.5


@dataclass(frozen=True)
class Varied:
    """A rule of a stack of models, each with its own settings, which follow the coefficients.

    Rules name such settings in ``per_model``, where `update` uses them only in arithmetic, and in
    ``in_coefficients``, where the coefficients have them already. What is 0 stays as it is.

    Parameters
    ----------
    rule : Optimizer
        With any number for these settings.
    names : tuple of str
        Those that follow the coefficients.

    Examples
    --------
    >>> from mlp_xp.optimizers import SGD
    >>> from mlp_xp.optimizers._varied import Varied
    >>> varied = Varied.from_rule(SGD(momentum=0.8))
    >>> varied == Varied.from_rule(SGD(momentum=0.9)) != Varied.from_rule(SGD(momentum=0.0))
    True
    >>> varied.settings(SGD(momentum=0.8))
    (0.8,)
    """

    rule: Optimizer
    names: tuple[str, ...]

    @classmethod
    def from_rule(cls, rule: Optimizer) -> Varied:
        """Return the rule for stacks of models with this rule or one that differs in settings."""
        # Not inherited: a subclass may use its settings in other ways.
        own = vars(type(rule))
        names = tuple(name for name in own.get("per_model", ()) if getattr(rule, name))
        carried = (name for name in own.get("in_coefficients", ()) if getattr(rule, name))
        every = [*names, *carried]
        shared: Any = rule
        return cls(replace(shared, **dict.fromkeys(every, _ANY)) if every else rule, names)

    @property
    def state_type(self) -> type[Any]:
        """That of the rule."""
        return self.rule.state_type

    def settings(self, rule: Optimizer) -> tuple[float, ...]:
        """Return the settings of one model's rule that follow the coefficients."""
        return tuple(getattr(rule, name) for name in self.names)

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return what the rule itself would need."""
        return (*self.rule.coefficients(learning_rate, t), *self.settings(self.rule))

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
        n_own = len(coefs) - len(self.names)
        rule = copy.copy(self.rule)
        for name, value in zip(self.names, coefs[n_own:], strict=True):
            object.__setattr__(rule, name, value)
        return rule.update(p, g, state, coefs[:n_own], kind=kind, xp=xp)
