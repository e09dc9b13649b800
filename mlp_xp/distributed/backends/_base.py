"""A backend for several ranks with any library, which sums in host memory."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, cast

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends import Backend
from mlp_xp.distributed.communicator import Communicator
from mlp_xp.distributed.training.gradient import RankGradient

# Libraries with a file in this folder; all others use `RankBackend`.
_FILES = {"cupy", "jax", "numpy", "torch"}


@dataclass(frozen=True)
class SumOnHost:
    """A sum of arrays over ranks, computed in host memory."""

    backend: Backend
    communicator: Communicator

    def __call__(self, tree: Tree) -> Tree:
        arrays = [np.array(self.backend.get(leaf), order="C") for leaf in leaves(tree)]
        self.communicator.sum(arrays)
        return rebuild(tree, map(self.backend.put, arrays))


class RankBackend(Backend):
    """The base class for backends on several ranks.

    Backends that compare equal have equal ``gradient`` attributes.
    """

    def __init__(self, backend: Backend, communicator: Communicator) -> None:
        vars(self).update(vars(backend))
        self.communicator = communicator
        self.gradient = RankGradient(self._summing(backend), communicator.n_shards)
        if communicator.n_shards:  # Sparse rows cannot be split into shards.
            self.has_sparse_products = False

    @property
    def _key(self) -> tuple[Any, ...]:
        return *super()._key, self.gradient

    def _summing(self, backend: Backend) -> Callable[[Tree], Tree]:
        """Return the function that sums over ranks; equal backends return equal functions."""
        return SumOnHost(backend, self.communicator)


def share_steps(backend: Backend, communicator: Communicator) -> RankBackend:
    """Return a backend that runs steps on several ranks."""
    kind: Callable[..., RankBackend] = _kind(cast(Hashable, type(backend)))
    return kind(backend, communicator)


@cache
def _kind(kind: Any) -> Any:
    """Return the subclass of a backend class for several ranks."""
    if kind.name in _FILES:
        return importlib.import_module(f"mlp_xp.distributed.backends._{kind.name}").KIND
    return type(f"{kind.__name__}OfRanks", (RankBackend, kind), {})
