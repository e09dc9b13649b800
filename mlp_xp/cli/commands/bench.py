"""``mlp-xp bench``: benchmarks of this library and its peers on this machine."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from mlp_xp._utils.optional import check_installed, install_command
from mlp_xp.cli.terminal.output import Output

_ROOT = Path(__file__).parents[3]


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the benchmarks of this clone in a new process."""
    check_installed("matplotlib", "rich")  # Report missing packages before the work, not after it.
    if not (_ROOT / "bench" / "__main__.py").is_file():
        raise ValueError(
            "this installation does not contain the benchmarks: install from a clone with "
            f"{install_command('cli,peers')}, and type `mlp-xp bench` again"
        )
    command = [sys.executable, "-m", "bench", *args.argv[1:]]
    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # The benchmark handles Ctrl-C itself.
                continue
