"""Every kernel of CuPy's backend compiles with NVRTC, as CuPy renders it; this needs no GPU."""

import ast
import re
from pathlib import Path

import pytest
from rendered_kernels import Unit, all_units, compiled

import mlp_xp

FOLDER = Path(mlp_xp.__file__).parent / "backends" / "_cupy"
ARCHITECTURES = (70, 80, 90, 100)  # V100, A100, H100, B200.
# Half of the threads that a multiprocessor of an H100 takes then fit its 65,536 registers. Numbers
# of double precision take two registers.
MOST_REGISTERS, MOST_OF_DOUBLES = 64, 80


@pytest.fixture(scope="module")
def units() -> list[Unit]:
    cupy = pytest.importorskip("cupy")
    if not hasattr(cupy, "_core"):
        pytest.skip("the stand-in for CuPy renders no kernels")
    from cupy._core import core
    from cupy_backends.cuda.libs import nvrtc

    try:
        nvrtc.getVersion()
        core.assemble_cupy_compiler_options(())
    except Exception as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    return all_units()


@pytest.mark.matrix
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_without_warnings(units: list[Unit], architecture: int) -> None:
    from cupy.cuda import compiler

    for unit in units:
        try:
            binary, resources, warnings = compiled(unit, architecture)
        except compiler.CompileException as error:
            pytest.fail(str(error))
        assert warnings == []
        assert len(resources) == len(unit.names)
        for name in unit.names:
            assert name.encode() in binary
        for row in resources:
            assert not row.spills, row
            most = MOST_OF_DOUBLES if row.kernel in unit.of_doubles else MOST_REGISTERS
            if row.kernel.startswith("mlp_xp_orthogonalize"):
                continue  # The sums of a tile stay in registers; the source limits these itself.
            assert architecture != 90 or row.registers <= most, row


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
    """Whether a node is a call of record(...) or a function with @kernel(...)."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "record"
    return isinstance(node, ast.FunctionDef) and (
        any(ast.unparse(decorator).startswith("kernel(") for decorator in node.decorator_list)
    )


def makes_kernel(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func).rpartition(".")[2]
    return bool(re.fullmatch("(Elementwise|Reduction|Raw)Kernel|RawModule", name))
