"""The arguments of a compiled step's last call, and a check that new arguments can replace them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Arguments of at most this size in bytes are copied; larger arguments are used in place.
_SMALL = 1 << 16


class Arguments:
    """The layouts of the arguments, and references to the last call's arguments.

    Attributes
    ----------
    places : list of array or None
        The memory to which each small array is copied; None for other arguments.
    """

    def __init__(self, arguments: Sequence[Any]) -> None:
        self._forms = list(map(_form, arguments))
        self._last = list(map(_reference, arguments))
        self.places = [np.array(x, order="C") if _is_small(x) else None for x in arguments]

    def replace(self, arguments: Sequence[Any]) -> bool | None:
        """Set the arguments; return whether large arrays have moved, or None if layouts differ."""
        if len(arguments) != len(self._forms):
            return None
        has_moved = False
        given = zip(arguments, self._last, self._forms, self.places, strict=True)
        for argument, last, known, place in given:
            # Small arrays are always copied, since their contents may have changed. If `last()`
            # returns None, the array was freed.
            if place is None and argument is not None and last() is argument:
                continue
            if _form(argument) != known:
                return None
            if place is not None:
                place[...] = argument
            elif argument is not None:
                has_moved = True
        if has_moved:
            self._last = list(map(_reference, arguments))
        return has_moved


def _is_small(argument: Any) -> bool:
    return isinstance(argument, np.ndarray) and argument.nbytes <= _SMALL


def _form(argument: Any) -> tuple[Any, ...]:
    """Return an argument's key: the layout of an array, or the id of any other object."""
    if not isinstance(argument, np.ndarray):
        return (id(argument),)
    layout = type(argument), argument.shape, argument.dtype
    return layout if _is_small(argument) else (*layout, argument.strides, argument.flags.aligned)


def _reference(argument: Any) -> Callable[[], Any]:
    """Return a function that returns the argument, or None once the array has been freed."""
    return weakref.ref(argument) if isinstance(argument, np.ndarray) else lambda: argument
