"""Functions made from lines such as ``sum(a, axis=None)``, which are their signatures."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np


def define(lines, make, module="cupy") -> dict[str, Callable[..., Any]]:
    """Return a function for each line: ``make(name)`` computes it from all arguments by name."""
    return {name: one(name, signature, make(name), module) for name, signature in read(lines)}


def read(lines: str) -> list[tuple[str, inspect.Signature]]:
    found = []
    for line in filter(None, map(str.strip, lines.splitlines())):
        name, _, parameters = line.removesuffix(")").partition("(")
        found.append((name, inspect.signature(eval(f"lambda {parameters}: 0", {"np": np}))))
    return found


def one(name, signature, body, module) -> Callable[..., Any]:
    """Return a function with a name and a signature, which passes all arguments on by name."""

    def function(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return body(**bound.arguments)

    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function
