"""Print what `cupy.cuda`, cupyx's pinned memory and nvmath's cuBLASLt offer, as JSON.

Run with the stand-in on the path and without it; `test_stand_in_devices.py` compares the two.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import re
from typing import Any

MODULES = {
    "cupy.cuda": None,
    "cupy.cuda.device": None,
    "cupy.cuda.stream": None,
    "cupy.cuda.graph": None,
    "cupy.cuda.memory": None,
    "cupy.cuda.pinned_memory": None,
    "cupy.cuda.runtime": None,
    "cupyx": ["empty_pinned", "empty_like_pinned", "zeros_pinned", "zeros_like_pinned"],
    "nvmath": ["CudaDataType"],
    "nvmath.bindings.cublas": ["ComputeType", "Operation", "Status"],
    "nvmath.bindings.cublasLt": None,
}
# What a module of the stand-in without `__all__` imports.
IMPORTED = {"annotations", "Any"}


def _shown(default: Any) -> str:
    """Return a default as text; a function by its name, as its address differs."""
    return default.__name__ if callable(default) else repr(default)


def parameters(function: Any) -> list[str] | None:
    """Return the names and defaults of parameters, from the docstring where Cython hides them."""
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        first = (getattr(function, "__doc__", None) or "").partition("\n")[0]
        found = re.fullmatch(r"[\w.]+\((.*)\)( -> .+)?", first)
        if found is None:
            return None
        texts = [text.strip() for text in found[1].split(",") if text.strip()]
        texts = [re.sub(r"^(?:[\w*]+ )+(?=\w)", "", text) for text in texts]
    else:
        texts = [
            parameter.name
            + ("" if parameter.default is parameter.empty else f"={_shown(parameter.default)}")
            for parameter in given
        ]
    texts = [text.lstrip("*") for text in texts]
    return [text for text in texts if text.partition("=")[0] not in ("self", "cls")]


def described(thing: Any) -> Any:
    if isinstance(thing, type) and issubclass(thing, enum.Enum):
        return {"members": {name: int(member) for name, member in thing.__members__.items()}}
    if isinstance(thing, type):
        names = {name for kind in thing.__mro__[:-1] for name in vars(kind)}
        return {
            "attributes": {
                name: parameters(getattr(thing, name))
                for name in sorted(names)
                if name in ("__init__", "__enter__", "__exit__", "__cuda_stream__")
                or not name.startswith("_")
            }
        }
    if callable(thing):
        return {"parameters": parameters(thing)}
    return {"value": thing} if isinstance(thing, int) else {}


def offered(module: str, names: list[str] | None) -> dict[str, Any]:
    found = importlib.import_module(module)
    chosen = getattr(found, "__all__", vars(found)) if names is None else names
    return {
        name: described(getattr(found, name))
        for name in chosen
        if not name.startswith("_")
        and name not in IMPORTED
        and not inspect.ismodule(getattr(found, name))
    }


if __name__ == "__main__":
    print(json.dumps({module: offered(module, names) for module, names in MODULES.items()}))
