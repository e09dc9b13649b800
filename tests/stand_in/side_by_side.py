"""The stand-in for CuPy and the real package, each read in a process of its own."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
STAND_IN = HERE / "packages"


def elsewhere() -> list[str]:
    """Return where Python looks for packages, without the stand-in."""
    return [path for path in sys.path if not path or Path(path).resolve() != STAND_IN]


def offered(script: str, *arguments: str, packages: tuple[str, ...]) -> tuple[Any, Any]:
    """Return what a script beside this file prints of the stand-in, and of the real packages.

    CuPy imports without a GPU; where it is not installed, the test is skipped.
    """
    for name in packages:
        if importlib.machinery.PathFinder.find_spec(name, elsewhere()) is None:
            pytest.skip(f"{name} is not installed")
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    others = [path for path in others if Path(path).resolve() != STAND_IN]
    found = []
    for paths in ([str(STAND_IN), *others], others):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, str(HERE / script), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout))
    return found[0], found[1]
