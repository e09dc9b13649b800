"""The default `mlp-xp train` keeps its promise: accuracy, time and memory of two threads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from mlp_xp._utils.processors import THREADS_VARIABLES
from mlp_xp.datasets import cache_dir

pytestmark = [pytest.mark.matrix, pytest.mark.real_data]

CODE = """
import shutil, sys, time
from mlp_xp.cli import main
status = main(["train", "--backend", "numpy", "--out", "run"])
with open("seconds", "w") as file:
    print(time.process_time(), time.thread_time(), file=file)
if sys.platform == "linux":
    shutil.copyfile("/proc/self/status", "status")
sys.exit(status)
"""


def test_the_default_training(tmp_path):
    if not (cache_dir() / "cifar10").is_dir():
        pytest.skip(f"cifar10 is not in {cache_dir()}; run `mlp-xp data --fetch cifar10` first")
    threads = dict.fromkeys(THREADS_VARIABLES, "2")  # More would spin where all cores are busy.
    before = os.times()
    subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=os.environ | threads,
        check=True,
        capture_output=True,
    )
    after = os.times()
    # Of the processors: as others may be at work on the machine, its clock proves nothing. Two
    # threads that are busy side by side for 180 s take as much; that they run side by side is not
    # proved, only that both have work.
    seconds = after.children_user - before.children_user
    seconds += after.children_system - before.children_system
    of_process, of_first_thread = map(float, (tmp_path / "seconds").read_text().split())
    result = json.loads((tmp_path / "run" / "config.json").read_text())["result"]
    assert result["test_accuracy"] >= 0.53
    assert seconds < 2 * 180
    assert of_first_thread < 0.75 * of_process
    if sys.platform == "linux":
        # Not ru_maxrss: a process inherits that of the one which started it.
        peak = re.search(r"VmHWM:\s*(\d+) kB", (tmp_path / "status").read_text())
        assert peak is not None
        assert int(peak[1]) * 1024 < 700e6
