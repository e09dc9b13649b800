"""``mlp-xp bench``: this library against its peers, on this machine."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from mlp_xp._utils.optional import check_installed, install_command

__all__ = ["run"]

_PACKAGE = Path(__file__).parents[1]
_PASSED = ("quick", "check", "out", "rounds", "threads", "only", "contenders", "images")


def run(args: argparse.Namespace) -> int:
    """Run the suite in a process of its own, which sets the threads of what it loads."""
    check_installed("matplotlib")  # Before the work, not after it.
    words = [sys.executable, str(_suite())]
    for name in _PASSED:
        value = getattr(args, name)
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return subprocess.run(words).returncode


def _suite() -> Path:
    """Find the suite: beside the package in a checkout, inside it where it was installed."""
    for folder in (_PACKAGE.parent / "bench", _PACKAGE / "_bench"):
        if (folder / "suite.py").is_file():
            return folder / "suite.py"
    raise ValueError(
        "the benchmarks are not in this installation: install from a clone, "
        f"{install_command('cli,peers')}, and type `mlp-xp bench` again"
    )
