"""Kernels by their source, each made once, and listed for the tests that compile all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

__all__ = ["every_kernel", "kernel"]

Factory = Callable[..., Any]

_FACTORIES: list[tuple[Factory, tuple[tuple[Any, ...], ...]]] = []


def kernel(*variants: tuple[Any, ...]) -> Callable[[Factory], Factory]:
    """Cache the kernels that a function returns, and list them in `every_kernel`.

    Parameters
    ----------
    *variants : tuple
        Arguments that between them reach every line of the kernel's source; none for a function
        without parameters.
    """

    def register(factory: Factory) -> Factory:
        cached = cache(factory)
        _FACTORIES.append((cached, variants or ((),)))
        return cached

    return register


def every_kernel() -> Iterator[Any]:
    """Yield each registered kernel in each of its variants.

    An `ElementwiseKernel` leaves its dtypes open, as letters; a `RawKernel` is complete.
    """
    for factory, variants in _FACTORIES:
        for variant in variants:
            yield factory(*variant)
