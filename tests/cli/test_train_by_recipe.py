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
    """Return the estimator that `mlp-xp train` makes of options."""
    args = parse(["train", *map(str, words)])
    return settings_of(args).estimator()


def test_recipes_are_listed_with_a_line_each(mlp_xp):
    lines = mlp_xp("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    (one_minute,) = [line for line in lines if line.startswith("one-minute ")]
    assert one_minute.startswith("one-minute     CIFAR-10 in a minute on two CPU cores")


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


def test_a_time_that_is_not_enough_trains_what_it_can(mlp_xp, recipe):
    done = mlp_xp("train", "--recipe", recipe, "--max-time", "0.01", "--out", "run")
    assert done.status == 0
    assert re.search(
        r"note: max_time of 0.01 s is short: [\d.]+ s have passed before the training, and the "
        r"test takes 0.0 s, so no pictures are drawn, the command ends about [\d.]+ s late",
        done.err,
    )
    assert {path.name for path in Path("run").iterdir()} == FILES - {"curves.png", "confusion.png"}
    assert int(history_of(Path("run"))[0]["n_samples"]) > 0
    assert "test accuracy" in done.out


class Clock:
    """A clock that predictions and pictures move."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Model:
    """An estimator whose predictions take 0.01 s an image and view."""

    max_time = 60.0

    def __init__(self, clock: Clock, views: int) -> None:
        self.clock = clock
        self.tta = None if views == 1 else ["flip"]
        self._views = views

    def predict(self, x, tta="as set"):
        self.clock.now += 0.01 * len(x) * (1 if tta is None else self._views)
        return x[:, 0]


@pytest.mark.parametrize(
    ("passed", "views", "has_views", "has_pictures", "seconds"),
    [
        # Of 60 s: 400 images take 5 s, with a quarter more, two views as much again, pictures 3 s.
        (10.0, 1, True, True, 50.0 - 1.5 - 5.0 - 3.0),
        (10.0, 2, True, True, 50.0 - 1.5 - 10.0 - 3.0),
        (34.0, 2, False, True, 26.0 - 1.5 - 5.0 - 3.0),
        (39.0, 2, False, False, 21.0 - 1.5 - 5.0),
        (50.0, 2, False, False, 8.0 + 6.0),  # 6 s for the training, after 8 s of measurements.
        (61.0, 2, False, False, 6.0),
    ],
)
def test_a_deadline_leaves_what_the_rest_takes(
    passed, views, has_views, has_pictures, seconds, monkeypatch, capsys
):
    clock = Clock()

    def draw(predicted):
        assert len(predicted) == 100
        clock.now += 2.0

    monkeypatch.setattr(deadline, "time", clock)
    model = Model(clock, views)
    watch = Deadline(160.0 - passed, np.zeros((100, 2)), 400, draw)
    watch.on_fit_begin(model)
    assert (watch.has_views, watch.has_pictures) == (has_views, has_pictures)
    assert model.max_time == pytest.approx(seconds)
    note = capsys.readouterr().err
    assert ("views" in note, "pictures" in note) == (not has_views, not has_pictures)
    assert ("late" in note) == (passed >= 50.0)


def test_a_recipe_whose_library_is_absent_says_which_run(fails, mlp_xp, monkeypatch):
    monkeypatch.setattr("mlp_xp.backends.installed", lambda name: name == "numpy")
    monkeypatch.setattr("mlp_xp.cli.loading.installed", lambda name: name == "numpy")
    monkeypatch.setitem(LOADERS, "cifar10", None)  # It is not needed to say so.
    line = fails("train", "--recipe", "one-minute")
    assert "needs torch, which is not installed: type " in line
    assert "Recipes that run here: default. Or type --backend numpy" in line
    assert "Recipes that run" not in fails("train", "--backend", "jax")
    lines = mlp_xp("recipes").out.splitlines()
    needs = {line.split()[0]: line.partition("; needs ")[2] for line in lines}
    assert needs["one-minute"] == "torch, which is not here"
    assert needs["default"] == ""


def test_a_process_knows_when_it_began():
    before = time.perf_counter()
    process = start("recipes")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert process_began() <= before
