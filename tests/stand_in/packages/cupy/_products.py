"""Products, which cuBLAS computes: no stream that is captured takes them."""

from typing import Any

import numpy as np

from cupy import _launch
from cupy._array import ndarray
from cupy._operations import check_operands, operate, upload
from cupy._signatures import define

MATMUL = """
matmul(*args, axes=None, axis=None, keepdims=False, casting='same_kind', dtype=None,\
 signature=None, order='K', out=None)
"""


def _product(a: ndarray, b: ndarray) -> ndarray:
    dtype = np.promote_types(a.dtype, b.dtype)
    if dtype.kind in "fc":
        message = "calling cuBLAS API during stream capture is currently unsupported"
        _launch.check_not_capturing(message)
    a, b = (x if x.dtype == dtype else x.astype(dtype) for x in (a, b))
    # It takes a copy of what is in neither order.
    a, b = (x if x.flags.forc else x.copy() for x in (a, b))
    return operate("matmul" if a.size and b.size else "memset", np.matmul, (a, b))


def _matmul(args: tuple[Any, ...], dtype: Any, out: Any, **settings: Any) -> ndarray:
    a, b = args
    check_operands(a, b)
    if not (isinstance(a, ndarray) and isinstance(b, ndarray)):
        raise TypeError("products take arrays of the device")
    if out is not None or dtype is not None:
        raise NotImplementedError("the stand-in's products make their results")
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("Scalar operands are not allowed, use '*' instead")
    if a.ndim > 2 or b.ndim > 2:
        if a.shape[:-2] != b.shape[:-2]:
            for _ in range(3):  # The addresses of the matrices, for cuBLAS.
                upload(np.zeros(1, np.int64))
        return _product(*(x if x.flags.c_contiguous else x.copy() for x in (a, b)))
    if a.shape[-1] != b.shape[0]:
        raise ValueError("Axis dimension mismatch")
    if a.size == b.size == a.shape[-1]:
        return operate("dot", np.matmul, (a, b), n=2)  # No cuBLAS: multiplied, summed.
    return _product(a, b)


matmul = define(MATMUL, lambda name: _matmul)["matmul"]
