"""The arguments of a program: its dependencies, and how later calls find them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

# Arguments up to this many bytes are copied into new memory; larger ones are looked up.
_SMALL = 1 << 16


def is_small(argument: np.ndarray) -> bool:
    """Whether an array is copied."""
    return argument.nbytes <= _SMALL


def form(argument: Any) -> tuple[Any, ...]:
    """Return the key of an argument: the layout of an array, or the identity of an object."""
    if not isinstance(argument, np.ndarray):
        return (id(argument),)
    layout = type(argument), argument.shape, argument.dtype
    return layout if is_small(argument) else (*layout, argument.strides, argument.flags.aligned)


def reference(argument: Any) -> Callable[[], Any]:
    """Return a function that returns an argument, or None for an array that is gone."""
    return weakref.ref(argument) if isinstance(argument, np.ndarray) else lambda: argument
