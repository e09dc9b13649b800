"""Every kernel of CuPy's backend compiles with NVRTC, as CuPy renders it; this needs no GPU."""

import ast
import importlib
import itertools
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import mlp_xp

FOLDER = Path(mlp_xp.__file__).parent / "backends" / "_cupy"
# What the letters of an ElementwiseKernel stand for: numbers, indices, and data of any dtype.
DTYPES = {
    "T": ("float32", "float64"),
    "F": ("float32", "float64"),
    "I": ("int32", "int64"),
    "X": ("bool", "uint8", "int32", "int64", "float16", "float32", "float64"),
}
# A100, H100, B200.
ARCHITECTURES = (80, 90, 100)
NDARRAY, INDEXER, SCALAR = 1, 2, 3


class Unit(NamedTuple):
    """A source with its options, and the names of the kernels in it."""

    code: str
    options: tuple[str, ...]
    names: tuple[str, ...]


@pytest.fixture(scope="module")
def units() -> list[Unit]:
    """Return all kernels in one program for each of their options.

    Most of the time goes into headers, and what NVRTC has built in.
    """
    cupy = pytest.importorskip("cupy")
    if not hasattr(cupy, "_core"):
        pytest.skip("the stand-in for CuPy renders no kernels")
    from cupy._core import core
    from cupy_backends.cuda.libs import nvrtc

    import mlp_xp.backends._cupy as package
    from mlp_xp.backends._cupy.kernels.rendering import every_kernel

    try:
        nvrtc.getVersion()
        core.assemble_cupy_compiler_options(())
    except Exception as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    codes: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for kernel in every_kernel():
        if isinstance(kernel, cupy.ElementwiseKernel):
            of_options = codes[kernel.kwargs.get("options", ())]
            of_options.update(renderings(kernel, len(of_options)))
        else:
            assert isinstance(kernel, cupy.RawKernel), kernel
            of_options = codes[kernel.options]
            number = len(of_options)
            name = f"{kernel.name}_{number}"  # It has the same name for each dtype.
            code = re.sub(rf"\b{kernel.name}\b", name, kernel.code)
            of_options[name] = apart(code, kernel.name, number)
    headers = "".join(f"#include <{header}>\n" for header in core._cupy_header_list)
    return [
        Unit(headers + "".join(found.values()), options, tuple(found))
        for options, found in codes.items()
    ]


def apart(code: str, title: str, number: int) -> str:
    """Return code in a namespace, which keeps its types from those of others."""
    includes = "".join(re.findall(r"^ *#include.*\n", code, re.MULTILINE))
    code = re.sub(r"^ *#include.*\n", "", code, flags=re.MULTILINE)
    return f'{includes}namespace _{number} {{\n#line 1 "{title}"\n{code}\n}}\n'


def renderings(kernel: Any, first: int) -> Iterator[tuple[str, str]]:
    """Yield names and sources that CuPy makes of a kernel for dtypes and layouts."""
    from cupy._core import _kernel

    letters = sorted({p.ctype for p in (*kernel.in_params, *kernel.out_params) if p.dtype is None})
    assert set(letters) <= set(DTYPES), f"{kernel.name}: list the dtypes of {letters} in this test"
    dtypes = itertools.product(*(DTYPES[letter] for letter in letters))
    for number, (given, layout) in enumerate(itertools.product(dtypes, LAYOUTS), first):
        types = {letter: np.dtype(dtype) for letter, dtype in zip(letters, given, strict=True)}
        name = f"{kernel.name}_{number}"
        code = _kernel._get_elementwise_kernel_code(
            tuple(arguments(kernel, types, layout)),
            _kernel._TypeMap(tuple(types.items())),
            kernel.params,
            kernel.operation,
            name,
            kernel.preamble,
            **kernel.kwargs,
        )
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


@pytest.mark.matrix
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile(units: list[Unit], architecture: int) -> None:
    from cupy._core import core
    from cupy.cuda import compiler

    for unit in units:
        program = compiler._NVRTCProgram(unit.code, f"{unit.names[0]}.cu", method="cubin")
        options = core.assemble_cupy_compiler_options(unit.options)
        machine = (f"-arch=sm_{architecture}", "--device-as-default-execution-space")
        try:
            binary, _ = program.compile((*options, *machine))
        except compiler.CompileException as error:
            pytest.fail(str(error))
        for name in unit.names:
            assert name.encode() in binary


def test_every_kernel_is_listed() -> None:
    """The test above compiles no kernel that is made without the decorator."""
    for path in FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        listed = [node for node in ast.walk(tree) if is_listed(node)]
        inside = {id(child) for node in listed for child in ast.walk(node)}
        for node in ast.walk(tree):
            if makes_kernel(node):
                assert id(node) in inside, f"{path.name}, line {node.lineno}: no @kernel"


def is_listed(node: ast.AST) -> bool:
    """Whether it is a function with @kernel(...), or the one that makes kernels for these."""
    return isinstance(node, ast.FunctionDef) and (
        node.name == "raw_kernel"
        or any(ast.unparse(decorator).startswith("kernel(") for decorator in node.decorator_list)
    )


def makes_kernel(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func).rpartition(".")[2]
    return name == "raw_kernel" or bool(
        re.fullmatch("(Elementwise|Reduction|Raw)Kernel|RawModule", name)
    )
