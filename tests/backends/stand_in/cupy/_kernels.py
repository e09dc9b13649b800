"""Kernels with a body in CUDA C++: their arguments are checked as CuPy does, and the body runs."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import cupy
from cupy import _compile
from cupy._launch import launch, queue_at, state

C_TYPES = {
    "float64": "double",
    "float32": "float",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int64": "long long",
    "int32": "int",
    "int16": "short",
    "int8": "signed char",
    "uint64": "unsigned long long",
    "uint32": "unsigned int",
    "uint16": "unsigned short",
    "uint8": "unsigned char",
    "bool": "bool",
}


class Parameter(NamedTuple):
    """A parameter of a kernel: ``"raw T x"``."""

    name: str
    ctype: str
    dtype: np.dtype | None
    raw: bool
    is_const: bool


class Scalar:
    """A number that a launch passes by value; a dtype is given to it by the kernel."""

    def __init__(self, value: Any) -> None:
        if isinstance(value, np.generic):
            self.dtype = value.dtype
        elif type(value) in (bool, int, float):
            self.dtype = np.asarray(value).dtype
        else:
            raise TypeError(f"Unsupported type {type(value)}")
        self.value = value


@functools.cache
def _parameters(text: str, is_const: bool) -> tuple[Parameter, ...]:
    return tuple(_parameter(part, is_const) for part in text.strip().split(",")) if text else ()


def _parameter(text: str, is_const: bool) -> Parameter:
    words = text.split()
    if len(words) < 2:
        raise Exception(f"Syntax error: {text}")
    *keywords, kind, name = words
    dtype = None if len(kind) == 1 else np.dtype(kind)
    for keyword in keywords:
        if keyword not in ("raw", "_non_const"):
            raise Exception(f'Unknown keyword "{keyword}"')
    ctype = kind if dtype is None else C_TYPES[dtype.name]
    return Parameter(
        name, ctype, dtype, "raw" in keywords, is_const and "_non_const" not in keywords
    )


def _check_name(name: str) -> None:
    if not re.match("^[a-zA-Z_][a-zA-Z_0-9]*$", name):
        raise ValueError(f'Invalid kernel name: "{name}"')


def _is_array(arg: Any) -> bool:
    return isinstance(arg, cupy.ndarray)


def _arguments(args: Iterable[Any]) -> list[Any]:
    for arg in args:
        if _is_array(arg) and arg.device.id != state.device:
            raise ValueError(
                f"The device where the array resides ({arg.device.id}) is different from the "
                f"current device ({state.device}). Peer access is unavailable between these "
                "devices."
            )
    return [arg if _is_array(arg) else Scalar(arg) for arg in args]


def _broadcast(
    args: Sequence[Any], params: Sequence[Parameter], has_size: bool
) -> tuple[list[Any], tuple[int, ...]]:
    """Return views of the arguments' memory, in which what is not raw has one shape."""
    views = [arg._a if _is_array(arg) else arg for arg in args]
    looped = [
        i for i, view in enumerate(views) if isinstance(view, np.ndarray) and not params[i].raw
    ]
    if has_size and looped:
        raise ValueError("Specified 'size' can be used only if all of the ndarray are 'raw'.")
    if not has_size and not looped:
        raise ValueError("Loop size is undecided.")
    shape = ()
    try:
        shape = np.broadcast_shapes(*(views[i].shape for i in looped))
    except ValueError:
        shapes = " ".join(str(args[i].shape) if i in looped else "()" for i in range(len(args)))
        raise ValueError(f"operands could not be broadcast together with shapes {shapes}") from None
    for i in looped:
        views[i] = np.broadcast_to(views[i], shape, subok=False)
    return views, shape


def _decide_types(
    params_in: Sequence[Parameter],
    params_out: Sequence[Parameter],
    dtypes_in: Sequence[np.dtype | None],
    dtypes_out: Sequence[np.dtype],
) -> tuple[list[np.dtype], list[np.dtype], dict[str, np.dtype]]:
    """Return the dtypes of all parameters, and those of the placeholders such as T."""
    known: dict[str, np.dtype] = {}
    given = [*zip(params_out, dtypes_out, strict=False), *zip(params_in, dtypes_in, strict=True)]
    for param, dtype in given:
        if dtype is None:
            continue
        if param.dtype is not None:
            if dtype != param.dtype:
                raise TypeError(f"Type is mismatched. {param.name} {dtype} {param.dtype}")
        elif known.setdefault(param.ctype, dtype) != dtype:
            raise TypeError(
                f"Type is mismatched. {param.name} {dtype} {known[param.ctype]} {param.ctype}"
            )
    types = [known[p.ctype] if p.dtype is None else p.dtype for p in (*params_in, *params_out)]
    return types[: len(params_in)], types[len(params_in) :], known


def _outputs(
    out: Sequence[Any],
    params: Sequence[Parameter],
    dtypes: Sequence[np.dtype],
    shape: tuple[int, ...],
    has_size: bool,
) -> list[Any]:
    if not out:
        if any(param.raw for param in params) and not has_size:
            raise ValueError("Output array size is Undecided")
        return [cupy.empty(shape, dtype) for dtype in dtypes]
    for array, param in zip(out, params, strict=True):
        if not _is_array(array):
            raise TypeError("Output arguments type must be cupy.ndarray")
        if not param.raw and array.shape != shape:
            raise ValueError("Out shape is mismatched")
    return list(out)


