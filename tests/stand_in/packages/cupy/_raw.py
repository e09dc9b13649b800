"""Kernels whose source is complete, parameters included."""

import functools
import re
from typing import Any

import numpy as np

from cupy import _compile
from cupy._arguments import Call, Scalar, enqueue, is_array

MAX_THREADS = 1024


class RawKernel:
    def __init__(self, code, name, options=(), backend="nvrtc") -> None:
        _check_type("code", code, str)
        _check_type("name", name, str)
        _check_type("options", options, tuple)
        if backend != "nvrtc":
            raise NotImplementedError("the stand-in for CuPy compiles plain sources alone")
        self.code = code
        self.name = self.__name__ = name
        self.options = options

    def __call__(self, grid, block, args: Any, *, shared_mem=0, stream=None) -> None:
        self.kernel(grid, block, args, shared_mem, stream)

    @property
    def kernel(self) -> "Function":
        return Function(self)


class Function:
    """A compiled kernel, which a cooperative launch runs in blocks that wait for each other."""

    def __init__(self, raw: RawKernel) -> None:
        self.code, self.name, self.options = raw.code, raw.name, raw.options

    def __call__(
        self, grid, block, args, shared_mem=0, stream=None, enable_cooperative_groups=False
    ) -> None:
        _check_type("grid", grid, tuple)
        _check_type("block", block, tuple)
        grid, block = (tuple(max(1, n) for n in (*size, 1, 1)[:3]) for size in (grid, block))
        if np.prod(block) > MAX_THREADS:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if shared_mem:
            raise NotImplementedError("the stand-in for CuPy has no dynamic shared memory")
        call = Call()
        call.values = [_value(arg) for arg in args]
        call.views = [arg._a for arg in args if is_array(arg)]
        kernel = _compile.compile_kernel(self.code, self.name, self.options)
        is_cooperative = bool(enable_cooperative_groups)
        run = functools.partial(kernel, grid, block, call, is_cooperative=is_cooperative)
        is_const = _const_pointers(self.code, self.name, len(args))
        arrays = [(arg, const) for arg, const in zip(args, is_const, strict=True) if is_array(arg)]
        reads, writes = ([a for a, const in arrays if const is kind] for kind in (True, False))
        enqueue(self.name, run, reads, writes, stream)


def _check_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(
            f"Argument '{name}' has incorrect type (expected {kind.__name__}, "
            f"got {type(value).__name__})"
        )


def _value(arg: Any) -> np.ndarray:
    """Return what the kernel receives: an address, or a number in its own dtype."""
    if is_array(arg):
        return _compile.pack(arg._a.ctypes.data)
    scalar = Scalar(arg)
    return np.array(scalar.value, scalar.dtype)


def _const_pointers(code: str, name: str, n: int) -> list[bool]:
    """Return for each parameter whether the kernel can only read through it."""
    found = re.search(rf"\b{name}\s*\(([^)]*)\)\s*\{{", code)
    params = found[1].split(",") if found else []
    if len(params) != n:
        return [False] * n
    return [bool(re.search(r"\bconst\b[^*]*\*", param)) for param in params]
