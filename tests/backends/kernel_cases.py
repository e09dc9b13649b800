"""What CuPy's kernels accept and refuse: run as a script, it prints the outcomes as JSON.

With the real wheel it stops at the device, which need not be there: what CuPy checks before that
is called alone.
"""

import contextlib
import json
import re

import cupy
import numpy as np  # noqa: F401 - in cases

IS_REAL = hasattr(cupy, "_core")
SCALE = ("T x, T factor", "T y", "y = x * factor", "scale")
DOT = ("T x, T y", "float64 z", "x * y", "a + b", "z = a", "0", "dot")


def array(dtype, shape=(2, 3)):
    if not IS_REAL:
        return cupy.zeros(shape, dtype)
    memory = cupy.cuda.UnownedMemory(4096, 4096, None, 0)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


def call(kernel, *args, **kwargs):
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


def scale(*args, source=SCALE, **kwargs):
    call(cupy.ElementwiseKernel(*source), *args, **kwargs)


def typed(dtype, value):
    scale(F4, value, source=(f"T x, {dtype} n", "T y", "y = x", "typed"))


def dot(*args, **kwargs):
    call(cupy.ReductionKernel(*DOT), *args, **kwargs)


def named(name, in_params="T x"):
    cupy.ElementwiseKernel(in_params, "T y", "y = x", name)


F4, F8, I4, I8 = map(array, ("float32", "float64", "int32", "int64"))
CODE = 'extern "C" __global__ void f(float* x) { x[0] = 1; }'
CASES = """
scale(F4, F4); scale(F4, array("float32", (3,))); scale(F4, 2.0, F4); scale(F4, F8); scale(F8, F4)
scale(F4, 2.0, F8); scale(I4, I8); scale(F4, 2.0); scale(F4, 2); scale(F4, True); scale(F4, 2j)
scale(F4, np.float64(2)); scale(F4, np.int32(2)); scale(F4, np.ones((2, 3), np.float32))
scale(F4, np.ones((), np.float32)); scale(F4, [1.0]); scale(F4, "1"); scale(F4, None)
scale(F4, 2.0, 3.0); scale(F4, 2.0, source=("T x, F factor", "T y", "y = x", "scale")); scale(F4)
scale(F4, 2.0, F4, 1); scale(F4, 2.0, width=3); scale(F4, 2.0, block_size=0)
typed("int64", 3); typed("int64", 3.5); typed("int64", np.float32(3))
typed("int64", float("nan")); typed("int32", 1 << 40); typed("uint8", -1); typed("int64", I8)
typed("int64", I4); typed("bool", True); typed("bool", 2); typed("float16", 1.5)
named("my kernel"); named("2nd"); named(""); named("k", "T i"); named("k", "x")
named("k", "float33 x"); named("k", "const T x"); named("k", "raw T x, int32 n")
dot(F4, F4); dot(F4, F8); dot(F4); dot(F4, F4, F4, F4); dot(F4, F4, dtype="f")
dot(F8, F8, F8, out=array("float64", ()))
cupy.ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "a b")
cupy.RawKernel(CODE, "f", ("-DA=1",)); cupy.RawKernel(code=CODE, name="f", options=())
cupy.RawKernel(CODE, "f", ["-DA=1"]); cupy.RawKernel(CODE, "f", flags=())
cupy.RawKernel(CODE.encode(), "f")
cupy.RawModule(code=CODE); cupy.RawModule(CODE); cupy.RawModule()
cupy.RawModule(code=CODE, options=["-DA=1"])
""".strip()


def outcome(case):
    try:
        exec(case)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


if __name__ == "__main__":
    print(json.dumps({case: outcome(case) for case in re.split("; |\n", CASES)}))
