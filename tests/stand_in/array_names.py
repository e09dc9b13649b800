"""Print what modules of CuPy offer, and how it is called, as JSON.

Run with the stand-in on the path and without it; `test_stand_in_names.py` compares the two.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from typing import Any

CLASSES = ("ndarray",)
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
        texts = [re.sub(r"^\w+ (?=\w)", "", text.strip()) for text in found[1].split(",")]
    else:
        empty = inspect.Parameter.empty
        plain = [p.replace(annotation=empty) for p in signature.parameters.values()]
        shown = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", str(inspect.Signature(plain)))
        texts = shown[1:-1].split(", ")
    return ", ".join(text for text in texts if text not in ("self", ""))


def described(module: Any, name: str) -> dict[str, str | None]:
    """Return the parameters of a function, or of the methods of a class; "" for what has none."""
    thing = getattr(module, name)
    if type(thing).__name__ == "ufunc":
        return {name: f"{thing.nin} in, {thing.nout} out, {thing.name}"}
    if name in CLASSES:
        keys = {key for kind in thing.__mro__[:-1] for key in vars(kind)}
        methods = {key for key in keys if not key.startswith("_")}
        operators = {key for key in keys if key.startswith("__")} - set(vars(object)) - HIDDEN
        found = {key: getattr(thing, key) for key in methods}
        told = {key: parameters(value) if callable(value) else "" for key, value in found.items()}
        told |= dict.fromkeys(operators, "")
        made = parameters(getattr(thing, "_init", thing.__init__)) if name == "ndarray" else ""
        return {name: made} | {f"{name}.{key}": value for key, value in told.items()}
    if isinstance(thing, type):
        return {name: ""}
    return {name: parameters(thing) if callable(thing) else repr(thing)}


def main() -> None:
    offered = {}
    for module in map(importlib.import_module, sys.argv[1:]):
        for name in getattr(module, "__all__", vars(module)):
            if not name.startswith("_") and not inspect.ismodule(getattr(module, name)):
                for key, value in described(module, name).items():
                    offered[f"{module.__name__}.{key}"] = value
    print(json.dumps(offered))


if __name__ == "__main__":
    main()
