"""``mlp-xp bench``: this library against its peers, on this machine."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlp_xp._optional import check_installed
from mlp_xp.cli.options import command, number

__all__ = ["add_to"]

_EXAMPLES = """\
  mlp-xp bench --quick
  mlp-xp bench --only medium wide --out results/bench
  mlp-xp bench --only tiny --contenders "mlp_xp, NumPy" scikit-learn"""
_PACKAGE = Path(__file__).parents[1]
_PASSED = ("quick", "check", "out", "rounds", "threads", "only", "contenders", "images")


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = command(
        commands, "bench", run, "measure this library beside its peers, in turns", _EXAMPLES
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few contenders, little data, about a minute")
    add("--out", type=Path, metavar="DIR", help="folder to write to (bench/history/<date>)")
    at_least_1 = number(int, at_least=1)
    add("--rounds", type=at_least_1, help="turns of each contender (7; quick: 5)")
    add("--threads", type=at_least_1, help="of each contender (all CPUs)")
    add("--only", nargs="+", metavar="PART", help="workloads, start-up, end-to-end, growth (all)")
    add("--contenders", nargs="+", metavar="NAME", help="as the tables call them (all)")
    add("--images", type=at_least_1, help="of an epoch at the most")
    add("--check", action="store_true", help="fail where a ratio to a peer is below its floor")


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
        "the benchmarks are not in this installation: clone the repository, install it with "
        "`pip install -e '.[cli,peers]'`, and type `mlp-xp bench` again"
    )
