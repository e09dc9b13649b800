"""The page "Clusters": its programs for Ray and Spark, where these are installed."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pages
import pytest
from helpers import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"

pytestmark = pytest.mark.matrix


def run_program(package: str, folder: Path, **variables: str) -> str:
    """Return what the page's program that imports a package prints."""
    (program,) = (
        block.code
        for block in pages.blocks(PAGE.read_text(encoding="utf-8"))
        if re.search(rf"^(import|from) {package}\b", block.code, re.MULTILINE)
    )
    (folder / "program.py").write_text(program)
    # Workers do not inherit the path of this process.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.skipif(
    not find_spec("ray"), reason="ray takes 240 MB, so CI lacks it: pip install 'ray[train]'"
)
def test_the_ray_example_trains_and_predicts(tmp_path):
    printed = run_program("ray", tmp_path, RAY_AUTH_MODE="disabled")
    assert re.search(r"^loss 0\.4\d, 1309 predictions$", printed, re.MULTILINE), printed


@pytest.mark.skipif(
    not find_spec("pyspark"), reason="pyspark takes 490 MB, so CI lacks it: pip install pyspark"
)
def test_the_spark_example_trains_and_predicts(tmp_path):
    local = {"PYSPARK_PYTHON": sys.executable}
    local["PYSPARK_SUBMIT_ARGS"] = "--master local[2] pyspark-shell"
    printed = run_program("pyspark", tmp_path, **local)
    assert re.search(r"^loss 0\.4\d, 1309 predictions$", printed, re.MULTILINE), printed
