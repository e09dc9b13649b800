"""Defaults of a backend that need nothing but the Array API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def together(loop: Callable[..., Any] | None, body: Callable[..., Any]) -> Callable[..., Any]:
    """Return `Backend.loop_of_models` that takes all models through a step together."""

    def run(start: int, stops: np.ndarray, state: Any, *arguments: Any) -> Any:
        stop = int(stops.max())
        if loop is not None:
            return loop(start, stop, state, *arguments)
        for i in range(start, stop):
            state = body(i, state, *arguments)
        return state

    return run


def to_numpy(array: Any) -> np.ndarray:
    """Copy an array of any library, or what `numpy.asarray` takes, to the host."""
    from mlp_xp.backends import get_backend

    return get_backend(array).get(array) if hasattr(array, "__dlpack__") else np.asarray(array)
