"""The interface of an update rule, and shared checks."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.settings import is_array

Coefs: TypeAlias = tuple[Array, ...]


class Stateless(NamedTuple):
    """The state of a rule without state."""


# Kinds of parameters: a hidden matrix or a stack of them; a vector (a bias or gain); the output
# layer's matrix ("head"); a category embedding; a numeric embedding; an input scale; the slope of
# an activation. Rules orthogonalize only hidden matrices, and decay everything except vectors.
Kind: TypeAlias = Literal["matrix", "vector", "head", "embedding", "numeric", "scale", "slope"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@runtime_checkable
class Optimizer(Protocol):
    """An update rule: coefficients of a step, computed on the host, and an update of one array."""

    def __hash__(self) -> int: ...

    @property
    def state_type(self) -> type[Any]:
        """The NamedTuple of the rule's state: arrays in the shape of a parameter."""

    def coefficients(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the numbers that `update` needs for step ``t``, counted from 1."""

    def update(
        self, p: Array, g: Array, state: Any, coefs: Coefs, *, kind: Kind = ..., xp: Namespace
    ) -> tuple[Array, Any]:
        """Return the new parameter and state; all arguments but ``coefs`` are donated."""


def low_precision(optimizer: Optimizer) -> tuple[Kind, ...]:
    """Return the kinds whose gradients a rule accepts in a lower precision than the parameters.

    A rule that accepts such gradients has an attribute with the name of this function.
    """
    kinds: tuple[Kind, ...] = getattr(optimizer, "low_precision", ())
    return kinds


def rule_of(optimizer: Optimizer, kind: Kind, coefs: Coefs) -> tuple[Optimizer, Coefs]:
    """Return the rule for a kind of parameter, and coefficients that begin with this rule's.

    A rule that delegates a kind to another rule has a method ``of_kind(kind, coefs)``. The first
    fields of its state are the other rule's state.
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
