"""Hyperparameters in frozen settings, such as Adam's decay rates.

When several models are trained at once, as a stack, their compiled step receives one number per
model for each field that a class declares as a `hyperparameter`. Zeros are excluded, since a
setting of 0 may need a different compiled step. Classes outside this package are excluded, since
they may use inherited fields differently.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import field, fields, is_dataclass, replace
from functools import cache
from typing import Any

_DECLARED = "is_hyperparameter"


def hyperparameter(default: float) -> Any:
    """Declare a field of a frozen dataclass that is an array in the step of a stack of models."""
    return field(default=default, metadata={_DECLARED: True})


def is_array(setting: Any) -> bool:
    """Whether a setting is an array, with one element per model of a stack."""
    return getattr(setting, "ndim", 0) > 0


def is_zero(setting: Any) -> bool:
    """Whether a setting is the number 0; False for arrays."""
    return not is_array(setting) and not setting


@cache
def _fields(kind: Hashable) -> tuple[tuple[str, bool], ...]:
    """Return a class's fields, and whether each is a hyperparameter; () if it declares none."""
    if not (is_dataclass(kind) and kind.__module__.startswith("mlp_xp.")):
        return ()
    found = tuple((field.name, _DECLARED in field.metadata) for field in fields(kind))
    return found if any(is_number for _, is_number in found) else ()


def numbers(settings: Any) -> list[Any]:
    """Return the hyperparameters of settings, including nested settings, in field order.

    Examples
    --------
    >>> from mlp_xp._utils.settings import numbers
    >>> from mlp_xp.optimizers import Adam
    >>> numbers((Adam(beta_1=0.0), Adam()))
    [0.999, 1e-08, 0.9, 0.999, 1e-08]
    """
    if isinstance(settings, tuple):
        return [number for part in settings for number in numbers(part)]
    found: list[Any] = []
    for name, is_number in _fields(settings.__class__):
        value = getattr(settings, name)
        if not is_number:
            found += numbers(value)
        elif not is_zero(value):
            found.append(value)
    return found


def with_numbers(settings: Any, values: Iterator[Any]) -> Any:
    """Return a copy of the settings with new numbers or arrays, in the order of `numbers`."""
    if isinstance(settings, tuple):
        return tuple(with_numbers(part, values) for part in settings)
    changes = {}
    for name, is_number in _fields(settings.__class__):
        value = getattr(settings, name)
        if not is_number:
            changes[name] = with_numbers(value, values)
        elif not is_zero(value):
            changes[name] = next(values)
    return replace(settings, **changes) if changes else settings


def structure(settings: Any) -> Hashable:
    """Return a compiled step's cache key: the settings, with hyperparameters replaced by `is_zero`.

    Examples
    --------
    >>> from mlp_xp._utils.settings import structure
    >>> from mlp_xp.optimizers import SGD
    >>> found = [structure(SGD(momentum=number)) for number in (0.8, 0.9, 0.0)]
    >>> found[0] == found[1], found[1] == found[2]
    (True, False)
    """
    if isinstance(settings, tuple):
        return tuple(map(structure, settings))
    own = _fields(settings.__class__)
    values = [(is_number, getattr(settings, name)) for name, is_number in own]
    parts = (is_zero(value) if is_number else structure(value) for is_number, value in values)
    return (type(settings), *parts) if own else settings
