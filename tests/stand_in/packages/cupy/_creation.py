"""Functions that make arrays: from nothing, from other arrays, and from what is on the host."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cupy import _launch
from cupy._array import ndarray, supported_dtype
from cupy._indexing import fill
from cupy._launch import current_queue
from cupy._operations import run_into, upload
from cupy._signatures import define

FILLED = """
empty(shape, dtype=float, order='C')
zeros(shape, dtype=float, order='C')
ones(shape, dtype=float, order='C')
"""
FILLED_LIKE = """
empty_like(prototype, dtype=None, order='K', subok=None, shape=None)
zeros_like(a, dtype=None, order='K', subok=None, shape=None)
ones_like(a, dtype=None, order='K', subok=None, shape=None)
full_like(a, fill_value, dtype=None, order='K', subok=None, shape=None)
"""
FULL = "full(shape, fill_value, dtype=None, order='C')"
CONSTANTS = {"zeros": 0, "ones": 1}


def filled(name: str) -> Callable[..., Any]:
    def body(shape: Any, dtype: Any, order: str) -> ndarray:
        return _with(ndarray(shape, dtype, order=order), CONSTANTS.get(name))

    return body


def full(name: str) -> Callable[..., Any]:
    def body(shape: Any, fill_value: Any, dtype: Any, order: str) -> ndarray:
        dtype = np.asarray(fill_value).dtype if dtype is None else dtype
        return _with(ndarray(shape, dtype, order=order), fill_value)

    return body


def filled_like(name: str) -> Callable[..., Any]:
    constant = CONSTANTS.get(name.removesuffix("_like"))

    def body(fill_value: Any = constant, **given: Any) -> ndarray:
        like, dtype, order, subok, shape = given.values()
        if subok is not None:
            raise TypeError("subok is not supported yet")
        if not isinstance(like, ndarray):
            raise TypeError(f"expected ndarray, got {type(like)}")
        # The layout of a dense array, where it has one.
        layout = np.empty_like(like._a, order=order, shape=shape)
        return _with(_in_layout(layout, like.dtype if dtype is None else dtype), fill_value)

    return body


def _with(new: ndarray, value: Any) -> ndarray:
    if value is not None:
        fill(new, value)
    return new


def _in_layout(layout: np.ndarray, dtype: Any) -> ndarray:
    """Return a new array whose dimensions are in the order of those of a NumPy array."""
    by_stride = sorted(range(layout.ndim), key=lambda i: -abs(layout.strides[i]))
    new = ndarray([layout.shape[i] for i in by_stride], dtype)
    view = new._view(np.transpose(new._a, np.argsort(by_stride)) if layout.ndim > 1 else new._a)
    view.base = None
    return view


def array(
    obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False
) -> ndarray:
    if subok or blocking:
        raise NotImplementedError
    order = order or "K"
    new = (_from_device if isinstance(obj, ndarray) else _from_host)(obj, dtype, copy, order)
    if ndmin > new.ndim:
        new = new.reshape((1,) * (ndmin - new.ndim) + new.shape)
    return new


def _from_host(obj: Any, dtype: Any, copy: bool | None, order: str) -> ndarray:
    host = np.asarray(obj, dtype=dtype)
    host = host.astype(supported_dtype(host.dtype), copy=False)
    if order in "KA":
        order = "F" if isinstance(obj, np.ndarray) and obj.flags.fnc else "C"
    return upload(host, order) if host.ndim else _with(ndarray((), host.dtype), host)


def _from_device(obj: ndarray, dtype: Any, copy: bool | None, order: str) -> ndarray:
    dtype = obj.dtype if dtype is None else dtype
    if obj._memory.device_id == _launch.state.device:
        return astype(obj, dtype, order, copy)
    return astype(from_other_device(obj, order), dtype, "K", copy=None)


def from_other_device(obj: ndarray, order: str) -> ndarray:
    """Copy an array to the current device, in a layout that it first gets where it is."""
    with obj.device:
        obj = astype(obj, obj.dtype, order, copy=None)
    if not obj.flags.forc:
        raise NotImplementedError("CuPy cannot copy non-contiguous array between devices.")
    new = ndarray(obj.shape, obj.dtype, order="F" if obj.flags.fnc else "C")
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
        run_into("copy" if dtype == a.dtype else "astype", np.asarray, (a,), {}, new)
    return new


def asarray(a: Any, dtype=None, order=None, *, copy=None, blocking=False) -> ndarray:
    return array(a, dtype, copy, order, blocking=blocking)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, None, "C", ndmin=1)


def asnumpy(a: Any, stream=None, order="C", out=None, *, blocking=True) -> np.ndarray:
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    if out is not None:
        raise NotImplementedError
    return np.asarray(a, order=order)


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> ndarray:
    if device is not None or copy:
        raise NotImplementedError
    if isinstance(array, ndarray):
        return array._view(array._a)
    raise TypeError("CPU arrays cannot be directly imported to CuPy.")


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    if dtype is None:
        kinds = (np.dtype(type(v)).kind for v in (start, stop, step))
        dtype = float if "f" in kinds else int
    if stop is None:
        start, stop = 0, start
    size = max(math.ceil((stop - start) / step), 0)
    new = ndarray((size,), dtype)
    values = start, start + size * step, step
    run_into("arange", lambda: np.arange(*values)[:size], (), {}, new)
    return new


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float, order: str = "C") -> ndarray:
    new = _with(ndarray((N, N if M is None else M), dtype, order=order), 0)
    run_into("fill", lambda: np.eye(N, M, k), (), {}, new)
    return new


CREATION = define(FILLED, filled) | define(FULL, full) | define(FILLED_LIKE, filled_like)
