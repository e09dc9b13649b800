"""`cupy.ndarray`: a NumPy view into memory of a device, which NumPy itself may not look into.

What computes is in other modules, and is attached to the class by `_methods`.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any, NamedTuple

import numpy as np

from cupy import _launch, cuda

# What a kernel takes besides arrays.
SCALARS = (bool, int, float, complex, np.generic)
_SUPPORTED = "?bhilqBHILQefdFD"


@functools.cache
def supported_dtype(dtype: Any) -> np.dtype:
    """Return a dtype in the machine's byte order; ValueError for one that CUDA has not."""
    dtype = np.dtype(dtype)
    if dtype.char not in _SUPPORTED and dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype.newbyteorder("=")


class Flags(NamedTuple):
    c_contiguous: bool
    f_contiguous: bool

    @property
    def fnc(self) -> bool:
        return self.f_contiguous and not self.c_contiguous

    @property
    def forc(self) -> bool:
        return self.f_contiguous or self.c_contiguous


def _converted(function: Any) -> Any:
    """Return a method that waits for the array's values."""
    return lambda self: function(self.get())


class ndarray:  # noqa: N801 - CuPy's name
    """An array on a device. `_a` is the view, `_memory` what it looks into."""

    __module__ = "cupy"
    __slots__ = ("__weakref__", "_a", "_memory", "base")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C") -> None:
        shape = shape if isinstance(shape, tuple | list) else (shape,)
        shape = tuple(map(operator.index, shape))
        dtype = supported_dtype(dtype)
        if memptr is None:
            memptr = cuda.alloc(math.prod(shape) * dtype.itemsize)
        self._memory = memptr.mem
        block = memptr.mem.block
        offset = memptr.ptr - block.address
        self._a = np.ndarray(shape, dtype, block.bytes, offset, strides, order or "C")
        self.base: ndarray | None = None

    def _view(self, a: np.ndarray) -> ndarray:
        view = object.__new__(ndarray)
        view._a, view._memory = a, self._memory
        view.base = self if self.base is None else self.base
        return view

    shape = property(operator.attrgetter("_a.shape"))
    dtype = property(operator.attrgetter("_a.dtype"))
    ndim = property(operator.attrgetter("_a.ndim"))
    size = property(operator.attrgetter("_a.size"))
    strides = property(operator.attrgetter("_a.strides"))
    itemsize = property(operator.attrgetter("_a.itemsize"))
    nbytes = property(operator.attrgetter("_a.nbytes"))

    @property
    def flags(self) -> Flags:
        flags = self._a.flags
        return Flags(flags.c_contiguous, flags.f_contiguous)

    @property
    def data(self) -> cuda.MemoryPointer:
        start = self._memory.ptr
        return cuda.MemoryPointer(self._memory, self._a.ctypes.data - start if self.size else 0)

    @property
    def device(self) -> cuda.Device:
        return cuda.Device(self._memory.device_id)

    def __len__(self) -> int:
        return len(self._a)

    def _check_host(self, host: Any) -> None:
        if not isinstance(host, np.ndarray) or self.dtype != host.dtype:
            raise TypeError(f"an array of {self.dtype} is not copied from or to {host!r}")
        if self.shape != host.shape:
            raise ValueError(f"Shape mismatch: {self.shape} here, {host.shape} on the host")

    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        if out is not None:
            self._check_host(out)
            order = "C" if out.flags.c_contiguous else "F"
        elif order.upper() == "A":
            order = "F" if self.flags.f_contiguous else "C"
        if self.size == 0:
            return np.empty(self.shape, self.dtype) if out is None else out
        with self.device:
            stream = cuda.get_current_stream() if stream is None else stream
            with stream:
                source = self._laid_out(order.upper())
            host = np.empty(self.shape, self.dtype, order) if out is None else out
            source.data.copy_to_host_async(host.ctypes.data, self.nbytes, stream)
            if blocking:
                _launch.wait("get", stream._stream)
        return host

    def _laid_out(self, order: str) -> ndarray:
        """Return the array in C or F order, copied on its device if it is in another."""
        if getattr(self.flags, f"{order.lower()}_contiguous"):
            return self
        copy = ndarray(self.shape, self.dtype, order=order)
        source, target = self._a, copy._a
        _launch.launch(
            "copy", lambda: np.copyto(target, source), reads=[self._memory], writes=[copy._memory]
        )
        return copy

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        self._check_host(arr)
        if not self.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        arr = np.asarray(arr, order="C" if self.flags.c_contiguous else "F")
        with self.device:
            stream = cuda.get_current_stream() if stream is None else stream
            self.data.copy_from_host_async(arr.ctypes.data, self.nbytes, stream)

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    __int__ = _converted(int)
    __float__ = _converted(float)
    __complex__ = _converted(complex)
    __repr__ = _converted(repr)
    __str__ = _converted(str)

    def __array__(self, dtype: Any = None) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use `.get()`.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        import cupy

        found = getattr(cupy, ufunc.__name__, None)
        return NotImplemented if found is None or method != "__call__" else found(*inputs, **kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._memory.device_id  # kDLCUDA.

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None) -> Any:
        if dl_device is None or tuple(dl_device) != (1, 0):
            raise BufferError("the stand-in has no memory that another library could use")
        if copy is False:
            raise ValueError("GPU memory cannot be exported to CPU without copy.")
        return self.get().__dlpack__(max_version=max_version)

    def __reduce__(self) -> Any:
        import cupy

        return cupy.array, (self.get(order="A"),)
