"""Structure of the package: subpackages (rooms), direction of imports, documented names."""

import ast
import importlib
import inspect
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mlp_xp

PACKAGE = Path(mlp_xp.__file__).parent
REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
# A room may import only from rooms in earlier levels, and from itself.
LEVELS = ["_utils", "compiler", "augmentation datasets nn optimizers", "backends", "training"]
LEVELS += ["distributed lab", "plotting recipes", "estimators", "export model_selection saving"]
LEVELS += ["callbacks", "cli dask __init__", "__main__"]
ROOMS = {room: level for level, rooms in enumerate(LEVELS) for room in rooms.split()}
MATHS = {"augmentation", "nn", "optimizers"}
LIBRARIES = {"numpy", "cupy", "cupyx", "torch", "jax", "array_api_strict", "numba"}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file) for file in FILES}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(file: Path) -> set[str]:
    """Return the full names of all imports in a file, including imports inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides its room"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def target_of(name: str) -> str | None:
    """Return the module of this package that contains an imported name, or None."""
    while name not in MODULES and "." in name:
        name = name.rpartition(".")[0]
    return name if name in MODULES and name != "mlp_xp" else None


def violations(room: str, names: set[str]) -> list[str]:
    """Return the imports that are not allowed in a room."""
    bad = []
    for name in sorted(names):
        target = target_of(name)
        other = room if target is None else target.split(".")[1]
        if other != room and ROOMS[other] >= ROOMS[room]:
            bad.append(name)
        if room in MATHS and LIBRARIES & set(name.split(".")):
            bad.append(name)
    return bad


def test_each_subpackage_has_a_level():
    assert {room_of(file) for file in FILES} == set(ROOMS)


def test_imports_follow_the_subpackage_levels():
    found = {name_of(file): violations(room_of(file), imports(file)) for file in FILES}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_there_are_no_circular_imports():
    graph = {}
    for file in FILES:
        targets = {target_of(name) for name in imports(file)}
        graph[name_of(file)] = targets - {None, name_of(file)}
    # `__init__` imports the modules of its folder only to export their names.
    for name, targets in graph.items():
        graph[name] = {t for t in targets if not t.startswith(f"{name}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_math_subpackages_name_no_backend():
    backends = {"cupy", "torch", "jax", "array_api_strict"}
    for file in FILES:
        if room_of(file) in MATHS:
            constants = {
                node.value
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not constants & backends, file


def reference_names() -> list[tuple[str, str]]:
    """Return the modules and names that the reference lists."""
    found = []
    for page in REFERENCE.glob("*.rst"):
        module = None
        text = page.read_text(encoding="utf-8")
        for kind, name in re.findall(r"(?m)^(\.\. currentmodule:: |   (?=\w+$))(.+)$", text):
            if kind.strip():
                module = name
            else:
                found.append((module, name))
    return found


def test_public_names_are_documented():
    listed = [getattr(importlib.import_module(module), name) for module, name in reference_names()]
    assert [value for value in listed if not inspect.getdoc(value)] == []
    public = {name: getattr(mlp_xp, name) for name in mlp_xp.__all__}
    assert [name for name, value in public.items() if value not in listed] == []


def test_import_checks_detect_violations():
    step, compat = "mlp_xp.training.step.step.make_step", "array_api_compat.torch"
    assert violations("nn", {step}) == [step]
    assert violations("backends", {"mlp_xp.lab"}) == ["mlp_xp.lab"]
    assert violations("optimizers", {"torch.nn"}) == ["torch.nn"]
    assert violations("nn", {compat}) == [compat]
    assert violations("training", {"mlp_xp.backends.get_backend", "torch"}) == []
