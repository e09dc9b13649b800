"""Structure of the package: subpackages (rooms), the direction of imports, and file sizes."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mlp_xp

PACKAGE = Path(mlp_xp.__file__).parent
# A room may import only from rooms in earlier levels, and from itself.
LEVELS = ["_utils", "augmentation datasets nn optimizers", "backends", "training"]
LEVELS += ["distributed lab", "plotting recipes", "estimators", "export model_selection saving"]
LEVELS += ["callbacks", "cli __init__", "__main__"]
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


def test_the_root_has_few_rooms_and_each_is_known():
    rooms = {room_of(file) for file in FILES}
    assert rooms == set(ROOMS)
    assert len(rooms - {"__init__", "__main__"}) <= 17


def test_imports_point_one_way():
    found = {name_of(file): violations(room_of(file), imports(file)) for file in FILES}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_no_imports_go_in_a_circle():
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


def test_maths_names_no_backend():
    backends = {"cupy", "torch", "jax", "array_api_strict"}
    for file in FILES:
        if room_of(file) in MATHS:
            constants = {
                node.value
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not constants & backends, file


def test_each_folder_says_what_lives_there():
    for file in FILES:
        if file.name == "__init__.py" and room_of(file) not in {"__init__", "cli"}:
            text = ast.get_docstring(ast.parse(file.read_text())).replace("\n", " ")
            assert len(text.split(". ")) >= 2, f"{file}: say what the folder contains, and what not"


def test_a_file_is_read_in_one_sitting():
    assert not [f for f in FILES if len(f.read_text().splitlines()) > 400]


def test_the_checks_find_what_they_look_for():
    step, compat = "mlp_xp.training.step.step.make_step", "array_api_compat.torch"
    assert violations("nn", {step}) == [step]
    assert violations("backends", {"mlp_xp.lab"}) == ["mlp_xp.lab"]
    assert violations("optimizers", {"torch.nn"}) == ["torch.nn"]
    assert violations("nn", {compat}) == [compat]
    assert violations("training", {"mlp_xp.backends.get_backend", "torch"}) == []
