"""The floors of the house: imports point downwards, and no library is named where maths is done."""

from __future__ import annotations

import ast
from pathlib import Path

import mlp_xp

PACKAGE = Path(mlp_xp.__file__).parent
FLOORS = {
    "_utils": 0,
    "augmentation": 1,
    "nn": 1,
    "optimizers": 1,
    "datasets": 1,
    "backends": 2,
    "training": 3,
    "lab": 3,
    "recipes": 4,
    "estimators": 5,
    "saving": 6,
    "callbacks": 7,
    "plotting": 7,
    "cli": 8,
    "__init__": 8,
}
MATHS = {"augmentation", "nn", "optimizers"}
LIBRARIES = {"numpy", "cupy", "cupyx", "torch", "jax", "array_api_strict", "numba"}


def modules() -> list[tuple[str, Path]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [(file.relative_to(PACKAGE).parts[0].removesuffix(".py"), file) for file in files]


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides its floor"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor_of(name: str) -> int | None:
    """Return the floor of an imported module of ours, None for somebody else's."""
    parts = name.split(".")
    return FLOORS.get(parts[1]) if parts[0] == "mlp_xp" and len(parts) > 1 else None


def violations(floor: int, names: set[str], own: str) -> list[str]:
    bad = [n for n in names if (floor_of(n) or 0) > floor and n.split(".")[1] != own]
    if own in MATHS:
        bad += [n for n in names if LIBRARIES & set(n.split("."))]
    return bad


def test_every_module_has_a_floor():
    assert {name for name, _ in modules()} <= set(FLOORS)


def test_imports_point_downwards():
    for name, file in modules():
        assert violations(FLOORS[name], imports(file), name) == [], file


def test_maths_names_no_backend():
    backends = ("cupy", "torch", "jax", "array_api_strict")
    for name, file in modules():
        if name not in MATHS:
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & set(backends), file


def test_the_check_finds_what_it_looks_for():
    assert violations(1, {"mlp_xp.training.step"}, "nn") == ["mlp_xp.training.step"]
    assert violations(1, {"torch.nn"}, "optimizers") == ["torch.nn"]
    assert violations(1, {"array_api_compat.torch"}, "nn") == ["array_api_compat.torch"]
    assert violations(3, {"mlp_xp.backends", "torch"}, "training") == []
