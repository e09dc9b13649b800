"""Functions that make arrays: from nothing, from other arrays, and from what is on the host."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cupy import _launch
from cupy._array import SCALARS, ndarray, supported_dtype
from cupy._indexing import fill
from cupy._launch import current_queue
from cupy._operations import operate, run_into, upload
from cupy._signatures import define

FILLED = """
empty(shape, dtype=float, order='C')
zeros(shape, dtype=float, order='C')
ones(shape, dtype=float, order='C')
full(shape, fill_value, dtype=None, order='C')
"""
FILLED_LIKE = """
empty_like(prototype, dtype=None, order='K', subok=None, shape=None)
zeros_like(a, dtype=None, order='K', subok=None, shape=None)
ones_like(a, dtype=None, order='K', subok=None, shape=None)
full_like(a, fill_value, dtype=None, order='K', subok=None, shape=None)
"""
CONSTANTS = {"zeros": 0, "ones": 1}


def filled(name: str) -> Callable[..., Any]:
    def body(shape: Any, dtype: Any, order: str, fill_value: Any = None) -> ndarray:
        if name == "full" and dtype is None:
            dtype = fill_value.dtype if isinstance(fill_value, ndarray) else np.array(fill_value)
            dtype = getattr(dtype, "dtype", dtype)
        new = ndarray(shape, dtype, order=order)
        value = CONSTANTS.get(name, fill_value)
        if value is not None:
            fill(new, value)
        return new

    return body


def filled_like(name: str) -> Callable[..., Any]:
    name = name.removesuffix("_like")

    def body(
        a: Any = None,
        dtype: Any = None,
        order: str = "K",
        subok: Any = None,
        shape: Any = None,
        fill_value: Any = None,
        prototype: Any = None,
    ) -> ndarray:
        if subok is not None:
            raise TypeError("subok is not supported yet")
        like = a if prototype is None else prototype
        if not isinstance(like, ndarray):
            raise TypeError(f"expected ndarray, got {type(like)}")
        # The layout of a dense array, where it has one.
        layout = np.empty_like(like._a, order=order, shape=shape)
        new = _in_layout(layout, like.dtype if dtype is None else dtype)
        value = CONSTANTS.get(name, fill_value)
        if value is not None:
            fill(new, value)
        return new

    return body


def _in_layout(layout: np.ndarray, dtype: Any) -> ndarray:
    """Return a new array whose dimensions are in the order of those of a NumPy array."""
    by_stride = sorted(range(layout.ndim), key=lambda i: -abs(layout.strides[i]))
    new = ndarray([layout.shape[i] for i in by_stride], dtype)
    view = new._view(np.transpose(new._a, np.argsort(by_stride)) if layout.ndim > 1 else new._a)
    view.base = None
    return view


# --- from arrays and from the host ---------------------------------------------------------------


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: str | None = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    if subok:
        raise NotImplementedError
    order = order or "K"
    if isinstance(obj, ndarray):
        new = _from_device(obj, dtype, copy, order)
    elif _holds_arrays(obj):
        arrays = [array(item, dtype, None) for item in obj]
        new = operate("concatenate", np.stack, (tuple(arrays),), dtype=dtype, n=len(arrays))
    else:
        new = _from_host(obj, dtype, order)
        if blocking:
            _launch.wait("array", current_queue())
    if ndmin > new.ndim:
        new = new.reshape((1,) * (ndmin - new.ndim) + new.shape)
    return new


def _holds_arrays(obj: Any) -> bool:
    return isinstance(obj, list | tuple) and any(
        isinstance(item, ndarray) or _holds_arrays(item) for item in obj
    )


def _from_host(obj: Any, dtype: Any, order: str) -> ndarray:
    host = np.asarray(obj, dtype=dtype)
    host = host.astype(supported_dtype(host.dtype), copy=False)
    if order in "KA":
        order = "F" if isinstance(obj, np.ndarray) and obj.flags.fnc else "C"
    if host.ndim == 0:
        new = ndarray((), host.dtype)
        fill(new, host)
        return new
    return upload(host, order)


def _from_device(obj: ndarray, dtype: Any, copy: bool | None, order: str) -> ndarray:
    dtype = obj.dtype if dtype is None else dtype
    if obj._memory.device_id == _launch.state.device:
        return astype(obj, dtype, order, copy)
    return astype(from_other_device(obj, order), dtype, "K", copy=None)


def from_other_device(obj: ndarray, order: str) -> ndarray:
    """Copy an array to the current device, in a layout that it first gets where it is."""
    import cupy

    with obj.device:
        obj = astype(obj, obj.dtype, order, copy=None)
        if not obj.flags.forc:
            obj = astype(obj, obj.dtype, "C", copy=True)
    new = cupy.empty(obj.shape, obj.dtype, "F" if obj.flags.fnc else "C")
    here, there = current_queue(), _launch.queue_at(_launch.LEGACY, obj._memory.device_id)
    is_ordered = here.pointer == _launch.LEGACY
    # On the default stream it is ordered with all work of both devices.
    if is_ordered:
        here.wait(*there.moment()[:3])
    new.data.copy_from_device_async(obj.data, obj.nbytes)
    if is_ordered:
        there.wait(*here.moment()[:3])
    return new


def astype(a: ndarray, dtype: Any, order: str = "K", copy: bool | None = True) -> ndarray:
    dtype, flags = supported_dtype(dtype), a.flags
    fits = {"K": True, "A": flags.forc, "C": flags.c_contiguous, "F": flags.f_contiguous}[order]
    if dtype == a.dtype and not copy and fits:
        return a
    if copy is False:
        raise ValueError("Unable to avoid copy while creating an array as requested.")
    new = _in_layout(np.empty_like(a._a, order=order), dtype)
    with np.errstate(all="ignore"):
        run_into("copy" if dtype == a.dtype else "astype", np.asarray, (a,), {}, [new])
    return new


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    return array(a, dtype, copy, order, blocking=blocking)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, None, "C", ndmin=1)


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and a.ndim == 2 and a.flags.c_contiguous and a.dtype.kind == "f":
        _launch.refuse_capture(current_queue())  # Transposed by cuBLAS.
    return array(a, dtype, None, "F", ndmin=1)


def copy(a: ndarray, order: str = "K") -> ndarray:
    return a.copy(order=order)


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray:
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    host = np.asarray(a, order=order)
    if out is None:
        return host
    out[...] = host
    return out


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> ndarray:
    if device is not None:
        raise NotImplementedError("from_dlpack() does not support device yet.")
    if isinstance(array, ndarray):
        if copy:
            raise BufferError("copy=True only supported for copy to CPU.")
        return array._view(array._a)
    raise TypeError(
        "CPU arrays cannot be directly imported to CuPy. "
        "Use `cupy.array(numpy.from_dlpack(input))` instead."
    )


# --- ranges --------------------------------------------------------------------------------------


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    if dtype is None:
        kinds = (np.dtype(type(v)).kind for v in (start, stop, step))
        dtype = float if "f" in kinds else int
    if stop is None:
        start, stop = 0, start
    size = max(math.ceil((stop - start) / step), 0)
    new = ndarray((size,), dtype)
    values = start, start + size * step, step
    run_into("arange", lambda: np.arange(*values)[:size], (), {}, [new])
    return new


def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    if not all(isinstance(v, SCALARS) for v in (start, stop)) or retstep:
        raise NotImplementedError("the stand-in's linspace takes scalars alone")
    new = ndarray((num,), float if dtype is None else dtype)
    run_into("linspace", lambda: np.linspace(start, stop, num, endpoint), (), {}, [new])
    return new


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float, order: str = "C") -> ndarray:
    import cupy

    new = cupy.zeros((N, N if M is None else M), dtype, order)
    run_into("fill", lambda: np.eye(N, M, k), (), {}, [new])
    return new


def meshgrid(*xi: ndarray, **kwargs: Any) -> list[ndarray]:
    grids = np.meshgrid(*(x._a for x in xi), copy=False, **kwargs)
    if not kwargs.get("copy", True):
        return [x._view(grid) for x, grid in zip(xi, grids, strict=True)]
    return [x._view(grid).copy() for x, grid in zip(xi, grids, strict=True)]


CREATION = define(FILLED, filled) | define(FILLED_LIKE, filled_like)
