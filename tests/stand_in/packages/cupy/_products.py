"""Products, which cuBLAS computes: no stream that is captured takes them."""

from typing import Any

import numpy as np

from cupy import _launch
from cupy._array import ndarray
from cupy._operations import check_operands, operate, run_into, upload


def refuse_capture() -> None:
    """Raise what CuPy raises before it calls cuBLAS in a stream that is captured."""
    _launch.check_not_capturing("calling cuBLAS API during stream capture is currently unsupported")


def _prepare(array: ndarray) -> ndarray:
    """Return an array as cuBLAS takes it: a copy of one that is in neither order."""
    return array if array.flags.forc else array.copy()


def _product(name: str, function: Any, a: ndarray, b: ndarray, **settings: Any) -> ndarray:
    if np.result_type(a.dtype, b.dtype).kind in "fc":
        refuse_capture()
    dtype = np.promote_types(a.dtype, b.dtype)
    a, b = (_prepare(x if x.dtype == dtype else x.astype(dtype)) for x in (a, b))
    if not a.size or not b.size:
        return operate("memset", function, (a, b), settings)
    return operate(name, function, (a, b), settings)


def _of_arrays(a: Any, b: Any) -> None:
    check_operands(a, b)
    if not (isinstance(a, ndarray) and isinstance(b, ndarray)):
        raise TypeError("products take arrays of the device")


def matmul(
    *args: Any,
    axes: Any = None,
    axis: Any = None,
    keepdims: bool = False,
    casting: str = "same_kind",
    dtype: Any = None,
    signature: Any = None,
    order: str = "K",
    out: ndarray | None = None,
) -> ndarray:
    a, b, *outs = args
    _of_arrays(a, b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("Scalar operands are not allowed, use '*' instead")
    if a.ndim <= 2 and b.ndim <= 2:
        found = dot(a, b)
    else:
        batched = [x if x.flags.c_contiguous else x.copy() for x in (a, b)]
        if a.shape[:-2] != b.shape[:-2]:
            for _ in range(3):  # The addresses of the matrices, for cuBLAS.
                upload(np.zeros(1, np.int64))
        found = _product("matmul", np.matmul, *batched)
    out = outs[0] if outs else out
    if out is None:
        return found
    if out.shape != found.shape:
        raise ValueError("Output array has an invalid size")
    if out.flags.c_contiguous and out.dtype == found.dtype and max(a.ndim, b.ndim) <= 2:
        np.copyto(out._a, found._a)  # cuBLAS wrote there.
    else:
        run_into("copy", np.asarray, (found,), {}, [out])
    return out


def dot(a: ndarray, b: ndarray, out: ndarray | None = None) -> ndarray:
    _of_arrays(a, b)
    if out is not None:
        if np.result_type(a.dtype, b.dtype) != out.dtype:
            raise ValueError("Not supported dtype combination.")
        if not out.flags.c_contiguous:
            raise ValueError("Output array must be C-contiguous")
    if a.ndim == 0 or b.ndim == 0:
        return operate("multiply", np.multiply, (a, b), out=out)
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ValueError("Axis dimension mismatch")
    if a.size == b.size == a.shape[-1]:
        return operate("dot", np.dot, (a, b), out=out, n=2)  # No cuBLAS: multiplied, summed.
    if out is None:
        return _product("matmul", np.dot, a, b)
    if np.result_type(a.dtype, b.dtype).kind in "fc":
        refuse_capture()
    return operate("matmul", np.dot, (_prepare(a), _prepare(b)), out=out)


def vdot(a: ndarray, b: ndarray) -> ndarray:
    _of_arrays(a, b)
    if a.size != b.size:
        raise ValueError("Axis dimension mismatch")
    return operate("vdot", np.vdot, (a, b), n=2)


def inner(a: ndarray, b: ndarray) -> ndarray:
    _of_arrays(a, b)
    return _product("matmul", np.inner, a, b)


def tensordot(a: ndarray, b: ndarray, axes: Any = 2) -> ndarray:
    _of_arrays(a, b)
    return _product("matmul", np.tensordot, a, b, axes=axes)
