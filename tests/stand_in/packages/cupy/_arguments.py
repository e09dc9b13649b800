"""Arguments of kernels: checked as CuPy does, and packed as bytes."""

import functools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import cupy
from cupy import _compile, _launch
from cupy._memory import Memory, block_at

# An array of as many unsigned integers of 64 bits may be a table of addresses.
LONGEST_TABLE = 1 << 16

_INTEGERS = {"int64": "long long", "int32": "int", "int16": "short", "int8": "char"}
C_TYPES = {"float64": "double", "float32": "float", "float16": "float16", "bfloat16": "bfloat16"}
C_TYPES |= _INTEGERS | {f"u{name}": f"unsigned {kind}" for name, kind in _INTEGERS.items()}
C_TYPES |= {"int8": "signed char", "bool": "bool"}


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
        elif type(value) in (bool, int, float, complex):
            self.dtype = np.asarray(value).dtype
        else:
            raise TypeError(f"Unsupported type {type(value)}")
        self.value = value


@functools.cache
def parameters(text: str, is_const: bool) -> tuple[Parameter, ...]:
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
    is_const = is_const and "_non_const" not in keywords
    return Parameter(name, ctype, dtype, "raw" in keywords, is_const)


class Kernel:
    def __init__(self, name: str, in_params: str, out_params: str) -> None:
        if not re.match("^[a-zA-Z_][a-zA-Z_0-9]*$", name):
            raise ValueError(f'Invalid kernel name: "{name}"')
        self.name = name
        self.in_params = parameters(in_params, True)
        self.out_params = parameters(out_params, False)
        self.params = self.in_params + self.out_params
        self.nin, self.nout, self.nargs = (
            len(params) for params in (self.in_params, self.out_params, self.params)
        )


def is_array(arg: Any) -> bool:
    return isinstance(arg, cupy.ndarray)


def preprocess(args: Iterable[Any]) -> list[Any]:
    current = _launch.state.device
    for arg in args:
        if is_array(arg) and (device := arg._memory.device_id) != current:
            raise ValueError(
                f"The device where the array resides ({device}) is different from the current "
                f"device ({current}). Peer access is unavailable between these devices."
            )
    return [arg if is_array(arg) else Scalar(arg) for arg in args]


def broadcast(args, params, has_size) -> tuple[list[Any], tuple[int, ...]]:
    """Return views of the arguments' memory, in which what is not raw has one shape."""
    views = [arg._a if is_array(arg) else arg for arg in args]
    looped = _looped(views, params)
    if has_size and looped:
        raise ValueError("Specified 'size' can be used only if all of the ndarray are 'raw'.")
    if not has_size and not looped:
        raise ValueError("Loop size is undecided.")
    shape = np.broadcast_shapes(*(views[i].shape for i in looped))
    for i in looped:
        views[i] = np.broadcast_to(views[i], shape, subok=False)
    return views, shape


def _looped(views: list[Any], params: Sequence[Parameter]) -> list[int]:
    return [i for i, v in enumerate(views) if isinstance(v, np.ndarray) and not params[i].raw]


def decide_types(kernel, dtypes_in, dtypes_out) -> tuple[list[np.dtype], dict[str, np.dtype]]:
    """Return the dtypes of all parameters, and those of the placeholders such as T."""
    known: dict[str, np.dtype] = {}
    given = [
        *zip(kernel.out_params, dtypes_out, strict=False),
        *zip(kernel.in_params, dtypes_in, strict=True),
    ]
    for param, dtype in given:
        if dtype is None:
            continue
        expected, kind = param.dtype, ""
        if expected is None:
            expected, kind = known.setdefault(param.ctype, dtype), f" {param.ctype}"
        if dtype != expected:
            raise TypeError(f"Type is mismatched. {param.name} {dtype} {expected}{kind}")
    return [known[p.ctype] if p.dtype is None else p.dtype for p in kernel.params], known


def outputs(out: list[Any], params: Sequence[Parameter], dtypes, shape, has_size) -> list[Any]:
    if not out:
        if any(param.raw for param in params) and not has_size:
            raise ValueError("Output array size is Undecided")
        return [cupy.empty(shape, dtype) for dtype in dtypes]
    for array, param in zip(out, params, strict=True):
        if not is_array(array):
            raise TypeError("Output arguments type must be cupy.ndarray")
        if not param.raw and array.shape != shape:
            raise ValueError("Out shape is mismatched")
    return out


class Call:
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


def flatten(views: list[Any], params: Sequence[Parameter], shape: Any) -> tuple[int, ...]:
    """Flatten what is not raw, in place, if all of it is C-contiguous; return the new shape."""
    looped = _looped(views, params)
    if len(shape) < 2 or not looped or not all(views[i].flags.c_contiguous for i in looped):
        return shape
    for i in looped:
        views[i] = views[i].reshape(-1)
    return (math.prod(shape),)


def enqueue(name, run, reads, writes, stream) -> None:
    """Launch what reads and writes arrays, and may write wherever a table of addresses points."""
    queue = _launch.current_queue() if stream is None else _launch.queue_at(stream.ptr)
    read, written = list(reads), list(writes)
    _launch.launch(
        name,
        run,
        reads=[array._memory for array in read],
        writes=[array._memory for array in written] + _pointed_to((*read, *written), queue),
        stream=queue,
    )


def _pointed_to(arrays: Iterable[Any], queue: Any) -> list[Memory]:
    blocks = {}
    for array in arrays:
        if array.dtype == np.uint64 and array.size <= LONGEST_TABLE:
            if array._memory.block.n_pending:
                queue.flush()
            found = map(block_at, array._a.ravel().tolist())
            blocks.update((id(block), block) for block in found if block is not None)
    memories = [Memory() for _ in blocks]
    for memory, block in zip(memories, blocks.values(), strict=True):
        memory.block = block
    return memories


def typedefs(types: dict[str, np.dtype]) -> str:
    return "".join(f"typedef {C_TYPES[t.name]} {name};\n" for name, t in sorted(types.items()))


def elements(params: Sequence[Parameter], views: Sequence[Any], indexer: str) -> str:
    """Return the declarations of the current elements of what is not raw."""
    return "\n".join(
        f"{'const ' * p.is_const}{p.ctype} &{p.name} = _raw_{p.name}[{indexer}.get()];"
        for p, view in zip(params, views, strict=True)
        if isinstance(view, np.ndarray) and not p.raw
    )
