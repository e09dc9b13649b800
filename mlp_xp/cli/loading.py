"""What commands load: data sets and libraries."""

from __future__ import annotations

from mlp_xp._signals import postponed
from mlp_xp.backends import Backend, get_backend
from mlp_xp.datasets import LOADERS, Dataset
from mlp_xp.datasets._download import UnreachableError

__all__ = ["describe", "load_backend", "load_data"]


def load_data(name: str, path: str | None) -> Dataset:
    """Load a data set by its name, from a path if there is one."""
    if path is None:
        try:
            return LOADERS[name]()
        except UnreachableError as error:
            raise UnreachableError(
                f"{error}; or type --data digits, which comes with scikit-learn"
            ) from error
    if name == "digits":
        raise ValueError("digits come with scikit-learn and have no path: leave out --data-path")
    return LOADERS[name](path)


def load_backend(name: str | None, device: str | None) -> Backend:
    """Load a library; Ctrl-C waits, for an exception in there can abort the process."""
    with postponed():
        return get_backend(name, device)


def describe(backend: Backend) -> str:
    """Return a backend's facts in a line."""
    return ", ".join(f"{key} {fact}" for key, fact in backend.describe().items())
