"""Print what CuPy and nvmath offer, how it is called, and what kernels refuse, as JSON.

Run with the stand-in on the path and without it; `test_stand_in_names.py` compares the two.
"""

import contextlib
import enum
import importlib
import inspect
import json
import re
import types
from typing import Any

import cupy
import numpy as np  # noqa: F401 - in cases

IS_REAL = hasattr(cupy, "_core")
MODULES = (
    *("cupy", "cupy.linalg", "cupy.cuda", "cupy.cuda.device", "cupy.cuda.graph"),
    *("cupy.cuda.memory", "cupy.cuda.pinned_memory", "cupy.cuda.runtime", "cupy.cuda.stream"),
    *("cupyx", "nvmath", "nvmath.bindings.cublas", "nvmath.bindings.cublasLt"),
)
SHOWN = "__init__", "__enter__", "__exit__", "__cuda_stream__"
# What Python gives every class.
HIDDEN = {"__module__", "__slots__", "__annotations__", "__dict__", "__weakref__", "__hash__"}


def parameters(function: Any) -> str | None:
    """Return parameters and defaults, from the docstring where Cython hides them, else None."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        first = (getattr(function, "__doc__", None) or "").partition("\n")[0]
        found = re.fullmatch(r"[\w.]+\((.*)\)( -> .+)?", first)
        if found is None:
            return None
        # Without the types of Cython: ``_ndarray_base b, int axis=-1``.
        texts = [re.sub(r"^(?:[\w*]+ )+(?=\w)", "", text.strip()) for text in found[1].split(",")]
    else:
        empty = inspect.Parameter.empty
        plain = [p.replace(annotation=empty) for p in signature.parameters.values()]
        shown = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", str(inspect.Signature(plain)))
        # A function by its name, as its address differs.
        shown = re.sub(
            r"<(?:\w+ )*function (\w+)(?: at \w+)?>|<cyfunction (\w+)[^>]*>", r"\1\2", shown
        )
        texts = shown[1:-1].split(", ")
    return ", ".join(text for text in texts if text not in ("self", "cls", ""))


def described(thing: Any) -> dict[str, str | None]:
    """Return the parameters of a function, or of a class's methods; "" for what has none."""
    if type(thing).__name__ == "ufunc":
        return {"": f"{thing.nin} in, {thing.nout} out, {thing.name}"}
    if isinstance(thing, type) and issubclass(thing, enum.Enum):
        return {name: str(int(member)) for name, member in thing.__members__.items()}
    if isinstance(thing, type):
        kinds = [kind for kind in thing.__mro__[:-1] if kind.__module__ != "numpy"]
        names = {name for kind in kinds for name in vars(kind)}
        found: dict[str, str | None] = {"": ""}
        for name in names:
            if name in SHOWN or not name.startswith("_"):
                value = getattr(thing, name)
                found[f".{name}"] = parameters(value) if callable(value) else ""
        if thing.__name__ == "ndarray":
            operators = (
                {name for name in names if name.startswith("__")} - set(vars(object)) - HIDDEN
            )
            found |= {f".{name}": "" for name in operators}
            found[".__init__"] = parameters(getattr(thing, "_init", thing.__init__))
        return found
    if callable(thing):
        return {"": parameters(thing)}
    return {"": repr(thing) if isinstance(thing, int | float | None) else ""}


def is_offered(module: types.ModuleType, name: str) -> bool:
    """Whether a public name is one of the module; the stand-in imports others for itself."""
    thing = getattr(module, name)
    home = getattr(thing, "__module__", None) or module.__name__
    is_own = IS_REAL or home.startswith((module.__name__, "numpy"))
    return is_own and not name.startswith("_") and not inspect.ismodule(thing)


def offered() -> dict[str, str | None]:
    found = {}
    for module in map(importlib.import_module, MODULES):
        for name in vars(module):
            if is_offered(module, name):
                for key, value in described(getattr(module, name)).items():
                    found[f"{module.__name__}.{name}{key}"] = value
    return found


# --- kernels: the real ones stop at the device, so what CuPy checks before it is called alone -----


def array(dtype: str, shape: Any = (2, 3)) -> Any:
    if not IS_REAL:
        return cupy.zeros(shape, dtype)
    memory = cupy.cuda.UnownedMemory(4096, 4096, None, 0)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


def scale(*args: Any, more: str = "T factor", **kwargs: Any) -> None:
    kernel = cupy.ElementwiseKernel(f"T x, {more}", "T y", "y = x", "scale")
    if not IS_REAL:
        kernel(*args, **kwargs)
        return
    from cupy._core import _kernel, _scalar

    with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
        kernel(*args, **kwargs)
    values = [x if isinstance(x, cupy.ndarray) else _scalar.CScalar(x) for x in args]
    given = tuple(x.dtype if isinstance(x, cupy.ndarray) else None for x in values[:2])
    types, _, _ = _kernel._decide_params_type(
        kernel.in_params, kernel.out_params, given, tuple(x.dtype for x in values[2:])
    )
    for value, dtype in zip(values, types, strict=False):
        if not isinstance(value, cupy.ndarray):
            value.apply_dtype(dtype)
    if not all(isinstance(value, cupy.ndarray) for value in values[2:]):
        raise TypeError("Output arguments type must be cupy.ndarray")


def typed(dtype: str, value: Any) -> None:
    scale(F4, value, more=f"{dtype} n")


def named(name: str, in_params: str = "T x") -> None:
    cupy.ElementwiseKernel(in_params, "T y", "y = x", name)


F4, F8, I4, I8 = map(array, ("float32", "float64", "int32", "int64"))
CODE = 'extern "C" __global__ void f(float* x) { x[0] = 1; }'
CASES = """
scale(F4, F4); scale(F4, array("float32", (3,))); scale(F4, 2.0, F4); scale(F4, F8); scale(F8, F4)
scale(F4, 2.0, F8); scale(I4, I8); scale(F4, 2.0); scale(F4, 2); scale(F4, True); scale(F4, 2j)
scale(F4, np.float64(2)); scale(F4, np.int32(2)); scale(F4, np.ones((2, 3), np.float32))
scale(F4, np.ones((), np.float32)); scale(F4, [1.0]); scale(F4, "1"); scale(F4, None)
scale(F4, 2.0, 3.0); scale(F4, 2.0, more="F factor"); scale(F4)
scale(F4, 2.0, F4, 1); scale(F4, 2.0, width=3); scale(F4, 2.0, block_size=0)
typed("int64", 3); typed("int64", 3.5); typed("int64", np.float32(3))
typed("int64", float("nan")); typed("int32", 1 << 40); typed("uint8", -1); typed("int64", I8)
typed("int64", I4); typed("bool", True); typed("bool", 2); typed("float16", 1.5)
named("my kernel"); named("2nd"); named(""); named("k", "T i"); named("k", "x")
named("k", "float33 x"); named("k", "const T x"); named("k", "raw T x, int32 n")
cupy.RawKernel(CODE, "f", ("-DA=1",)); cupy.RawKernel(code=CODE, name="f", options=())
cupy.RawKernel(CODE, "f", ["-DA=1"]); cupy.RawKernel(CODE, "f", flags=())
cupy.RawKernel(CODE.encode(), "f")
""".strip()


def outcome(case: str) -> str:
    try:
        exec(case)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


if __name__ == "__main__":
    outcomes = {case: outcome(case) for case in re.split("; |\n", CASES)}
    print(json.dumps([offered(), outcomes]))
