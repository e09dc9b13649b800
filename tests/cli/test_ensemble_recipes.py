"""Recipes for ensembles: training, the files of a run, and what the other commands do with it."""

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from mlp_xp import MLPEnsembleRegressor, MLPTunedClassifier
from mlp_xp.callbacks import SearchCheckpoint
from mlp_xp.cli.training import ensembles
from mlp_xp.saving import load_model

SMALL = """
description = "a small ensemble"
based_on = "table"
hidden_layer_sizes = [8]
max_iter = 3
"""


@pytest.fixture
def tuned(tmp_path):
    path = tmp_path / "tuned.toml"
    path.write_text(f"{SMALL}[tuned]\nn_configurations = 2\nn_folds = 2\n")
    return path


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = [["size", "color", "kind"]]
    for size, color in zip(rng.normal(size=120), rng.choice(["red", "blue"], 120), strict=True):
        rows.append([f"{size:.3f}", color, "big" if size > 0 else "small"])
    path = tmp_path / "table.csv"
    path.write_text("\n".join(",".join(row) for row in rows))
    return path


def test_a_tuned_ensemble_is_trained_tested_and_exported(mlp_xp, table, tuned):
    done = mlp_xp("train", table, "--recipe", tuned, "--out", "run")
    assert done.status == 0, done.err
    assert "1 base  complete  loss" in done.out
    assert "search: 2 configurations, held-out loss" in done.out
    model = load_model("run")
    assert type(model) is MLPTunedClassifier
    assert model.classes_.tolist() == ["big", "small"]
    assert model.feature_names_in_.tolist() == ["size", "color"]
    with open("run/search.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["name"], first["status"], second["name"]) == ("base", "complete", "wide")
    result = json.loads(Path("run/config.json").read_text())["result"]
    assert (result["configurations"], result["interrupted"]) == (2, False)
    assert mlp_xp("evaluate", "run").out.splitlines()[-1].split(" (")[0] in done.out
    assert "120 rows: " in mlp_xp("predict", "run", table).out
    assert "outputs: probabilities (2)" in mlp_xp("export", "run", "--to", "c").out
    assert "run" in mlp_xp("runs", ".").out
    assert "complete after 3 epochs: nothing to train" in mlp_xp("train", "--resume", "run").out


def test_the_default_time_limit_is_printed(mlp_xp, table, tuned, monkeypatch):
    tuned.write_text(tuned.read_text().replace("n_configurations = 2", ""))
    monkeypatch.setattr(ensembles, "default_seconds", lambda n_rows: n_rows / 96)
    done = mlp_xp("train", table, "--recipe", tuned, "--out", "run")
    assert "search: up to 1 s; to change this, type --max-time" in done.out
    assert json.loads(Path("run/config.json").read_text())["result"]["configurations"] >= 1


def test_an_interrupted_search_is_resumed(mlp_xp, table, tuned, monkeypatch):
    write = SearchCheckpoint._write

    def press(self, trial):
        write(self, trial)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SearchCheckpoint, "_write", press)
    done = mlp_xp("train", table, "--recipe", tuned, "--max-time", 100, "--out", "run")
    assert done.status == 130
    assert "to resume the training, type mlp-xp train --resume run" in done.out
    assert load_model("run").search_results_["status"] == ["complete"]
    monkeypatch.setattr(SearchCheckpoint, "_write", write)
    again = mlp_xp("train", "--resume", "run")
    assert again.status == 0, again.err
    results = load_model("run").search_results_
    assert results["name"] == ["base", "wide"]
    assert results["status"] == ["complete", "complete"]


def test_an_ensemble_of_one_setting_is_trained(mlp_xp, table, tmp_path):
    recipe = tmp_path / "best.toml"
    recipe.write_text(f"{SMALL}[ensemble]\nn_estimators = 2\n")
    options = "--recipe", recipe, "--target", "size", "--out", "run"
    done = mlp_xp("train", table, *options, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["networks"] == 2
    assert type(load_model("run")) is MLPEnsembleRegressor
    assert "120 rows: mean" in mlp_xp("predict", "run", table).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "table-best", "--max-time", "9"], "table-best has no time limit: leave out"),
        (["--recipe", "table-tuned", "--validation", "0.2"], "--validation is for a single netwo"),
        (["--recipe", "table-tuned", "--checkpoint", "1"], "--checkpoint is for a single network"),
    ],
)
def test_options_of_a_single_network_are_refused(mlp_xp, table, options, message):
    done = mlp_xp("train", table, *options)
    assert done.status == 2
    assert message in done.err
