"""Print what modules of CuPy and nvmath offer, and how it is called, as JSON.

Run with the stand-in on the path and without it; `test_stand_in_names.py` compares the two.
"""

import enum
import importlib
import inspect
import json
import re
import types
from typing import Any

import cupy

IS_REAL = hasattr(cupy, "_core")
MODULES = (
    *("cupy", "cupy.linalg", "cupy.cuda", "cupy.cuda.device", "cupy.cuda.graph"),
    *("cupy.cuda.memory", "cupy.cuda.pinned_memory", "cupy.cuda.runtime", "cupy.cuda.stream"),
    *("cupyx", "nvmath", "nvmath.bindings.cublas", "nvmath.bindings.cublasLt"),
)
SHOWN = "__init__", "__enter__", "__exit__", "__cuda_stream__"
# What Python gives every class.
HIDDEN = {"__module__", "__slots__", "__annotations__", "__dict__", "__weakref__", "__hash__"}


def parameters(function: Any) -> str | None:
    """Return parameters and defaults, from the docstring where Cython hides them, else None."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        first = (getattr(function, "__doc__", None) or "").partition("\n")[0]
        found = re.fullmatch(r"[\w.]+\((.*)\)( -> .+)?", first)
        if found is None:
            return None
        # Without the types of Cython: ``_ndarray_base b, int axis=-1``.
        texts = [re.sub(r"^(?:[\w*]+ )+(?=\w)", "", text.strip()) for text in found[1].split(",")]
    else:
        empty = inspect.Parameter.empty
        plain = [p.replace(annotation=empty) for p in signature.parameters.values()]
        shown = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", str(inspect.Signature(plain)))
        # A function by its name, as its address differs.
        shown = re.sub(
            r"<(?:\w+ )*function (\w+)(?: at \w+)?>|<cyfunction (\w+)[^>]*>", r"\1\2", shown
        )
        texts = shown[1:-1].split(", ")
    return ", ".join(text for text in texts if text not in ("self", "cls", ""))


def described(thing: Any) -> dict[str, str | None]:
    """Return the parameters of a function, or of a class's methods; "" for what has none."""
    if type(thing).__name__ == "ufunc":
        return {"": f"{thing.nin} in, {thing.nout} out, {thing.name}"}
    if isinstance(thing, type) and issubclass(thing, enum.Enum):
        return {name: str(int(member)) for name, member in thing.__members__.items()}
    if isinstance(thing, type):
        kinds = [kind for kind in thing.__mro__[:-1] if kind.__module__ != "numpy"]
        names = {name for kind in kinds for name in vars(kind)}
        found: dict[str, str | None] = {"": ""}
        for name in names:
            if name in SHOWN or not name.startswith("_"):
                value = getattr(thing, name)
                found[f".{name}"] = parameters(value) if callable(value) else ""
        if thing.__name__ == "ndarray":
            operators = (
                {name for name in names if name.startswith("__")} - set(vars(object)) - HIDDEN
            )
            found |= {f".{name}": "" for name in operators}
            found[".__init__"] = parameters(getattr(thing, "_init", thing.__init__))
        return found
    if callable(thing):
        return {"": parameters(thing)}
    return {"": repr(thing) if isinstance(thing, int | float | None) else ""}


def is_offered(module: types.ModuleType, name: str) -> bool:
    """Whether a public name is one of the module; the stand-in imports others for itself."""
    thing = getattr(module, name)
    home = getattr(thing, "__module__", None) or module.__name__
    is_own = IS_REAL or home.startswith((module.__name__, "numpy"))
    return is_own and not name.startswith("_") and not inspect.ismodule(thing)


def main() -> None:
    offered = {}
    for module in map(importlib.import_module, MODULES):
        for name in vars(module):
            if is_offered(module, name):
                for key, value in described(getattr(module, name)).items():
                    offered[f"{module.__name__}.{name}{key}"] = value
    print(json.dumps(offered))


if __name__ == "__main__":
    main()
