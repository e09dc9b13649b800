"""The stand-in's arrays and functions beside CuPy's: the same names, called in the same way.

CuPy imports without a GPU. Each of the two is read in a process of its own.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STAND_IN = HERE / "stand_in"
MODULES = ("cupy", "cupy.linalg", "cupyx.scipy.sparse")


def elsewhere() -> list[str]:
    """Return where Python looks for packages, without the stand-in."""
    return [path for path in sys.path if not path or Path(path).resolve() != STAND_IN]


def offered(paths: list[str]) -> dict[str, str | None]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(HERE / "array_names.py"), *MODULES]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Return what the stand-in offers, and what CuPy does."""
    if importlib.machinery.PathFinder.find_spec("cupy", elsewhere()) is None:
        pytest.skip("cupy is not installed")
    return offered([str(STAND_IN), *elsewhere()]), offered(elsewhere())


def test_every_name_is_one_of_cupys(both):
    ours, theirs = both
    assert len(ours) > 400
    assert not ours.keys() - theirs.keys()


def test_everything_is_called_in_the_same_way(both):
    ours, theirs = both
    # CuPy tells the parameters of all of them, of Cython's in docstrings; operators have none.
    assert not {name for name in ours if theirs[name] is None}
    different = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    assert not different


def test_the_rules_of_arrays_hold_where_they_stand_for_cupys():
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(STAND_IN), *filter(None, elsewhere())])}
    env.pop("PYTEST_ADDOPTS", None)  # It is of this run.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(HERE / "test_stand_in_arrays.py")], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    assert "skipped" not in done.stdout
