"""Settings as values: equal ones have the same program."""

from __future__ import annotations

from dataclasses import fields, replace
from operator import is_
from typing import Any

import numpy as np

__all__ = ["plain_numbers"]

_PLAIN = {float, int, bool, str, type(None)}  # Most settings, of each fit.


def plain_numbers(settings: Any) -> Any:
    """Return settings with Python's numbers instead of NumPy's.

    These are equal to each other, with the same hash, but compute in another precision.

    Parameters
    ----------
    settings : object
        A number, or a tuple or dataclass of such; others are returned as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp._utils.settings import plain_numbers
    >>> from mlp_xp.optimizers import SGD
    >>> plain_numbers((SGD(momentum=np.float32(0.5)), "relu"))
    (SGD(momentum=0.5, nesterov=True), 'relu')
    """
    kind = type(settings)
    if kind in _PLAIN:
        return settings
    if isinstance(settings, np.generic):
        return settings.item()
    if kind is tuple:
        plain = tuple(map(plain_numbers, settings))
        return settings if all(map(is_, plain, settings)) else plain
    if not hasattr(kind, "__dataclass_fields__"):
        return settings
    changed = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        plain = plain_numbers(value)
        if plain is not value:
            changed[field.name] = plain
    return replace(settings, **changed) if changed else settings
