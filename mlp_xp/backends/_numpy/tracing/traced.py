"""Arrays that record the operations on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

# A function that receives a call's arguments and returns a view of one of them.
Finder = Callable[[Sequence[Any]], np.ndarray]

# A placeholder for the step number in a trace: ``array[STEP, ...]`` is the current step's entry.
STEP: Any = object()


class UntraceableError(TypeError):
    """The error for a traced function that needs a value, or an operation that cannot be traced."""


class Traced(NDArrayOperatorsMixin):
    """An array that records the operations on it; the `Program` will use the memory of ``value``.

    If the array is a view, ``source`` is the array that owns the memory. If the array is an
    argument that is not copied, or a view of one, ``find_view`` returns its new value from the
    arguments of a later call.
    """

    def __init__(
        self,
        program: Any,
        value: np.ndarray,
        *,
        source: Traced | None = None,
        find_view: Finder | None = None,
        is_pooled: bool = False,
    ) -> None:
        self.program = program
        self.value = value
        self.find_view = find_view
        self._source = source
        self.is_pooled = is_pooled

    def __del__(self) -> None:
        if self.is_pooled:
            self.program.pool.append(self.value)

    @property
    def owner(self) -> Traced:
        """The array that owns the memory: for a view, another array."""
        return self if self._source is None else self._source.owner

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    itemsize = property(lambda self: self.value.itemsize)
    strides = property(lambda self: self.value.strides)
    flags = property(lambda self: self.value.flags)
    device = "cpu"

    @property
    def T(self) -> Traced:
        return self._view(lambda value: value.T)

    def __getitem__(self, key: Any) -> Traced:
        keys = key if isinstance(key, tuple) else (key,)
        if keys and keys[0] is STEP:
            return self.program.pick(self)
        if any(isinstance(k, Traced | np.ndarray | list) for k in keys):
            raise UntraceableError("Indexing by arrays, masks or lists cannot be traced.")
        # In contrast to NumPy, indexing a single number returns a view.
        return self._view(lambda value: value[(*keys, ...)] if ... not in keys else value[keys])

    def __setitem__(self, key: Any, value: Traced) -> None:
        if not (isinstance(key, tuple) and key[0] is STEP and isinstance(value, Traced)):
            raise UntraceableError("Only the entry of the current step can be assigned.")
        self.program.keep(self, value)

    def reshape(self, *shape: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape)

    def astype(self, dtype: Any, copy: bool = True) -> Traced:
        if not copy and self.dtype == dtype:
            return self
        return self.program.note(np.copyto, (self,), self.value.astype(dtype), casting="unsafe")

    def _view(self, take: Callable[[np.ndarray], np.ndarray]) -> Traced:
        find_view = self.find_view
        later = None if find_view is None else lambda arguments: take(find_view(arguments))
        return Traced(self.program, take(self.value), source=self, find_view=later)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return self.program.ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return self.program.function(function, args, options)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError("The values of an array are unknown while a step is traced.")

    __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = __array__
    __hash__ = object.__hash__


def fixed(operand: Any) -> Any:
    """Return an operand in which arrays that are not traced are copied, as they may change."""
    if isinstance(operand, list | tuple):
        return type(operand)(map(fixed, operand))
    return operand.copy() if type(operand) is np.ndarray else operand


def value_of(operand: Any) -> Any:
    if isinstance(operand, Traced):
        return operand.value
    if isinstance(operand, list | tuple):
        return type(operand)(map(value_of, operand))
    return operand
