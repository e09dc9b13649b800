"""The default `mlp-xp train` keeps its promise: accuracy, time and memory on two cores."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from mlp_xp.datasets import cache_dir

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

CODE = """
import resource, sys
from mlp_xp.cli import main
status = main(["train", "--backend", "numpy", "--out", "run"])
kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
open("peak", "w").write(str(kibibytes))
sys.exit(status)
"""


def test_the_default_training(tmp_path):
    if not (cache_dir() / "cifar10").is_dir():
        pytest.skip(f"cifar10 is not in {cache_dir()}; run `mlp-xp data --fetch cifar10` first")
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    result = json.loads((tmp_path / "run" / "config.json").read_text())["result"]
    assert result["test_accuracy"] >= 0.53
    assert seconds < 180
    if sys.platform == "linux":  # ru_maxrss has other units elsewhere.
        assert int((tmp_path / "peak").read_text()) * 1024 < 700e6
