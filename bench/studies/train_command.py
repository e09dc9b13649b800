"""`mlp-xp train`, the whole command: beside a torch script, and the first of an installation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median as middle

import numpy as np

from bench.suite.records import ROOT, Result, measured_on
from bench.suite.roofline import state_bytes
from bench.suite.tables import Table, contender_table, megabytes, seconds
from bench.suite.turns import Announce, Options, Part, in_turns, peak_bytes, slow_path

COMMAND = "import sys; from mlp_xp.cli import main; sys.exit(main())"  # mlp-xp
WIDTHS = (3072, 512, 512, 10)  # Of the default network, and of the script.
SCRIPT = ROOT / "bench" / "peers" / "torch_script.py"
EPOCHS = 12  # The default of `mlp-xp train`.
LIMIT = 1.15  # The most that a first training may take, in those of a later one.
COLD, WARM, UNWRITABLE, WHOLE = "nothing compiled", "compiled", "cannot be written", "whole"


# --- beside a script that trains the same network on the same images with torch -------------------


def measure_end_to_end(options: Options, announce: Announce) -> Result:
    """Return the seconds of each process, of its processors and its training, memory, accuracy."""
    from mlp_xp.datasets import cache_dir

    folder = cache_dir() / "cifar10"
    if not folder.is_dir():
        reason = f"cifar10 is not in {cache_dir()}: mlp-xp data --fetch cifar10"
        return {"runs": {"CIFAR-10": {"cannot_run": reason}}}
    epochs = 2 if options.quick else EPOCHS
    more = ["--epochs", str(epochs)]
    commands = {
        "mlp-xp train": ["-c", COMMAND, "train", "--backend", "numpy", "--out", "run", *more],
        "torch script": [str(SCRIPT), str(folder), "--threads", str(options.threads), *more],
    }
    runs = {}
    for name, command in commands.items():
        announce(f"{name}, once")
        runs[name] = _run(command, options.scratch)
    return {
        "epochs": epochs,
        "state_bytes": state_bytes(WIDTHS, "adam"),
        "data_bytes": np.load(folder / "x_train.npy", "r").nbytes,
        "runs": runs,
    }


def _run(arguments: list[str], scratch: Path) -> Result:
    """Run Python, and return the results it printed or wrote into a run folder."""
    start, used = time.perf_counter(), os.times()
    with (scratch / "output").open("w+") as output:
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, cwd=scratch, stdout=output, stderr=output)
        peak = None
        while process.poll() is None:
            # It never falls, so the last reading is close to the peak.
            peak = peak_bytes(process.pid) or peak
            time.sleep(0.1)
        taken, after = time.perf_counter() - start, os.times()
        output.seek(0)
        text = output.read().strip()
        lines = text.splitlines()
    if process.returncode:
        return {"cannot_run": lines[-1] if lines else f"status {process.returncode}"}
    if slow := slow_path(text):
        return slow
    if arguments[0] == "-c":
        kept = json.loads((scratch / "run" / "config.json").read_text())["result"]
        kept = {"test_accuracy": kept["test_accuracy"], "training_seconds": kept["seconds"]}
    else:
        kept = json.loads(lines[-1])
    # Of the child's threads together: the clock would measure what else the machine does.
    processor = sum(after[2:4]) - sum(used[2:4])
    return {"seconds": taken, "processor_seconds": processor, "peak_bytes": peak, **kept}


def tables(whole: Result) -> list[Table]:
    def cells(name: str, run: Result) -> list[str]:
        both = [seconds(run["seconds"]), seconds(run["training_seconds"])]
        return [*both, f"{run['test_accuracy']:.2%}", megabytes(run)]

    columns = ["run", "total", "training", "test accuracy", "peak MB"]
    epochs = f" for {whole['epochs']} epochs" if "epochs" in whole else ""
    note = f"The default network on CIFAR-10{epochs}: the whole process, once."
    return [contender_table(END_TO_END.title, columns, whole["runs"], cells, note=note)]


# --- the first training of an installation, which waits for machine code --------------------------


def install(folder: Path, *, is_writable: bool = True) -> dict[str, str]:
    """Copy the package without machine code, and return the environment that runs the copy."""
    from mlp_xp.datasets import cache_dir

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


def measure_cold_start(options: Options, announce: Announce) -> Result:
    """Return the seconds of a training with nothing compiled, again, and where nothing is kept.

    One epoch each compiles all that the whole training needs, so what the first and the third take
    longer is added to a whole training.
    """

    def act(arm: str) -> object:
        if arm == COLD:  # The first of a round.
            installed.update({name: Path(tempfile.mkdtemp(dir=options.scratch)) for name in "ab"})
            environ["a"] = install(installed["a"])
            environ["b"] = install(installed["b"], is_writable=False)
        name = "b" if arm == UNWRITABLE else "a"
        command = [sys.executable, "-m", "mlp_xp", "train", "--backend", "numpy"]
        command += ["--out", str(Path(tempfile.mkdtemp(dir=installed[name])) / "run")]
        command += [] if arm == WHOLE else ["--epochs", "1"]
        start, quiet = time.perf_counter(), subprocess.DEVNULL
        subprocess.run(command, cwd=installed[name], env=environ[name], check=True, stdout=quiet)
        return time.perf_counter() - start

    installed: dict[str, Path] = {}
    environ: dict[str, dict[str, str]] = {}
    return in_turns([COLD, WARM, UNWRITABLE, WHOLE], options.rounds, act, announce)


def ratios(arms: Result) -> dict[str, float]:
    """Return the seconds of a whole training in those of one that finds machine code."""
    whole, warm = middle(arms[WHOLE]), middle(arms[WARM])
    return {arm: 1 + (middle(arms[arm]) - warm) / whole for arm in (COLD, UNWRITABLE)}


def cold_start_tables(arms: Result) -> list[Table]:
    rows = [[arm, seconds(middle(taken))] for arm, taken in arms.items()]
    return [Table(COLD_START.title, ["training", "median"], rows)]


def section(record: Result) -> str:
    """Return the figures of a record of cold starts in words."""
    arms = record["cold_start"]
    cold, unwritable = ratios(arms).values()
    return (
        f"The README's `mlp-xp train` takes {seconds(middle(arms[WHOLE]))} with compiled code. The "
        f"first training of an installation takes {cold:.2f} times as long, each training where no "
        f"folder can be written to {unwritable:.2f} times; the target is at most {LIMIT:g}. One "
        f"epoch takes {seconds(middle(arms[COLD]))}, {seconds(middle(arms[UNWRITABLE]))}, and "
        f"{seconds(middle(arms[WARM]))} with compiled code. Medians; rounds: {len(arms[WHOLE])}. "
        f"{measured_on(record['environment'])}"
    )


END_TO_END = Part("End to end", lambda options: 2, measure_end_to_end, tables)
COLD_START = Part(
    "Cold start", lambda options: 4 * options.rounds, measure_cold_start, cold_start_tables
)
