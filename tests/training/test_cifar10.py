"""The real CIFAR-10: what the default training promises."""

import json
import os
import subprocess
import sys

import pytest

from mlp_xp._utils.processors import THREADS_VARIABLES
from mlp_xp.datasets import cache_dir

pytestmark = [pytest.mark.matrix, pytest.mark.real_data]
# Not ru_maxrss: a process inherits that of the one which started it.
CODE = """
import re, sys, time
from mlp_xp.cli import main
status = main(["train", "--backend", "numpy", "--out", "run"])
peak = "0"
if sys.platform == "linux":
    peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]
with open("used", "w") as file:
    print(time.process_time(), time.thread_time(), peak, file=file)
sys.exit(status)
"""


@pytest.fixture(autouse=True)
def needs_cifar10():
    if not (cache_dir() / "cifar10").is_dir():
        pytest.skip(f"cifar10 is not in {cache_dir()}; run `mlp-xp data --fetch cifar10` first")


@pytest.mark.all_cores
def test_the_default_training_keeps_its_accuracy_and_memory_with_work_for_two_threads(tmp_path):
    """Its speed is a floor of the benchmark."""
    threads = dict.fromkeys(THREADS_VARIABLES, "2")  # More would spin where all cores are busy.
    given = {"cwd": tmp_path, "env": os.environ | threads}
    subprocess.run([sys.executable, "-c", CODE], **given, check=True, capture_output=True)
    of_process, of_first_thread, peak = map(float, (tmp_path / "used").read_text().split())
    result = json.loads((tmp_path / "run" / "config.json").read_text())["result"]
    assert result["test_accuracy"] >= 0.53
    assert of_first_thread < 0.9 * of_process
    assert peak * 1024 < 700e6
