"""`mlp-xp bench`: the arguments it passes on, the files it writes, the errors if it cannot run."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import CODE

from mlp_xp.cli import bench
from mlp_xp.cli.commands import parse

OURS = "mlp_xp, NumPy"


@pytest.fixture
def started(monkeypatch):
    """Record the command instead of running it."""
    commands = []

    @contextlib.contextmanager
    def popen(words):
        commands.append(words)
        yield SimpleNamespace(wait=lambda: 3)

    monkeypatch.setattr(bench.subprocess, "Popen", popen)
    return commands


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(Path(bench.__file__).parents[2] / "bench")
    return importlib.import_module("suite")


def test_options_are_passed_on_and_the_status_comes_back(mlp_xp, fails, started):
    assert mlp_xp("bench", "--quick", "--only", "lab", "wide", "--out", "a b").status == 3
    ((_, path, *words),) = started
    assert Path(path).name == "suite.py"
    assert words == ["--quick", "--out", "a b", "--only", "lab", "wide"]
    assert "expected an integer of at least 1" in fails("bench", "--rounds", 0)
    assert len(started) == 1


def test_the_suite_is_found_inside_an_installed_package(mlp_xp, fails, started, monkeypatch):
    package = Path("site-packages/mlp_xp")
    monkeypatch.setattr(bench, "_PACKAGE", package)
    assert "install from a clone, " in fails("bench", "--quick")
    (package / "_bench").mkdir(parents=True)
    (package / "_bench" / "suite.py").touch()
    assert mlp_xp("bench").status == 3
    assert started[0][1] == str(package / "_bench" / "suite.py")


def test_parts_and_contenders_are_known(suite, capsys):
    with pytest.raises(SystemExit):
        parse(["bench", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ", ".join(suite.PARTS) in text.replace("- ", "-")
    for words, said in (
        (["--only", "iris"], "invalid choice: 'iris'"),
        (["--quick", "--only", "wide"], "wide is not in a quick run, which has tiny, lab, medium"),
        (["--contenders", "keras"], "no contender is called 'keras', expected some of \"JAX\"; "),
        (["--contenders", "keras"], '; "mlp_xp, NumPy"; '),
    ):
        with pytest.raises(SystemExit) as ended:
            suite.parse(words)
        assert ended.value.code == 2
        text = capsys.readouterr().err
        assert text.startswith("mlp-xp: error: ")
        assert text.count("\n") == 1
        assert said in text


@pytest.mark.matrix
def test_the_smallest_run_writes_page_figures_and_chart(mlp_xp):
    few = ["--only", "tiny", "--images", 64, "--rounds", 1, "--threads", 1]
    done = mlp_xp("bench", "--quick", *few, "--contenders", OURS, "scikit-learn", "--out", "out")
    assert done.status == 0
    result = json.loads(Path("out/result.json").read_text())
    assert result["environment"]["versions"]["mlp-xp"]
    assert list(result["workloads"]) == ["tiny"]
    contenders = result["workloads"]["tiny"]["contenders"]
    assert list(contenders) == [OURS, "scikit-learn"]
    assert not [run["cannot_run"] for run in contenders.values() if "cannot_run" in run]
    assert all(len(run["seconds"]) == 1 for run in contenders.values())
    assert "| scikit-learn | " in Path("out/report.md").read_text()
    assert Path("out/epochs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="signals of one process to another")
def test_ctrl_c_keeps_the_parts_that_are_complete():
    options = ["--only", "tiny", "lab", "--images", 64, "--rounds", 1, "--threads", 1]
    words = ["bench", "--quick", *options, "--contenders", OURS, "--out", "out"]
    command = [sys.executable, "-u", "-c", CODE, *map(str, words)]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("part 2 of 2"))
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("interrupted; what was measured is in out\n")
    assert "Traceback" not in out + err
    assert list(json.loads(Path("out/result.json").read_text())["workloads"]) == ["tiny"]
