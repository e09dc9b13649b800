"""`mlp-xp train --recipe`, `mlp-xp recipes`, and a command that ends in its time."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from running import FILES, history_of, start

from mlp_xp import MLP
from mlp_xp.cli import deadline, settings, train
from mlp_xp.cli.commands import parse
from mlp_xp.cli.deadline import Deadline
from mlp_xp.cli.settings import settings_of
from mlp_xp.cli.start import process_began
from mlp_xp.datasets import LOADERS, load_digits
from mlp_xp.optimizers import AdamW, Lion, Muon
from mlp_xp.recipes import names
from mlp_xp.saving import load_model

RECIPE = """
description = "digits"
data = "digits"
hidden_layer_sizes = [16]
solver = {class = "Muon", ns_steps = 3, weight_decay = 0.02}
learning_rate = "linear"
learning_rate_init = 0.01
batch_size = 128
max_iter = 3
n_iter_no_change = inf
input_scaling = "standardize"
residual = true
backend = "numpy"
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def typed(*words: object) -> MLP:
    """Give the estimator that `mlp-xp train` makes of options."""
    args = parse(["train", *map(str, words)])
    return settings_of(args).estimator()


def test_recipes_are_listed_with_a_line_each(mlp_xp):
    lines = mlp_xp("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert "one-minute     CIFAR-10 in a minute on two CPU cores" in lines


def test_a_file_is_trained_by(mlp_xp, recipe):
    done = mlp_xp("train", "--recipe", recipe, "--out", "run")
    assert done.status == 0
    assert done.out.splitlines()[1] == "network: 64-16-10, relu, muon, residual"
    assert {path.name for path in Path("run").iterdir()} == FILES
    model = load_model("run")
    assert model.n_iter_ == 3
    assert model.solver == Muon(ns_steps=3, weight_decay=0.02)
    assert mlp_xp("evaluate", "run").status == 0


def test_options_go_before_the_recipe(recipe):
    model = typed("--recipe", recipe, "--epochs", 7, "--hidden", 4, 4, "--no-residual", "--seed", 5)
    assert model.max_iter == 7
    assert model.hidden_layer_sizes == (4, 4)
    assert model.random_state == 5
    assert model.residual is False
    assert (model.learning_rate, model.batch_size) == ("linear", 128)
    assert typed("--recipe", recipe).random_state == 0
    recipe.write_text(RECIPE + "random_state = 9\n")
    assert typed("--recipe", recipe).random_state == 9


@pytest.mark.parametrize(
    ("options", "solver"),
    [
        (["--weight-decay", 0.5], Muon(ns_steps=3, weight_decay=0.5)),
        (["--solver", "muon"], Muon(ns_steps=3, weight_decay=0.02)),
        (["--solver", "lion"], Lion(weight_decay=0.02)),
        (["--solver", "adamw", "--weight-decay", 0.5], AdamW(weight_decay=0.5)),
        (["--solver", "sgd"], "sgd"),
        (["--solver", "lbfgs"], "lbfgs"),
    ],
)
def test_an_update_rule_is_made_of_recipe_and_options(options, solver, recipe):
    assert typed("--recipe", recipe, *options).solver == solver


@pytest.mark.parametrize(
    ("solver", "options", "name"),
    [
        ('{class = "Muon"}', ["--solver", "rmsprop"], "rmsprop"),
        ('{class = "Muon"}', ["--solver", "lbfgs"], "lbfgs"),
        ('{class = "SGD"}', [], "SGD"),
        ('"lbfgs"', [], "lbfgs"),
        ('{class = "ByKind"}', [], "ByKind"),
    ],
)
def test_a_weight_decay_that_no_rule_would_have_is_refused(solver, options, name, fails, recipe):
    recipe.write_text(re.sub("solver = .*", f"solver = {solver}", RECIPE))
    line = fails("train", "--recipe", recipe, *options, "--weight-decay", 0.5, "--out", "run")
    assert f"--weight-decay is 0.5, and the solver {name} has none: leave it out" in line
    assert "--solver with one of adamw, lion, muon\n" in line
    assert not Path("run").exists()


@pytest.mark.parametrize("held", [[], ["--validation", 0.25]])
def test_lbfgs_trains_by_a_recipe_and_leaves_a_whole_run(held, mlp_xp, recipe):
    recipe.write_text(re.sub("solver = .*", 'solver = "lbfgs"', RECIPE))
    options = ["--checkpoint", 1, "--tensorboard", *held, "--out", "run"]
    done = mlp_xp("train", "--recipe", recipe, *options)
    assert (done.status, done.err) == (0, "")
    assert "network: 64-16-10, relu, lbfgs, residual\n" in done.out
    assert re.search(r"epoch 3/3  loss \d\.\d{3}  (val [\d.]+ %  )?[\d,]+ images/s", done.out)
    assert {path.name for path in Path("run").iterdir()} == FILES | {"checkpoints", "tensorboard"}
    rows = history_of(Path("run"))
    assert [(row["accuracy"], row["learning_rate"]) for row in rows] == [("", "nan")] * 3
    config = json.loads(Path("run/config.json").read_text())
    assert config["settings"]["params"]["solver"] == load_model("run").solver == "lbfgs"
    assert mlp_xp("evaluate", "run").status == 0


def test_lbfgs_moves_the_bar_of_a_terminal(mlp_xp, recipe, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = mlp_xp("train", "--recipe", recipe, "--solver", "lbfgs", "--out", "run")
    assert re.search(r"3/3 ━+ loss", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", done.out))


def test_lbfgs_that_finds_nothing_to_do_leaves_a_whole_run(mlp_xp, recipe):
    recipe.write_text(re.sub("solver = .*", 'solver = "lbfgs"\ntol = 1e9', RECIPE))
    done = mlp_xp("train", "--recipe", recipe, "--out", "run")
    assert (done.status, done.err) == (0, "")
    assert history_of(Path("run")) == []
    assert {path.name for path in Path("run").iterdir()} == FILES


def test_what_is_wrong_with_a_recipe_is_one_line(fails, recipe):
    recipe.write_text(RECIPE + "lable_smoothing = 0.1\n")
    assert f"{recipe}: 'lable_smoothing' is not one of" in fails("train", "--recipe", recipe)
    assert "did you mean 'five-minutes'?" in fails("train", "--recipe", "five-minute")
    assert not Path("runs").exists()


def test_what_early_stopping_holds_out_is_validated_on(mlp_xp, recipe, monkeypatch):
    recipe.write_text(RECIPE + "early_stopping = true\n")
    drawn = []
    monkeypatch.setattr(train, "curves_figure", lambda *given: drawn.append(given) or Figure())
    assert mlp_xp("train", "--recipe", recipe, "--checkpoint", 9, "--out", "run").status == 0
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["best"]
    assert set(drawn[0][1]) == {"training", "validation"}


# --- time ----------------------------------------------------------------------------------------


def test_a_command_ends_in_its_time(mlp_xp, recipe, monkeypatch):
    options = ["--epochs", 10**6, "--max-time", 8, "--out", "run"]
    began = time.perf_counter()
    done = mlp_xp("train", "--recipe", recipe, *options)
    assert time.perf_counter() - began < 12.0  # Others may be at work on the machine.
    assert done.status == 0
    assert re.search(r"epoch 2  loss .* 0:0\d left", done.out)
    assert re.search(r" images/s, \d\.\d s in all$", done.out.strip())
    model = load_model("run")
    assert 1 < model.n_iter_ < 10**6
    assert model.max_time == 8
    assert model.history_[-1].learning_rate < 1e-3


def test_time_left_is_no_more_than_the_epochs_take(mlp_xp, recipe):
    done = mlp_xp("train", "--recipe", recipe, "--epochs", 3, "--max-time", 60, "--out", "run")
    assert re.search(r"epoch 3  loss .* 0:00 left", done.out)


def test_the_time_for_predictions_is_told_by_training_images(mlp_xp, recipe, monkeypatch):
    seen = []

    class Watched(MLP):
        def _outputs(self, X, method, **settings):
            seen.append(X)
            return super()._outputs(X, method, **settings)

    digits = load_digits()
    monkeypatch.setitem(LOADERS, "digits", lambda: digits)
    monkeypatch.setattr(settings, "MLPClassifier", Watched)
    assert mlp_xp("train", "--recipe", recipe, "--max-time", 1000, "--out", "run").status == 0
    assert [X is digits.x_test for X in seen] == [False, False, True]
    assert all(np.shares_memory(X, digits.x_train) for X in seen[:2])


def test_the_picture_that_tells_the_time_is_not_kept(mlp_xp, recipe, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(train, "curves_figure", fail)
    assert mlp_xp("train", "--recipe", recipe, "--max-time", 1000, "--out", "run").status == 2
    kept = {path.name for path in Path("run.partial").iterdir()}
    assert kept == FILES - {"curves.png", "confusion.png"}


def test_a_time_that_is_not_enough_is_told_before_the_training(fails, recipe):
    line = fails("train", "--recipe", recipe, "--max-time", "0.5")
    assert "max_time is 0.5 s, and " in line
    assert line.endswith("give more\n")
    assert not list(Path("runs").iterdir())


def test_a_deadline_leaves_what_predictions_and_writing_take(monkeypatch):
    class Clock:
        now = 100.0
        perf_counter = staticmethod(lambda: Clock.now)

    class Model:
        max_time = 60.0

        def predict(self, x):
            Clock.now += 0.01 * len(x)
            return x[:, 0]

    def draw(predicted):
        assert len(predicted) == 100
        Clock.now += 2.0

    monkeypatch.setattr(deadline, "time", Clock)
    model, watch = Model(), Deadline(150.0, np.zeros((100, 2)), 400, draw)
    Clock.now += 5.0
    watch.on_fit_begin(model)
    # From 100: 400 images take 4 s and a quarter more, the pictures one and a half of the one.
    assert model.max_time == pytest.approx(50.0 - 1.5 - 1.25 * 4.0 - 1.5 * 2.0)


def test_a_process_knows_when_it_began():
    before = time.perf_counter()
    process = start("recipes")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert process_began() <= before
