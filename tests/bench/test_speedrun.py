"""Recipes on the clock: what `bench.studies.speedrun` writes, adds to and draws."""

import json
from types import SimpleNamespace

import pytest

from mlp_xp.cli import main

RECIPE = """
description = "digits"
data = "digits"
hidden_layer_sizes = [8]
solver = {class = "Muon", ns_steps = 2}
batch_size = 100
max_iter = 2
n_iter_no_change = inf
backend = "numpy"
"""


@pytest.fixture
def speedrun(module):
    return module("bench.studies.speedrun")


@pytest.fixture
def recipe(speedrun, tmp_path, monkeypatch):
    """A small recipe; the command runs in this process, and draws nothing."""

    def run(command, check):
        assert command[1:3] == ["-m", "mlp_xp"]
        assert main(command[3:]) == 0

    monkeypatch.setattr(speedrun, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr("mlp_xp.cli.training.results.draw_results", lambda *_: None)
    monkeypatch.setattr("mlp_xp.cli.training.results.write_report", lambda *_: None)
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_speedrun_seeds_are_measured_appended_and_plotted(module, speedrun, recipe, tmp_path):
    file = tmp_path / "new" / "speedrun-tiny.json"
    options = [str(recipe), "--into", str(file), "--validation", "0.2"]
    speedrun.main([*options, "--seeds", "0"])
    speedrun.main([*options, "--seeds", "1"])
    result = json.loads(file.read_text())["speedrun"]
    assert list(result["runs"]) == ["0", "1"]
    assert result["settings"] == RECIPE
    first, second = result["runs"].values()
    assert first["images"] == 2 * 1150
    assert (first["epochs"], first["steps"], first["parameters"]) == (2.0, 24, 64 * 8 + 8 + 90)
    products = 2 * 2 * 64 * 8 + 3 * 2 * 8 * 10
    assert first["flop"] == products * 2300 + 24 * (4 * 8 * 8 * 64 + 5 * 2 * 8**3)
    assert 0 < first["training_seconds"] < first["seconds"]
    names = ("loss", "accuracy", "validation_accuracy")
    assert [len(first["history"][name]) for name in names] == [2, 2, 2]
    mean = result["summary"]["test_accuracy"]["mean"]
    assert mean == pytest.approx((first["test_accuracy"] + second["test_accuracy"]) / 2)
    module("bench.reports.charts").speedrun_figure(result).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    recipe.write_text("alpha = 0.5\n" + RECIPE)
    with pytest.raises(SystemExit, match=r"has settings .*, not .alpha = 0\.5"):
        speedrun.main([*options, "--seeds", "2"])
