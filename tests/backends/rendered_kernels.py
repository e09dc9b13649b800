"""The sources of all kernels of CuPy's backend, compiled by NVRTC, which needs no GPU.

    python tests/backends/rendered_kernels.py

prints registers, spills and shared memory of each kernel on an H100. It needs CuPy with NVRTC.
"""

import contextlib
import importlib
import itertools
import pkgutil
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from io import StringIO
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from mlp_xp.compiler import Layout
from mlp_xp.nn import losses
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, Lion, RMSprop

# The letters of an ElementwiseKernel stand for numbers, indices and data of any dtype.
FLOATS, INTEGERS = ("float32", "float64"), ("int32", "int64")
DTYPES = {"T": FLOATS, "F": FLOATS, "I": INTEGERS}
DTYPES |= {"X": ("bool", "uint8", *INTEGERS, "float16", *FLOATS)}
EACH_TARGET = [losses.BinaryCrossEntropy(0.1), losses.BinaryFocal(), losses.SquaredError()]
EACH_TARGET += [losses.AbsoluteError(), losses.Huber(), losses.Quantile(0.3), losses.Poisson()]
RULES = (Adam(), AdamW(), Lion(), RMSprop(), RMSprop(momentum=0.9), BetaLasso())
NDARRAY, INDEXER, SCALAR = 1, 2, 3


class Unit(NamedTuple):
    """A source with its options, the names of the kernels in it, and of those with doubles."""

    code: str
    options: tuple[str, ...]
    names: tuple[str, ...]
    of_doubles: frozenset[str]


def all_units() -> list[Unit]:
    """Return all kernels in one program for each of their options.

    Most of the time goes into headers, and what NVRTC has built in.
    """
    import cupy
    from cupy._core import core

    import mlp_xp.backends._cupy as package
    from mlp_xp.backends._cupy.kernels.rendering import every_kernel

    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    print_formulas()
    codes: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for kernel in every_kernel():
        if isinstance(kernel, cupy.ElementwiseKernel):
            of_options = codes[kernel.kwargs.get("options", ())]
            of_options.update(renderings(kernel, len(of_options)))
        else:
            assert isinstance(kernel, cupy.RawKernel), kernel
            of_options = codes[kernel.options]
            number = len(of_options)
            name = f"{kernel.name}_{number}"  # Kernels for different dtypes have the same name.
            code = re.sub(rf"\b{kernel.name}\b", name, kernel.code)
            of_options[name] = apart(code, kernel.name, number)
    headers = "".join(f"#include <{header}>\n" for header in core._cupy_header_list)
    return [
        Unit(
            headers + "".join(found.values()),
            options,
            tuple(found),
            frozenset(name for name, code in found.items() if "double" in code),
        )
        for options, found in codes.items()
    ]


class Made(Exception):  # noqa: N818 - no error
    """Raised instead of a launch."""


def print_formulas() -> None:
    """Print the kernels of all formulas, without launching any."""
    from mlp_xp.backends._cupy.kernels import fusion, layers, losses, update
    from mlp_xp.nn.layers import ACTIVATIONS, Norm
    from mlp_xp.nn.losses import Gaussian, Quantile, SoftmaxCrossEntropy, SoftmaxFocal

    def make(owner: Any, key: Any, arguments: Any, compile_function: Any) -> None:
        compile_function()
        raise Made

    def show(function: Any, *arguments: Any, **options: Any) -> None:
        with contextlib.suppress(Made):
            function(*arguments, **options)
            raise AssertionError(function)

    for dtype in map(np.dtype, FLOATS):
        with mock.patch.object(layers, "fused", make), mock.patch.object(losses, "fused", make):
            for width in (8, 100, 2000):  # The width determines how many threads share a row.
                x, vector, of_rows = (Layout(s, dtype.name) for s in ((20, width), (width,), (20,)))
                norm = Norm(vector, vector)
                show(layers.layer_norm, norm, x, xp=None)
                for weights in (None, of_rows):
                    show(layers.batch_norm, norm, x, weights, xp=None)
                    for loss in [SoftmaxCrossEntropy(0.1), SoftmaxFocal(), *EACH_TARGET]:
                        show(losses.loss, loss, x, x, weights, xp=None)
                    for loss in (Gaussian(), Quantile((0.3, 0.7))):
                        outputs = Layout((20, 2 * width), dtype.name)
                        show(losses.loss, loss, outputs, x, weights, xp=None)
                    for integer in ("uint8", "int32", "int64"):
                        labels = Layout((20,), integer)
                        show(losses.loss, SoftmaxCrossEntropy(), x, labels, weights, xp=None)
                        show(losses.mean_accuracy, SoftmaxFocal(), x, labels, weights, xp=None)
                    show(losses.mean_accuracy, EACH_TARGET[0], x, x, weights, xp=None)
            for name in ACTIVATIONS:
                show(layers.activate, name, x, xp=None)
            show(layers.dropout, x, Layout((), "int32"), 0.5, xp=None)
            number = Layout((), dtype.name)
            show(losses.accumulate, number, number, number, number)
        fusion._total((1000,), dtype.name)
        update._average_loop(dtype.name).kernel((0,) * 64)
        for loop in update._clip_loops(dtype.name, 1.0):
            loop.kernel((0, 0))
    for dtypes in (("float32",) * 2, ("float64",) * 2, ("float64", "float32")):
        for rule in (SGD(0.0), SGD(), SGD(nesterov=True), *RULES):
            given = *dtypes, *(dtypes[:1] * len(rule.state_type._fields))
            for l2 in (False, True):
                numbers = update._Numbers((0, 1), (), l2)
                found = [update._trace_rule(rule, k, given, numbers) for k in ("matrix", "vector")]
                formulas = tuple(rule.formula for rule in found)
                update._update_loop(given, formulas).kernel((0, 1))
    update._update_loop(given, formulas).kernel((0, 1) * 32)


