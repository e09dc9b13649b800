"""Import the names of a package on first use (PEP 562)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlp_xp._utils.collection import pause_collection


def lazy(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    ``modules`` maps each name imported on first use to its module. Submodules are also imported on
    first use. For type checkers, the package imports the names under ``TYPE_CHECKING``.
    """

    def get(name: str) -> Any:
        if name in modules:
            with pause_collection():  # It would examine all modules loaded so far, several times.
                value = getattr(importlib.import_module(modules[name]), name)
        elif importlib.util.find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return get
