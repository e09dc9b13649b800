"""Recipes on the clock: what `bench.speedrun` writes, adds to and draws."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from mlp_xp import MLP
from mlp_xp.optimizers import Muon

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
def speedrun(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("bench.speedrun")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_seeds_are_measured_added_and_drawn(speedrun, recipe, tmp_path, capsys):
    file, docs = tmp_path / "new" / "speedrun-tiny.json", tmp_path
    options = [str(recipe), "--into", str(file), "--docs", str(docs), "--validation", "0.2"]
    speedrun.main([*options, "--seeds", "0"])
    speedrun.main([*options, "--seeds", "1"])
    result = json.loads(file.read_text())
    assert list(result["runs"]) == ["0", "1"]
    assert result["settings"] == RECIPE
    assert result["command"] == f"mlp-xp train --recipe {recipe} --validation 0.2 --seed SEED"
    assert result["environment"]["versions"]["numpy"] == np.__version__
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
    assert (docs / "speedrun-tiny.png").stat().st_size > 10_000
    table = speedrun.report(tmp_path)
    assert table.splitlines()[-1] == speedrun.row(result)
    assert f"{100 * mean:.2f} ± " in table
    assert ", 2 seeds (validation " in table

    recipe.write_text(RECIPE + "alpha = 0.5\n")
    with pytest.raises(SystemExit, match="has another settings"):
        speedrun.main([*options, "--seeds", "2"])


def test_steps_of_automatic_batches_are_counted(speedrun, recipe, tmp_path):
    recipe.write_text(RECIPE.replace("batch_size = 100", 'batch_size = "auto"'))
    words = ["train", "--recipe", str(recipe)]
    assert speedrun.run_seed(words, 0)["steps"] == 2 * -(-1438 // 200)


def test_the_page_has_the_table_of_the_newest_results(speedrun):
    page = Path(__file__).parents[2] / "docs" / "accuracy.md"
    assert speedrun.report() in page.read_text(), "paste what bench.speedrun --report prints"


def test_charts_of_the_newest_results_are_drawn_again(speedrun, tmp_path):
    speedrun.main(["--charts", "--docs", str(tmp_path)])
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for path in speedrun.HISTORY.parents[1].glob("docs/speedrun-*.png")}
    figure = speedrun.chart(speedrun.newest_results()["speedrun-hour"])
    assert figure.get_suptitle() == "mlp-xp train --recipe hour --seed SEED, 3 seeds"
    assert [axes.get_ylabel() for axes in figure.axes] == ["training loss", "accuracy [%]"]


def test_one_seed_has_no_spread(speedrun):
    run = dict.fromkeys(("test_accuracy", "seconds", "epochs", "parameters", "flop"), 0.5)
    run["validation_accuracy"] = None
    summary = speedrun.summarized([run])
    assert summary["test_accuracy"] == {"mean": 0.5, "deviation": None}
    assert "validation_accuracy" not in summary
    facts = {"cpu": "a processor", "cpus": 2}
    result = {"recipe": "x", "command": "y", "environment": facts, "runs": {"0": run}}
    assert "| 50.00 %, one seed | 0.5 s |" in speedrun.row(result | {"summary": summary})


def test_only_muon_has_products_in_its_update(speedrun):
    X, y = np.eye(6, dtype=np.float32), np.arange(6) % 3
    settings = {"hidden_layer_sizes": (5, 4), "max_iter": 1, "learning_rate": "cosine"}
    assert speedrun.update_work(MLP(**settings).fit(X, y)) == 0
    work = speedrun.update_work(MLP(**settings, solver=Muon(ns_steps=3)).fit(X, y))
    assert work == 3 * (4 * 25 * 6 + 2 * 125 + 4 * 16 * 5 + 2 * 64)
