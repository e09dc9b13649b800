"""The namespace of NumPy arrays, whose functions also accept traced arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import array_api_compat.numpy

from mlp_xp.backends._numpy.tracing.traced import Traced

# Functions that the compiler composes from its primitives for traced arrays: NumPy's versions would
# need values, or a Python call in each step.
_COMPOSED = {
    *("broadcast_arrays", "clip", "count_nonzero", "diff", "mean", "repeat", "roll", "std"),
    *("tensordot", "tile", "unstack", "var", "vector_norm"),
}


class TraceableNamespace(ModuleType):
    """A namespace of NumPy functions, some of which handle traced arrays differently."""

    def __init__(self, plain: ModuleType) -> None:
        super().__init__(plain.__name__)
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._plain, name)
        if name == "linalg":
            found = TraceableNamespace(found)
        elif name == "asarray":
            found = _asarray
        elif name in _COMPOSED:
            found = _composed(found)
        setattr(self, name, found)
        return found


def _composed(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes traced arrays with the compiler's primitives."""

    @functools.wraps(plain)
    def function(*args: Any, **options: Any) -> Any:
        arrays = [x for x in (*args, *options.values()) if isinstance(x, Traced)]
        if not arrays:
            return plain(*args, **options)
        # Avoid this import in short fits.
        from mlp_xp.compiler import in_order
        from mlp_xp.compiler.formula import evaluate, trace_formula

        def formula(*traced: Any, xp: Any) -> Any:
            rest = iter(traced)
            given = [next(rest) if isinstance(x, Traced) else x for x in (*args, *options.values())]
            named = zip(options, given[len(args) :], strict=True)
            return getattr(xp, plain.__name__)(*given[: len(args)], **dict(named))

        try:
            found, inputs = trace_formula(formula, *arrays, names=[plain.__name__] * len(arrays))
        except Exception:  # Leave other options, e.g. other norms, and errors to NumPy.
            return plain(*args, **options)
        results = found if isinstance(found, tuple | list) else [found]
        values = dict(zip(inputs, arrays, strict=True))
        evaluate(in_order([x.node for x in results]), values, xp=xp)
        computed = tuple(values[x.node] for x in results)
        return computed if found is results else computed[0]

    return function


def _asarray(x: Any, /, *, copy: bool | None = None, **options: Any) -> Any:
    if not isinstance(x, Traced):
        return array_api_compat.numpy.asarray(x, copy=copy, **options)
    return x.astype(options.get("dtype") or x.dtype, copy=bool(copy))


xp: Any = TraceableNamespace(array_api_compat.numpy)
