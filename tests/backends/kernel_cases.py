"""What CuPy's kernels accept and refuse: run as a script, it prints the outcomes as JSON.

With the real wheel it stops at the device, which need not be there: what CuPy checks before that
is called alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

IS_REAL = hasattr(cupy, "_core")
SCALE = ("T x, T factor", "T y", "y = x * factor", "scale")


def array(dtype: str, shape: tuple[int, ...] = (2, 3)) -> Any:
    if not IS_REAL:
        return cupy.zeros(shape, dtype)
    memory = cupy.cuda.UnownedMemory(4096, 4096, None, 0)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


def call(kernel: Any, *args: Any, **kwargs: Any) -> None:
    if not IS_REAL:
        kernel(*args, **kwargs)
        return
    from cupy._core import _kernel, _scalar

    with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
        kernel(*args, **kwargs)
    values = [x if isinstance(x, cupy.ndarray) else _scalar.CScalar(x) for x in args]
    given, out = values[: kernel.nin], values[kernel.nin :]
    dtypes = [x.dtype if isinstance(x, cupy.ndarray) else None for x in given]
    types, _, _ = _kernel._decide_params_type(
        kernel.in_params, kernel.out_params, tuple(dtypes), tuple(x.dtype for x in out)
    )
    for value, dtype in zip(given, types, strict=True):
        if not isinstance(value, cupy.ndarray):
            value.apply_dtype(dtype)
    if not all(isinstance(value, cupy.ndarray) for value in out):
        raise TypeError("Output arguments type must be cupy.ndarray")


def elementwise(*args: Any, source: tuple[str, ...] = SCALE, **kwargs: Any) -> Callable[[], None]:
    return lambda: call(cupy.ElementwiseKernel(*source), *args, **kwargs)


def typed(dtype: str, value: Any) -> Callable[[], None]:
    source = (f"T x, {dtype} n", "T y", "y = x", "typed")
    return elementwise(array("float32"), value, source=source)


def reduction(*args: Any, **kwargs: Any) -> Callable[[], None]:
    source = ("T x, T y", "float64 z", "x * y", "a + b", "z = a", "0", "dot")
    return lambda: call(cupy.ReductionKernel(*source), *args, **kwargs)


def named(name: str, in_params: str = "T x", out_params: str = "T y") -> Callable[[], None]:
    return lambda: cupy.ElementwiseKernel(in_params, out_params, "y = x", name) and None


CODE = 'extern "C" __global__ void f(float* x) { x[0] = 1; }'
CASES: dict[str, Callable[[], Any]] = {
    "arrays of one dtype": elementwise(array("float32"), array("float32")),
    "arrays that broadcast": elementwise(array("float32"), array("float32", (3,))),
    "an output": elementwise(array("float32"), 2.0, array("float32")),
    "mixed dtypes": elementwise(array("float32"), array("float64")),
    "mixed dtypes, the other first": elementwise(array("float64"), array("float32")),
    "mixed with the output": elementwise(array("float32"), 2.0, array("float64")),
    "mixed integers": elementwise(array("int32"), array("int64")),
    "a Python float": elementwise(array("float32"), 2.0),
    "a Python int": elementwise(array("float32"), 2),
    "a Python bool": elementwise(array("float32"), True),
    "a Python complex": elementwise(array("float32"), 2j),
    "a wider NumPy number": elementwise(array("float32"), np.float64(2)),
    "a NumPy integer": elementwise(array("float32"), np.int32(2)),
    "a NumPy array": elementwise(array("float32"), np.ones((2, 3), np.float32)),
    "a 0-d NumPy array": elementwise(array("float32"), np.ones((), np.float32)),
    "a list": elementwise(array("float32"), [1.0]),
    "a string": elementwise(array("float32"), "1"),
    "None": elementwise(array("float32"), None),
    "a number as output": elementwise(array("float32"), 2.0, 3.0),
    "a letter of numbers alone": elementwise(
        array("float32"), 2.0, source=("T x, F factor", "T y", "y = x", "scale")
    ),
    "too few": elementwise(array("float32")),
    "too many": elementwise(array("float32"), 2.0, array("float32"), 1),
    "an unknown keyword": elementwise(array("float32"), 2.0, width=3),
    "no threads": elementwise(array("float32"), 2.0, block_size=0),
    "a typed parameter": typed("int64", 3),
    "a typed parameter, of float": typed("int64", 3.5),
    "a typed parameter, of a whole NumPy float": typed("int64", np.float32(3)),
    "a typed parameter, of NaN": typed("int64", float("nan")),
    "a typed parameter, too large": typed("int32", 1 << 40),
    "a typed parameter, negative": typed("uint8", -1),
    "a typed parameter, of an array": typed("int64", array("int64")),
    "a typed parameter, of another array": typed("int64", array("int32")),
    "a typed parameter of bool": typed("bool", True),
    "a typed parameter of bool, of int": typed("bool", 2),
    "a typed parameter of half": typed("float16", 1.5),
    "a kernel's name with a space": named("my kernel"),
    "a kernel's name with a digit first": named("2nd"),
    "no kernel's name": named(""),
    "a parameter i": named("k", "T i"),
    "a parameter without a dtype": named("k", "x"),
    "an unknown dtype": named("k", "float33 x"),
    "an unknown word": named("k", "const T x"),
    "raw": named("k", "raw T x, int32 n"),
    "products": reduction(array("float32"), array("float32")),
    "products, mixed": reduction(array("float32"), array("float64")),
    "products, too few": reduction(array("float32")),
    "products, too many": reduction(*(array("float32"),) * 4),
    "products, an unknown keyword": reduction(array("float32"), array("float32"), dtype="f"),
    "products, the output twice": reduction(*(array("float64"),) * 3, out=array("float64", ())),
    "products, a bad name": lambda: cupy.ReductionKernel(
        "T x", "T y", "x", "a + b", "y = a", "0", "a b"
    ),
    "a raw kernel": lambda: cupy.RawKernel(CODE, "f", ("-DA=1",)),
    "a raw kernel, by keywords": lambda: cupy.RawKernel(code=CODE, name="f", options=()),
    "a raw kernel, options in a list": lambda: cupy.RawKernel(CODE, "f", ["-DA=1"]),
    "a raw kernel, an unknown keyword": lambda: cupy.RawKernel(CODE, "f", flags=()),
    "a raw kernel, code in bytes": lambda: cupy.RawKernel(CODE.encode(), "f"),
    "a raw module": lambda: cupy.RawModule(code=CODE),
    "a raw module, by position": lambda: cupy.RawModule(CODE),
    "a raw module of nothing": lambda: cupy.RawModule(),
    "a raw module, options in a list": lambda: cupy.RawModule(code=CODE, options=["-DA=1"]),
}


def outcome(case: Callable[[], Any]) -> str:
    try:
        case()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


if __name__ == "__main__":
    print(json.dumps({name: outcome(case) for name, case in CASES.items()}))
