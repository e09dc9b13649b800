"""A stand-in for CuPy over NumPy, as strict as CuPy and as late as CUDA allows."""

# ruff: noqa: F401 - a namespace
from __future__ import annotations

from typing import Any

import numpy as np
from numpy import (
    bool_,
    broadcast_shapes,
    complex64,
    complex128,
    complexfloating,
    dtype,
    e,
    euler_gamma,
    finfo,
    float16,
    float32,
    float64,
    floating,
    generic,
    iinfo,
    inexact,
    inf,
    int8,
    int16,
    int32,
    int64,
    int_,
    integer,
    intp,
    isdtype,
    issubdtype,
    nan,
    newaxis,
    number,
    pi,
    promote_types,
    signedinteger,
    uint8,
    uint16,
    uint32,
    uint64,
    uintp,
    unsignedinteger,
)

from cupy import cuda
from cupy._array import ndarray
from cupy._creation import (
    CREATION,
    arange,
    array,
    asanyarray,
    asarray,
    ascontiguousarray,
    asfortranarray,
    asnumpy,
    copy,
    eye,
    from_dlpack,
    identity,
    linspace,
    meshgrid,
    tri,
)
from cupy._functions import FUNCTIONS
from cupy._kernels import ElementwiseKernel, RawKernel, RawModule, ReductionKernel
from cupy._methods import attach
from cupy._methods import round_ as around
from cupy._methods import round_ as round
from cupy._more import putmask, take, take_along_axis, where
from cupy._products import dot, inner, matmul, tensordot, vdot
from cupy._ufuncs import UFUNCS, ufunc
from cupy.cuda import is_available

bool = np.bool_
globals().update(UFUNCS)
globals().update(FUNCTIONS)
globals().update(CREATION)
attach()

from cupy import fft, linalg  # noqa: E402 - they import names of this module

__version__ = "14.2.0"


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    return np.result_type(*(a.dtype if isinstance(a, ndarray) else a for a in arrays_and_dtypes))


def can_cast(from_: Any, to: Any, casting: str = "safe") -> Any:
    return np.can_cast(from_.dtype if isinstance(from_, ndarray) else from_, to, casting)


def shape(a: Any) -> tuple[int, ...]:
    return a.shape if isinstance(a, ndarray) else np.shape(a)


def ndim(a: Any) -> int:
    return a.ndim if isinstance(a, ndarray) else np.ndim(a)


def isscalar(element: Any) -> Any:
    return np.isscalar(element)


def get_array_module(*args: Any) -> Any:
    import cupy

    return cupy if any(isinstance(arg, ndarray) for arg in args) else np


def get_default_memory_pool() -> cuda.MemoryPool:
    return cuda.memory._default_pool


def get_default_pinned_memory_pool() -> cuda.PinnedMemoryPool:
    return cuda.pinned_memory._default_pool
