"""Fitted attributes that users may change, and a cache for copies of the weights on devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

from mlp_xp._utils.signals.forks import fork_safe_lock
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend


def are_same(arrays: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences consist of the same objects."""
    return len(arrays) == len(others) and all(map(is_, arrays, others))


def put_leaves(backend: Backend, tree: Any, dtype: str) -> Any:
    """Copy a tree of arrays to a backend; a leaf or tree that is None stays None."""
    return map_leaves(lambda leaf: None if leaf is None else backend.put(leaf, dtype), tree)


class DeviceCopies:
    """A cache of array copies on devices, filled on first use and not pickled.

    If ``is_shared`` is true, the user has a reference to one of the arrays and may write to it at
    any time. Nothing is then cached, since writes cannot be detected.
    """

    def __init__(self) -> None:
        self.is_shared = False
        self._lock = fork_safe_lock()
        # One attribute, so that a forked process never inherits copies of other arrays.
        self._known: tuple[tuple[Any, ...], dict[tuple[Backend, str], Any]] = (), {}

    def __reduce__(self) -> tuple[type[DeviceCopies], tuple[()]]:
        return DeviceCopies, ()

    def on(self, backend: Backend, dtype: str, tree: Any) -> Any:
        """Copy a tree of arrays (or None) to a backend.

        The copies are cached until an array of the tree is replaced. Shared arrays are returned
        unchanged.
        """
        originals, key = tuple(leaves(tree)), (backend, dtype)
        with self._lock:
            if self.is_shared or not are_same(self._known[0], originals):
                self._known = originals, {}
            if self.is_shared:
                return tree
            copies = self._known[1]
            if key not in copies:
                with backend.scope():
                    copies[key] = put_leaves(backend, tree, dtype)
                # Finish copying now: other threads' CUDA streams do not wait for the copies.
                backend.synchronize(copies[key])
            return copies[key]


class FittedAttribute:
    """A descriptor for a fitted attribute; a value that a user assigns changes the fitted state.

    ``change(state, value)`` returns the new state. The value is stored in the estimator's
    ``__dict__`` under the attribute's name.
    """

    def __init__(self, change: Callable[[Any, Any], Any]) -> None:
        self._change = change

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        if estimator is None:
            return self
        try:
            return vars(estimator)[self._name]
        except KeyError:
            kind = type(estimator).__name__
            message = f"{kind!r} object has no attribute {self._name!r}"
            raise AttributeError(message) from None

    def __set__(self, estimator: Any, value: Any) -> None:
        attributes = vars(estimator)
        attributes[self._name] = value
        if "_state" in attributes:
            attributes["_state"] = self._change(attributes["_state"], value)

    def __delete__(self, estimator: Any) -> None:
        self.__get__(estimator)
        attributes = vars(estimator)
        del attributes[self._name]
        if "_state" in attributes:
            _mark_shared(attributes["_state"])  # The next call reports what was deleted.


class FittedArrays(FittedAttribute):
    """A descriptor for a fitted list of arrays; whoever reads or assigns it may change its entries.

    The state is then marked as shared, so that the next call looks for new entries.
    """

    def __init__(self) -> None:
        super().__init__(_mark_shared)

    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        value = super().__get__(estimator)
        if estimator is not None and "_state" in vars(estimator):
            _mark_shared(vars(estimator)["_state"])
        return value


def _mark_shared(state: Any, value: Any = None) -> Any:
    state.copies.is_shared = True
    return state
