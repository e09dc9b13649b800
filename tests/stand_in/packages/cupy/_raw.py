"""Kernels whose source is complete, parameters included."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from cupy import _compile
from cupy._arguments import Call, Scalar, enqueue, is_array

MAX_THREADS = 1024
PLAIN = "the stand-in for CuPy compiles plain sources alone"


class RawKernel:
    """A kernel of a CUDA C++ source, launched over a grid of blocks."""

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        *,
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        jitify: Any = None,
    ) -> None:
        _check_type("code", code, str)
        _check_type("name", name, str)
        _check_type("options", options, tuple)
        if translate_cucomplex or enable_cooperative_groups or jitify or backend != "nvrtc":
            raise NotImplementedError(PLAIN)
        self.code = code
        self.name = self.__name__ = name
        self.options = options
        self.backend = backend
        self._names: tuple[str, ...] = (name,)

    def compile(self, log_stream: Any = None) -> None:
        self._module()

    def _module(self) -> _compile.Module:
        return _compile.compile_module(self.code, self._names, self.options)

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        _check_type("grid", grid, tuple)
        _check_type("block", block, tuple)
        grid, block = (tuple(max(1, n) for n in (*size, 1, 1)[:3]) for size in (grid, block))
        if np.prod(block) > MAX_THREADS or shared_mem > 48 * 1024:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        call = Call()
        call.values = [_value(arg) for arg in args]
        call.views = [arg._a for arg in args if is_array(arg)]
        run = functools.partial(self._module().call, self.name, grid, block, call, shared_mem)
        is_const = _const_pointers(self.code, self.name, len(args))
        arrays = [(arg, const) for arg, const in zip(args, is_const, strict=True) if is_array(arg)]
        enqueue(
            self.name,
            run,
            [arg for arg, const in arrays if const],
            [arg for arg, const in arrays if not const],
            stream,
        )


class RawModule:
    """The kernels of a CUDA C++ source, templates by their name expressions."""

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None,
        jitify: Any = None,
    ) -> None:
        _check_type("options", options, tuple)
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if code is None or translate_cucomplex or enable_cooperative_groups or jitify:
            raise NotImplementedError(PLAIN)
        self.code = code
        self.options = options
        self.backend = backend
        self.name_expressions = None if name_expressions is None else tuple(name_expressions)

    def compile(self, log_stream: Any = None) -> None:
        if self.name_expressions:
            self.get_function(self.name_expressions[0])

    def get_function(self, name: str) -> RawKernel:
        kernel = RawKernel(self.code, name, self.options, self.backend)
        if name in (self.name_expressions or ()):
            kernel._names = self.name_expressions
        kernel.compile()
        return kernel


def _check_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(
            f"Argument '{name}' has incorrect type (expected {kind.__name__}, "
            f"got {type(value).__name__})"
        )


def _value(arg: Any) -> np.ndarray:
    """Return what the kernel receives: an address, or a number in its own dtype."""
    if arg is None:
        return _compile.pack(0)
    if is_array(arg):
        return _compile.pack(arg._a.ctypes.data)
    if isinstance(arg, np.ndarray):
        if arg.size != 1:
            raise TypeError(
                f"You are trying to pass a numpy.ndarray of shape {arg.shape} as a kernel "
                "parameter. Only numpy.ndarrays of size one can be passed by value. If you meant "
                "to pass a pointer to __global__ memory, you need to pass a cupy.ndarray instead."
            )
        return arg.copy()
    if hasattr(arg, "ptr") and hasattr(arg, "mem"):
        return _compile.pack(arg.ptr)
    scalar = Scalar(arg)
    return np.array(scalar.value, scalar.dtype)


def _const_pointers(code: str, name: str, n: int) -> list[bool]:
    """Return for each parameter whether the kernel can only read through it."""
    plain = re.escape(name.partition("<")[0])
    found = re.search(rf"\b{plain}\s*\(([^)]*)\)\s*\{{", code)
    params = found[1].split(",") if found else []
    if len(params) != n:
        return [False] * n
    return [bool(re.search(r"\bconst\b[^*]*\*", param)) for param in params]
