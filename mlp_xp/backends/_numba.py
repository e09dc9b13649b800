"""Fused loops for NumPy: the optimizer's update reads and writes each number once.

NumPy's elementwise update costs as much as the products of a 512-wide network. One thread is
enough: the loop waits for memory, and a second pool of threads would fight with that of the BLAS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from mlp_xp.backends._fused import Loop, make_update

__all__ = ["jit", "update_tree"]


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop, or take it from numba's cache where there is a folder for one.

    Without "reassoc" a sum of squares would not be vectorised. NaN and infinity keep their
    meaning. "numpy" divides as NumPy does: a check for zero would stop the vectorisation too.
    """
    from numba import njit

    compiled = partial(njit, fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True)
    try:
        return compiled(cache=True)(function)
    except RuntimeError:  # No folder can be written to.
        return compiled()(function)


@cache
def _loops() -> dict[str, Loop]:
    """Give the loops, or none where numba does not load; only a fit pays for it."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return {}

    @jit
    def sgd(p, g, v, rate, momentum, nesterov, l2):  # type: ignore[no-untyped-def]
        total = p.dtype.type(0)
        for i in range(p.size):
            total += p[i] * p[i]
            step = rate * (g[i] + l2 * p[i])
            v[i] = momentum * v[i] - step
            p[i] += momentum * v[i] - step if nesterov else v[i]
        return total

    @jit
    def adam(p, g, m, v, rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2):  # type: ignore[no-untyped-def]
        total = p.dtype.type(0)
        for i in range(p.size):
            total += p[i] * p[i]
            slope = g[i] + l2 * p[i]
            m[i] = beta_1 * m[i] + rest_1 * slope
            v[i] = beta_2 * v[i] + rest_2 * (slope * slope)
            p[i] = shrink * p[i] - rate * m[i] / (np.sqrt(v[i]) + epsilon)
        return total

    def flat(loop: Any) -> Loop:
        def run(arrays: tuple[Any, ...], scalars: tuple[Any, ...], with_total: bool) -> Any:
            return loop(*[array.reshape(-1) for array in arrays], *scalars)

        return run

    return {"sgd": flat(sgd), "adam": flat(adam)}


def _accepts(array: Any) -> bool:
    return (
        array.dtype in (np.float32, np.float64)
        and array.flags.c_contiguous
        and array.flags.writeable
    )


update_tree = make_update(_loops, _accepts)
