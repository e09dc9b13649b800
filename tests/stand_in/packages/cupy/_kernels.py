"""Kernels with a body in CUDA C++: their arguments are checked as CuPy does, and the body runs."""

from cupy._compile import CompileException
from cupy._elementwise import ElementwiseKernel
from cupy._raw import RawKernel, RawModule
from cupy._reduction import ReductionKernel

__all__ = ["CompileException", "ElementwiseKernel", "RawKernel", "RawModule", "ReductionKernel"]