class _Call:
    """The parameters of a C++ function, the bytes of its arguments, and what they point to."""

    def __init__(self) -> None:
        self.declared: list[str] = []
        self.values: list[np.ndarray] = []
        self.views: list[np.ndarray] = []

    def add(self, param: Parameter, arg: Any, dtype: np.dtype) -> None:
        const = "const " if param.is_const else ""
        name = param.name
        if isinstance(arg, Scalar):
            kind = C_TYPES[dtype.name]
            self.values.append(np.array(arg.value, dtype))
        else:
            flag = int(arg.flags.c_contiguous)
            kind = f"CArray<{C_TYPES[arg.dtype.name]}, {arg.ndim}, {flag}, 1>"
            self.values.append(_compile.pack(arg.ctypes.data, arg.size, *arg.shape, *arg.strides))
            self.views.append(arg)
            name = name if param.raw else f"_raw_{name}"
        self.declared.append(f"{const}{kind} {name}")

    def add_indexer(self, name: str, shape: Sequence[int]) -> None:
        self.declared.append(f"CIndexer<{len(shape)}, 1> {name}")
        self.values.append(_compile.pack(math.prod(shape), *shape, *(0 for _ in shape)))


def _flatten(
    views: list[Any], params: Sequence[Parameter], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Flatten what is not raw, in place, if all of it is C-contiguous; return the new shape."""
    looped = [i for i, v in enumerate(views) if isinstance(v, np.ndarray) and not params[i].raw]
    if len(shape) < 2 or not looped or not all(views[i].flags.c_contiguous for i in looped):
        return shape
    for i in looped:
        views[i] = views[i].reshape(-1)
    return (math.prod(shape),)


def _enqueue(
    name: str,
    run: Callable[[], None],
    reads: Iterable[Any],
    writes: Iterable[Any],
    stream: Any,
) -> None:
    launch(
        name,
        run,
        reads=[array._memory for array in reads],
        writes=[array._memory for array in writes],
        stream=None if stream is None else queue_at(stream.ptr),
    )


def _typedefs(types: dict[str, np.dtype]) -> str:
    return "".join(f"typedef {C_TYPES[t.name]} {name};\n" for name, t in sorted(types.items()))


class ElementwiseKernel:
    """A loop over broadcast arrays, whose body is C++."""

    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        reduce_dims: bool = True,
        preamble: str = "",
        no_return: bool = False,
        return_tuple: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_name(name)
        if unknown := set(kwargs) - {"loop_prep", "after_loop", "options"}:
            raise TypeError(f"Wrong arguments {unknown}")
        self.in_params = _parameters(in_params, True)
        self.out_params = _parameters(out_params, False)
        self.params = self.in_params + self.out_params
        self.nin = len(self.in_params)
        self.nout = len(self.out_params)
        self.nargs = self.nin + self.nout
        self.operation = operation
        self.name = self.__name__ = name
        self.reduce_dims = reduce_dims
        self.preamble = preamble
        self.no_return = no_return
        self.return_tuple = return_tuple
        self.kwargs = kwargs
        if any(param.name == "i" for param in self.params):
            raise ValueError("Can not use 'i' as a parameter name")

    def __call__(
        self, *args: Any, size: int = -1, stream: Any = None, block_size: int = 128, **kwargs: Any
    ) -> Any:
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if block_size <= 0:
            raise ValueError("block_size must be greater than zero")
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {self.nin} or "
                f"{self.nargs} (with outputs), but given {len(args)}."
            )
        given = _arguments(args)
        views, shape = _broadcast(given, self.params, size != -1)
        in_types, out_types, types = _decide_types(
            self.in_params,
            self.out_params,
            [arg.dtype if _is_array(arg) else None for arg in given[: self.nin]],
            [arg.dtype for arg in given[self.nin :]],
        )
        shape = (size,) if size != -1 else shape
        out = _outputs(given[self.nin :], self.out_params, out_types, shape, size != -1)
        views = views[: self.nin] + [array._a for array in out]
        if 0 not in shape:
            reads = [arg for arg in given[: self.nin] if _is_array(arg)]
            self._launch(views, in_types + out_types, types, shape, reads, out, stream, block_size)
        if self.no_return:
            return None
        return out[0] if self.nout == 1 and not self.return_tuple else tuple(out)

    def _launch(
        self,
        views: list[Any],
        dtypes: Sequence[np.dtype],
        types: dict[str, np.dtype],
        shape: tuple[int, ...],
        reads: Sequence[Any],
        writes: Sequence[Any],
        stream: Any,
        block_size: int,
    ) -> None:
        if self.reduce_dims:
            shape = _flatten(views, self.params, shape)
        call = _Call()
        for param, view, dtype in zip(self.params, views, dtypes, strict=True):
            call.add(param, view, dtype)
        call.add_indexer("_ind", shape)
        elements = "\n".join(
            f"{'const ' * p.is_const}{p.ctype} &{p.name} = _raw_{p.name}[_ind.get()];"
            for p, view in zip(self.params, views, strict=True)
            if isinstance(view, np.ndarray) and not p.raw
        )
        code = f"""{_typedefs(types)}{self.preamble}
extern "C" __global__ void {self.name}({", ".join(call.declared)}) {{
  {self.kwargs.get("loop_prep", "")};
  CUPY_FOR(i, _ind.size()) {{
    _ind.set(i);
    {elements}
    {self.operation};
  }}
  {self.kwargs.get("after_loop", "")};
}}"""
        module = _compile.compile_module(code, (self.name,), self.kwargs.get("options", ()))
        size = math.prod(shape)
        grid, block = (-(-size // block_size), 1, 1), (min(block_size, size), 1, 1)
        run = functools.partial(module.call, self.name, grid, block, call)
        _enqueue(self.name, run, reads, writes, stream)
