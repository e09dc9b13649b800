"""Keys that identify a program's arguments, and references to the arguments of the last call."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

# Arguments of at most this size in bytes are copied; larger arguments are used in place.
_SMALL = 1 << 16


def is_small(argument: np.ndarray) -> bool:
    """Whether an array is small enough to be copied."""
    return argument.nbytes <= _SMALL


def form(argument: Any) -> tuple[Any, ...]:
    """Return an argument's key: the layout of an array, or the id of any other object."""
    if not isinstance(argument, np.ndarray):
        return (id(argument),)
    layout = type(argument), argument.shape, argument.dtype
    return layout if is_small(argument) else (*layout, argument.strides, argument.flags.aligned)


def reference(argument: Any) -> Callable[[], Any]:
    """Return a function that returns the argument, or None once the array has been freed."""
    return weakref.ref(argument) if isinstance(argument, np.ndarray) else lambda: argument
