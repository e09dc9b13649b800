"""Defaults of a backend that need nothing but the Array API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends.communicator import Communicator

__all__ = ["SumOnHost", "to_numpy", "together"]


@dataclass(frozen=True)
class SumOnHost:
    """The kernel ``sum_over_ranks`` through the host's memory."""

    backend: Any
    communicator: Communicator

    def __call__(self, tree: Tree) -> Tree:
        """Sum arrays over all ranks."""
        arrays = [np.array(self.backend.get(leaf), order="C") for leaf in leaves(tree)]
        self.communicator.sum(arrays)
        return rebuild(tree, map(self.backend.put, arrays))


def together(loop: Callable[..., Any] | None, body: Callable[..., Any]) -> Callable[..., Any]:
    """Return the loop that takes all models through a step together.

    Parameters
    ----------
    loop : callable or None
        What `Backend.loop` makes of the body.
    body : callable

    Returns
    -------
    callable
        As `Backend.loop_of_models` returns it.
    """

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
