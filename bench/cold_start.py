"""The seconds that the first training of an installation waits for machine code.

`mlp-xp train`, the README's command, runs in a copy of the package: with nothing compiled, again,
and with nothing compiled where no folder can be written to. One epoch each compiles all that the
whole training needs, so what the first and the third take longer is added to a whole training.

    python bench/cold_start.py --rounds 2 --out bench/history/2026-01-02-cold-start.json
    python bench/cold_start.py --page bench/history/2026-01-02-cold-start.json

A second run with the same ``--out`` adds its rounds. ``--page`` measures nothing: it writes the
figures of a record into docs/performance.md. CIFAR-10 must be in the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from environment import environment
from report import replace_block, seconds

from mlp_xp.datasets import cache_dir

__all__ = ["LIMIT", "install", "ratios", "section"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
LIMIT = 1.15  # The most that a first training may take, in those of a later one.
COLD, WARM, UNWRITABLE, WHOLE = "nothing compiled", "compiled", "cannot be written", "whole"
Record = dict[str, list[float]]


def install(folder: Path, *, is_writable: bool = True) -> dict[str, str]:
    """Copy the package without machine code, and return the environment that runs the copy."""
    package, cache, scratch = (folder / name for name in ("mlp_xp", "cache", "tmp"))
    shutil.copytree(ROOT / "mlp_xp", package, ignore=shutil.ignore_patterns("*.bin"))
    cache.mkdir()
    scratch.mkdir()
    (cache / "cifar10").symlink_to(cache_dir() / "cifar10")
    if not is_writable:  # A file in place of each folder stops root too.
        kept = package / "backends" / "_numpy" / "machine_code" / "__pycache__"
        shutil.rmtree(kept, ignore_errors=True)
        for path in (kept, cache / "machine-code", scratch / f"mlp-xp-{os.getuid()}"):
            path.touch()
    paths = {"PYTHONPATH": folder, "MLP_XP_CACHE": cache, "TMPDIR": scratch}
    return {**os.environ, **{name: str(path) for name, path in paths.items()}}


def train(folder: Path, environ: dict[str, str], *options: str) -> float:
    """Return the seconds of a process that trains."""
    command = [sys.executable, "-m", "mlp_xp", "train", "--backend", "numpy", *options]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--out", str(Path(tempfile.mkdtemp(dir=folder)) / "run")],
        cwd=folder,
        env=environ,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def measure_round() -> dict[str, float]:
    """Return the seconds of one training of each kind."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = Path(one), Path(other)
        usual, fixed = install(first), install(second, is_writable=False)
        short = "--epochs", "1"
        return {
            COLD: train(first, usual, *short),
            WARM: train(first, usual, *short),
            UNWRITABLE: train(second, fixed, *short),
            WHOLE: train(first, usual),
        }


def ratios(record: Record) -> dict[str, float]:
    """Return the seconds of a whole training in those of one that finds machine code."""
    whole, warm = median(record[WHOLE]), median(record[WARM])
    return {arm: 1 + (median(record[arm]) - warm) / whole for arm in (COLD, UNWRITABLE)}


def section(record: dict[str, Any]) -> str:
    """Return the figures of a record in words."""
    arms, facts = record["seconds"], record["environment"]
    cold, unwritable = ratios(arms).values()
    return (
        f"The README's `mlp-xp train` takes {seconds(median(arms[WHOLE]))} with compiled code. The "
        f"first training of an installation takes {cold:.2f} times as long, each training where no "
        f"folder can be written to {unwritable:.2f} times; the target is at most {LIMIT:g}. One "
        f"epoch takes {seconds(median(arms[COLD]))}, {seconds(median(arms[UNWRITABLE]))}, and "
        f"{seconds(median(arms[WARM]))} with compiled code. Medians; rounds: {len(arms[WHOLE])}; "
        f"{facts['date']}; {facts['cpu']}, {facts['cpus']} CPUs.\n"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rounds", type=int, default=1, help="turns of each kind (%(default)s)")
    add("--out", type=Path, metavar="FILE", help="JSON file to write to, or to add to")
    add("--page", type=Path, metavar="FILE", help=f"write the figures to {PAGE.name}")
    args = parser.parse_args(argv)
    if args.page is not None:
        text = section(json.loads(args.page.read_text()))
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(replace_block(page, "cold-start", text), encoding="utf-8")
        return
    found = args.out is not None and args.out.exists()
    record: Record = json.loads(args.out.read_text())["seconds"] if found else {}
    for _ in range(args.rounds):
        for arm, taken in measure_round().items():
            record.setdefault(arm, []).append(taken)
    result = {"environment": environment(), "seconds": record}
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(section(result), end="")


if __name__ == "__main__":
    main()
