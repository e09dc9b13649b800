"""Settings that may differ from model to model of a stack: numbers of frozen objects."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

__all__ = ["is_zero", "names_of", "with_any", "with_values"]

T = TypeVar("T")

# Any number that is valid for every such setting, and not 0, which may be another program.
_ANY = 0.5


def is_zero(setting: Any) -> bool:
    """Whether a setting is the number 0; the array of a stack never is.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp._utils.per_model import is_zero
    >>> is_zero(0.0), is_zero(0.1), is_zero(np.zeros((2, 1)))
    (True, False, False)
    """
    return getattr(setting, "ndim", 0) == 0 and not setting


def names_of(settings: Any, attribute: str = "per_model") -> tuple[str, ...]:
    """Return the names that a class lists in this attribute, without settings that are 0.

    What it inherits does not count: a subclass may use its settings in other ways.

    Examples
    --------
    >>> from mlp_xp._utils.per_model import names_of
    >>> from mlp_xp.optimizers import Adam
    >>> names_of(Adam(beta_1=0.0))
    ('beta_2', 'epsilon')
    """
    listed = vars(type(settings)).get(attribute, ())
    return tuple(name for name in listed if getattr(settings, name))


def with_any(settings: T, names: Iterable[str]) -> T:
    """Return a frozen dataclass with any number for some settings: equal for all such objects."""
    changed: Any = settings
    return replace(changed, **dict.fromkeys(names, _ANY)) if names else settings


def with_values(settings: T, names: Iterable[str], values: Iterable[Any]) -> T:
    """Return a copy with values, arrays too, for those of some settings that it has."""
    changed = copy.copy(settings)
    for name, value in zip(names, values, strict=True):
        if hasattr(changed, name):
            object.__setattr__(changed, name, value)
    return changed
