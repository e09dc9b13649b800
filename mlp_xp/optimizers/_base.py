"""The interface for update rules, and shared checks."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.settings import is_array

Coefs: TypeAlias = tuple[Array, ...]


class Stateless(NamedTuple):
    """The empty state of a rule that needs no state."""


# Kinds of parameters: a hidden matrix or a stack of them; a vector (a bias or gain); the output
# layer's matrix ("head"); a category embedding; a numeric embedding; an input scale; the slope of
# an activation. Rules orthogonalize only hidden matrices. Weight decay applies to everything except
# vectors.
Kind: TypeAlias = Literal["matrix", "vector", "head", "embedding", "numeric", "scale", "slope"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@runtime_checkable
class Optimizer(Protocol):
    """An update rule: a step's coefficients, computed on the host, and the update of one array.

    If a rule accepts low-precision gradients, it has an attribute ``low_precision``, the kinds of
    parameters for which it does.
    """

    def __hash__(self) -> int: ...

    @property
    def state_type(self) -> type[Any]:
        """The rule's state type: a NamedTuple of arrays, each in the shape of the parameter."""

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the scalars that `update` needs for step ``t``, counted from 1."""

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = ..., xp: Namespace
    ) -> tuple[Array, Any]:
        """Return the new parameter and state; all arguments but ``coefs`` are donated."""


def rule_of(optimizer: Optimizer, kind: Kind, coefs: Coefs) -> tuple[Optimizer, Coefs]:
    """Return the rule for a kind of parameter, and coefficients that begin with the rule's own.

    A rule that delegates a kind to another rule has a method ``of_kind(kind, coefs)``. The first
    fields of its state are the state of the other rule.
    """
    while hasattr(optimizer, "of_kind"):
        rule, coefs = optimizer.of_kind(kind, coefs)
        if rule is optimizer:
            break
        optimizer = rule
    return optimizer, coefs


def check_decay(name: str, value: float) -> None:
    """Raise ValueError unless the value is at least 0 and below 1."""
    if not is_array(value) and not 0.0 <= value < 1.0:
        raise ValueError(f"`{name}` must be at least 0 and below 1, got {value!r}.")


def check_at_least_0(name: str, value: float) -> None:
    """Raise ValueError for a negative number or NaN."""
    if not is_array(value) and not value >= 0.0:
        raise ValueError(f"`{name}` must be at least 0, got {value!r}.")
