"""The stand-in beside the real CuPy and nvmath, each read in a process of its own.

CuPy imports without a GPU; where it is not installed, the tests are skipped.
"""

import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PACKAGES = HERE / "packages"


def is_elsewhere(path: str) -> bool:
    return Path(path).resolve() != PACKAGES


@pytest.fixture(scope="module")
def printed() -> list[tuple[Any, Any]]:
    """Return names and outcomes, each of the stand-in and of the real packages."""
    for name in ("cupy", "nvmath"):
        paths = [*filter(is_elsewhere, sys.path)]
        if importlib.machinery.PathFinder.find_spec(name, paths) is None:
            pytest.skip(f"{name} is not installed")
    others = [*filter(is_elsewhere, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    found = []
    for paths in ([str(PACKAGES), *others], others):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, str(HERE / "offers.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout))
    return [*zip(*found, strict=True)]


def test_stand_in_names_and_parameters_match_the_real_packages(printed):
    ours, real = printed[0]
    assert len(ours) > 350
    assert not ours.keys() - real.keys()
    # Of constructors in Cython nobody tells the parameters.
    untold = None, "*args, **kwargs", "/, *args, **kwargs"
    known = [name for name in ours if real[name] not in untold or not name.endswith("__")]
    different = {name: (ours[name], real[name]) for name in known if ours[name] != real[name]}
    assert not different


def test_kernels_accept_and_reject_the_same_arguments_as_cupy(printed):
    ours, real = printed[1]
    for name, outcome in ours.items():
        if "__init__() " in outcome:  # Cython words this otherwise.
            assert "__init__() " in real[name], name
        else:
            assert outcome == real[name], name
