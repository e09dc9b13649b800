"""Arrays that record operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import array_api_compat.numpy
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

# A function that receives a call's arguments and returns a view of one of them.
Finder = Callable[[Sequence[Any]], np.ndarray]

# A placeholder for the step number in a trace: ``array[STEP, ...]`` is the current step's entry.
STEP: Any = object()


class UntraceableError(TypeError):
    """Raised if a traced function needs a value or uses an operation that cannot be traced."""


class Memory:
    """The memory of a traced array, as a program refers to it.

    Attributes
    ----------
    value : array
    find_view : Finder or None
        See `Traced`.
    owner : Memory
        For a view, the memory of the array that owns the data.
    pool : list of array or None
        Receives ``value`` once no program and no traced array refers to it.
    n_arrays : int
        For an owner, the number of traced arrays that still refer to it.
    """

    __slots__ = ("_span", "find_view", "n_arrays", "owner_or_none", "pool", "value")

    def __init__(
        self,
        value: np.ndarray,
        find_view: Finder | None,
        owner: Memory | None,
        pool: list[np.ndarray] | None,
    ) -> None:
        self.value, self.find_view, self.pool = value, find_view, pool
        self.owner_or_none = owner  # Not this object itself, since that would be a reference cycle.
        self.n_arrays = 0
        self._span: tuple[int, int] | None = None

    def __del__(self) -> None:
        if self.pool is not None:
            self.pool.append(self.value)

    owner = property(lambda self: self if self.owner_or_none is None else self.owner_or_none)
    is_pooled = property(lambda self: self.pool is not None)
    dtype = property(lambda self: self.value.dtype)

    @property
    def span(self) -> tuple[int, int]:
        """The addresses of the first byte and of the byte after the last byte."""
        if self._span is None:
            self._span = np.lib.array_utils.byte_bounds(self.value)
        return self._span


class Traced(NDArrayOperatorsMixin):
    """An array that records the operations on it; the `Program` will use its ``memory``.

    For a view, ``source`` is its base array. For an argument that is not copied, or a view of one,
    ``find_view`` returns its new value from a later call's arguments.
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
        owner = None if source is None else source.owner
        self.memory = Memory(value, find_view, owner, program.pool if is_pooled else None)
        self.owner.n_arrays += 1

    def __del__(self) -> None:
        self.owner.n_arrays -= 1

    value = property(lambda self: self.memory.value)
    find_view = property(lambda self: self.memory.find_view)
    owner = property(lambda self: self.memory.owner, doc="The memory that contains the elements.")

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    itemsize = property(lambda self: self.value.itemsize)
    strides = property(lambda self: self.value.strides)
    flags = property(lambda self: self.value.flags)
    device = "cpu"

    T = property(lambda self: self._view(lambda value: value.T))
    mT = property(lambda self: self._view(lambda value: value.mT))  # noqa: N815

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return array_api_compat.numpy

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Traced]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Traced:
        keys = key if isinstance(key, tuple) else (key,)
        if keys and keys[0] is STEP:
            return self.program.pick(self)
        if any(isinstance(k, Traced | np.ndarray | list) for k in keys):
            raise UntraceableError("Indexing by arrays, masks or lists cannot be traced.")
        # In contrast to NumPy, indexing a single element returns a view.
        return self._view(lambda value: value[(*keys, ...)] if ... not in keys else value[keys])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, tuple) and key[0] is STEP:
            self.program.keep(self, value)
        else:
            self.program.assign(self[key], value)

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

    __bool__ = __float__ = __int__ = __index__ = __array__
    __hash__ = object.__hash__


def fixed(operand: Any) -> Any:
    """Copy an operand's arrays that are not traced, since their values may change."""
    if isinstance(operand, list | tuple):
        return type(operand)(map(fixed, operand))
    return operand.copy() if type(operand) is np.ndarray else operand


def value_of(operand: Any) -> Any:
    if isinstance(operand, Traced | Memory):
        return operand.value
    if isinstance(operand, list | tuple):
        return type(operand)(map(value_of, operand))
    return operand
