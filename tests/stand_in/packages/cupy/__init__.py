"""A stand-in for CuPy over NumPy, as strict as CuPy and as late as CUDA allows.

It cannot show races between blocks, occupancy, misaligned addresses, the order of streams on a busy
GPU, and how long anything takes: see the README.
"""

# ruff: noqa: F401 - a namespace
from typing import Any as _Any

import numpy as _np

from cupy import cuda
from cupy._array import ndarray
from cupy._creation import CREATION as _CREATION
from cupy._creation import arange, array, asarray, ascontiguousarray, asnumpy, eye, from_dlpack
from cupy._elementwise import ElementwiseKernel
from cupy._functions import FUNCTIONS as _FUNCTIONS
from cupy._indexing import take
from cupy._methods import attach as _attach
from cupy._more import take_along_axis, where
from cupy._products import matmul
from cupy._raw import RawKernel
from cupy._ufuncs import UFUNCS as _UFUNCS
from cupy._ufuncs import ufunc
from cupy.cuda import is_available

# What CuPy takes from NumPy.
_NUMPYS = """
bool_ broadcast_shapes complex64 complex128 complexfloating dtype e finfo float16 float32 float64
floating generic iinfo inexact inf int8 int16 int32 int64 integer intp isdtype issubdtype nan
newaxis number pi signedinteger uint8 uint16 uint32 uint64 unsignedinteger
"""
globals().update({_name: getattr(_np, _name) for _name in _NUMPYS.split()})
bool = _np.bool_
globals().update(_UFUNCS)
globals().update(_FUNCTIONS)
globals().update(_CREATION)
_attach()

from cupy import fft, linalg  # noqa: E402 - they import names of this module

__version__ = "14.2.0"


def result_type(*arrays_and_dtypes: _Any) -> _np.dtype:
    return _np.result_type(*(a.dtype if isinstance(a, ndarray) else a for a in arrays_and_dtypes))


def get_default_memory_pool() -> cuda.MemoryPool:
    return cuda.memory._default_pool
