"""`mlp-xp bench`: the arguments it passes on, the files it writes, the errors if it cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlp_xp.cli import bench

OURS = "mlp_xp, NumPy"


@pytest.fixture
def started(monkeypatch):
    """Record the command instead of running it."""
    commands = []

    def run(words):
        commands.append(words)
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(bench.subprocess, "run", run)
    return commands


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


def test_options_are_passed_on_and_the_status_comes_back(mlp_xp, started):
    assert mlp_xp("bench", "--quick", "--only", "lab", "wide", "--out", "a b").status == 3
    ((_, suite, *words),) = started
    assert Path(suite).name == "suite.py"
    assert words == ["--quick", "--out", "a b", "--only", "lab", "wide"]


def test_an_installation_without_the_suite_says_what_to_do(fails, started, monkeypatch):
    monkeypatch.setattr(bench, "_PACKAGE", Path("nowhere/mlp_xp"))
    assert "install from a clone, " in fails("bench", "--quick")


def test_the_suite_is_found_inside_an_installed_package(mlp_xp, started, monkeypatch):
    package = Path("site-packages/mlp_xp")
    (package / "_bench").mkdir(parents=True)
    (package / "_bench" / "suite.py").touch()
    monkeypatch.setattr(bench, "_PACKAGE", package)
    assert mlp_xp("bench").status == 3
    assert started[0][1] == str(package / "_bench" / "suite.py")


def test_rounds_are_at_least_one(fails, started):
    assert "expected an integer of at least 1" in fails("bench", "--rounds", 0)
    assert started == []