def apart(code: str, title: str, number: int) -> str:
    """Return code in a C++ namespace, so that its types do not clash with other kernels' types."""
    includes = "".join(re.findall(r"^ *#include.*\n", code, re.MULTILINE))
    code = re.sub(r"^ *#include.*\n", "", code, flags=re.MULTILINE)
    defined = re.findall(r"^#define (\w+)", code, re.MULTILINE)
    macros = "".join(f"#undef {name}\n" for name in defined)
    return f'{includes}namespace _{number} {{\n#line 1 "{title}"\n{code}\n}}\n{macros}'


def renderings(kernel: Any, first: int) -> Iterator[tuple[str, str]]:
    """Yield names and sources that CuPy makes of a kernel for dtypes and layouts."""
    from cupy._core import _kernel

    letters = sorted({p.ctype for p in (*kernel.in_params, *kernel.out_params) if p.dtype is None})
    assert set(letters) <= set(DTYPES), f"{kernel.name}: list the dtypes of {letters} in this test"
    dtypes = itertools.product(*(DTYPES[letter] for letter in letters))
    for number, (given, layout) in enumerate(itertools.product(dtypes, LAYOUTS), first):
        types = {letter: np.dtype(dtype) for letter, dtype in zip(letters, given, strict=True)}
        name = f"{kernel.name}_{number}"
        given = tuple(arguments(kernel, types, layout)), _kernel._TypeMap(tuple(types.items()))
        own = kernel.params, kernel.operation, name, kernel.preamble
        code = _kernel._get_elementwise_kernel_code(*given, *own, **kernel.kwargs)
        title = f"{kernel.name}, {layout}, {' '.join(f'{k}={v}' for k, v in types.items())}"
        yield name, apart(code, title, number)


LAYOUTS = ("contiguous", "strided", "numbers")


def arguments(kernel: Any, types: dict[str, np.dtype], layout: str) -> Iterator[Any]:
    """Yield what CuPy knows of the arguments: arrays, or numbers for inputs that may be these."""
    import cupy
    from cupy._core import _carray, _kernel, _scalar

    ndim, is_contiguous = (2, False) if layout == "strided" else (1, True)
    for parameter in kernel.params[:-1]:
        dtype = types.get(parameter.ctype, parameter.dtype)
        if layout == "numbers" and parameter in kernel.in_params and not parameter.raw:
            yield _kernel._ArgInfo(SCALAR, _scalar.CScalar, dtype, 0, True, True)
        else:
            kind = NDARRAY, cupy.ndarray
            yield _kernel._ArgInfo(*kind, dtype, ndim, is_contiguous, is_contiguous)
    yield _kernel._ArgInfo(INDEXER, _carray.Indexer, None, ndim, True, is_contiguous)


class Resources(NamedTuple):
    """A kernel's resources: registers per thread, and bytes per thread or, if shared, per block."""

    kernel: str
    registers: int
    spills: int
    stack: int
    shared: int


def compiled(unit: Unit, architecture: int) -> tuple[bytes, list[Resources], list[str]]:
    """Return the binary of a unit, what ptxas says of its kernels, and all warnings."""
    from cupy._core import core
    from cupy.cuda import compiler

    program = compiler._NVRTCProgram(unit.code, f"{unit.names[0]}.cu", method="cubin")
    options = core.assemble_cupy_compiler_options(unit.options)
    machine = (f"-arch=sm_{architecture}", "--device-as-default-execution-space", "-ftz=true")
    log = StringIO()
    binary, _ = program.compile((*options, *machine, "--ptxas-options=-v"), log)
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        log.getvalue(),
        re.DOTALL,
    )
    rows = []
    for name, stack, stores, loads, registers, more in found:
        shared = re.search(r"(\d+) bytes smem", more)
        n_bytes = int(stores) + int(loads), int(stack), int(shared[1]) if shared else 0
        rows.append(Resources(name, int(registers), *n_bytes))
    return binary, rows, re.findall(r"^.*warning #.*$", log.getvalue(), re.MULTILINE)


def main() -> None:
    try:
        from cupy_backends.cuda.libs import nvrtc

        version = ".".join(map(str, nvrtc.getVersion()))
        units = all_units()
    except Exception as error:
        sys.exit(f"Skipped: CuPy or NVRTC is missing ({type(error).__name__}: {error}).")
    most: dict[str, Resources] = {}
    for unit in units:
        for row in compiled(unit, 90)[1]:
            name = re.sub(r"(_\d+)+$", "", row.kernel)
            most[name] = Resources(name, *map(max, row[1:], most.get(name, row)[1:]))
    print(f"NVRTC {version}, sm_90: the most of any dtype and layout of a kernel\n")
    print("| kernel | registers | spilled bytes | stack bytes | shared bytes |")
    print("|---|---|---|---|---|")
    for row in sorted(most.values(), key=lambda row: -row.registers):
        print(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
