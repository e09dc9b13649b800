"""The floors of the house: imports point downwards, and no library is named where maths is done."""

from __future__ import annotations

import ast
from pathlib import Path

import mlp_xp

PACKAGE = Path(mlp_xp.__file__).parent
FLOORS = {
    "_typing": 0,
    "tree": 0,
    "_random": 0,
    "_files": 0,
    "_optional": 0,
    "_paths": 0,
    "_scikit": 0,
    "_signals": 0,
    "augmentation": 1,
    "layers": 1,
    "losses": 1,
    "pullbacks": 1,
    "optimizers": 1,
    "schedules": 1,
    "blocks": 2,
    "hidden": 2,
    "kernels": 2,
    "network": 2,
    "step": 2,
    "divergence": 5,
    "backends": 3,
    "budget": 4,
    "batches": 4,
    "rows": 4,
    "scaling": 4,
    "datasets": 4,
    "inference": 5,
    "training": 5,
    "objects": 5,
    "recipes": 6,
    "stopping": 5,
    "validation": 5,
    "ported": 5,
    "lbfgs": 6,
    "scoring": 5,
    "summary": 5,
    "settings": 6,
    "learned": 6,
    "held_out": 6,
    "running": 6,
    "fitting": 6,
    "prediction": 6,
    "lab": 6,
    "callbacks": 7,
    "report": 7,
    "saving": 7,
    "estimators": 6,
    "cli": 8,
    "__init__": 7,
}
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
    """Give the floor of an imported module of ours, None for somebody else's."""
    parts = name.split(".")
    return FLOORS.get(parts[1]) if parts[0] == "mlp_xp" and len(parts) > 1 else None


def violations(floor: int, names: set[str], own: str) -> list[str]:
    bad = [n for n in names if (floor_of(n) or 0) > floor and n.split(".")[1] != own]
    if floor <= 2:
        bad += [n for n in names if LIBRARIES & set(n.split(".")) and own != "_random"]
    return bad


def test_every_module_has_a_floor():
    assert {name for name, _ in modules()} <= set(FLOORS)


def test_imports_point_downwards():
    # `_random` alone may use NumPy below floor 3: random numbers are drawn on the host.
    for name, file in modules():
        assert violations(FLOORS[name], imports(file), name) == [], file


def test_maths_names_no_backend():
    backends = ("cupy", "torch", "jax", "array_api_strict")
    for name, file in modules():
        if FLOORS[name] > 2:
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & set(backends), file


def test_the_check_finds_what_it_looks_for():
    assert violations(1, {"mlp_xp.step"}, "layers") == ["mlp_xp.step"]
    assert violations(2, {"torch.nn"}, "step") == ["torch.nn"]
    assert violations(1, {"array_api_compat.torch"}, "layers") == ["array_api_compat.torch"]
    assert violations(4, {"mlp_xp.backends", "torch"}, "batches") == []
