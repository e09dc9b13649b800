"""``mlp-xp bench``: benchmarks of this library and its peers on this machine."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from mlp_xp._utils.optional import check_installed, install_command

__all__ = ["run"]

_PACKAGE = Path(__file__).parents[1]
_OPTIONS = ("quick", "check", "out", "rounds", "threads", "only", "contenders", "images")


def run(args: argparse.Namespace) -> int:
    """Run the suite in another process, which sets the number of threads of its libraries."""
    check_installed("matplotlib", "rich")  # before the work, not after it
    command = [sys.executable, str(_suite())]
    for name in _OPTIONS:
        value = getattr(args, name)
        if value is True:
            command.append(f"--{name}")
        elif value is not None and value is not False:
            command += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # It gets Ctrl-C too, and says what it keeps.
                continue


def _suite() -> Path:
    """Return the path of the suite: beside the package in a clone, inside an installed one."""
    for folder in (_PACKAGE.parent / "bench", _PACKAGE / "_bench"):
        if (folder / "suite.py").is_file():
            return folder / "suite.py"
    raise ValueError(
        "the benchmarks are not in this installation: install from a clone, "
        f"{install_command('cli,peers')}, and type `mlp-xp bench` again"
    )
