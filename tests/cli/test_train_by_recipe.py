"""`mlp-xp train --recipe` and `mlp-xp recipes`."""

import json
import re
from pathlib import Path

import pytest
from running import DRAWN, FILES, RECIPE, history_of

from mlp_xp.cli import results, train
from mlp_xp.cli.commands import parse
from mlp_xp.cli.settings import settings_of
from mlp_xp.datasets import LOADERS
from mlp_xp.optimizers import AdamW, Lion, Muon
from mlp_xp.recipes import names
from mlp_xp.saving import load_model


def typed(*words):
    """Return the estimator that `mlp-xp train` makes of options."""
    return settings_of(parse(["train", *map(str, words)])).estimator()


def test_recipes_prints_a_line_for_each(mlp_xp):
    lines = mlp_xp("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert any(re.match("one-minute +CIFAR-10 in a minute on two CPU cores", x) for x in lines)


def test_a_recipe_file_is_trained(mlp_xp, recipe, undrawn):
    done = mlp_xp("train", "--recipe", recipe, "--out", "run")
    assert done.status == 0
    assert done.out.splitlines()[2] == "network: 64-16-10, relu, muon, residual"
    model = load_model("run")
    assert (model.n_iter_, model.solver) == (3, Muon(ns_steps=3, weight_decay=0.02))


def test_options_override_the_recipe(recipe):
    model = typed("--recipe", recipe, "--epochs", 7, "--hidden", 4, 4, "--no-residual", "--seed", 5)
    assert (model.max_iter, model.hidden_layer_sizes, model.random_state) == (7, (4, 4), 5)
    assert (model.residual, model.learning_rate, model.batch_size) == (False, "linear", 128)
    for options, solver in (
        (["--weight-decay", 0.5], Muon(ns_steps=3, weight_decay=0.5)),
        (["--solver", "muon"], Muon(ns_steps=3, weight_decay=0.02)),
        (["--solver", "lion"], Lion(weight_decay=0.02)),
        (["--solver", "adamw", "--weight-decay", 0.5], AdamW(weight_decay=0.5)),
        (["--solver", "sgd"], "sgd"),
        (["--solver", "lbfgs"], "lbfgs"),
    ):
        assert typed("--recipe", recipe, *options).solver == solver
    assert typed("--recipe", recipe).random_state == 0
    recipe.write_text(RECIPE + "random_state = 9\n")
    assert typed("--recipe", recipe).random_state == 9


def test_a_weight_decay_for_a_solver_without_one_is_an_error(fails, recipe):
    for solver, options, name in (
        ('{class = "Muon"}', ["--solver", "rmsprop"], "rmsprop"),
        ('{class = "Muon"}', ["--solver", "lbfgs"], "lbfgs"),
        ('{class = "SGD"}', [], "SGD"),
        ('"lbfgs"', [], "lbfgs"),
        ('{class = "ByKind"}', [], "ByKind"),
    ):
        recipe.write_text(re.sub("solver = .*", f"solver = {solver}", RECIPE))
        line = fails("train", "--recipe", recipe, *options, "--weight-decay", 0.5, "--out", "run")
        assert f"--weight-decay is 0.5, and the solver {name} has none: leave it out" in line
        assert "--solver with one of adamw, lion, muon\n" in line
        assert not Path("run").exists()


@pytest.mark.parametrize(
    "options",
    [["--validation", 0.25], pytest.param(["--tensorboard"], marks=pytest.mark.matrix)],
)
def test_lbfgs_trains_and_writes_a_complete_run(options, mlp_xp, recipe, undrawn):
    recipe.write_text(re.sub("solver = .*", 'solver = "lbfgs"', RECIPE))
    done = mlp_xp("train", "--recipe", recipe, "--checkpoint", 1, *options, "--out", "run")
    assert (done.status, done.err) == (0, "")
    assert "network: 64-16-10, relu, lbfgs, residual\n" in done.out
    assert re.search(r"epoch 3/3  loss \d\.\d{3}  (val [\d.]+ %  )?[\d,]+ images/s", done.out)
    logs = {"tensorboard"} if "--tensorboard" in options else set()
    assert {path.name for path in Path("run").iterdir()} == FILES - DRAWN | {"checkpoints"} | logs
    rows = history_of(Path("run"))
    assert [(row["accuracy"], row["learning_rate"]) for row in rows] == [("", "nan")] * 3
    config = json.loads(Path("run/config.json").read_text())
    assert config["settings"]["params"]["solver"] == load_model("run").solver == "lbfgs"
    assert mlp_xp("evaluate", "run").status == 0


def test_a_run_of_lbfgs_without_an_epoch_is_drawn(mlp_xp, recipe):
    recipe.write_text(re.sub("solver = .*", 'solver = "lbfgs"\ntol = 1e9', RECIPE))
    done = mlp_xp("train", "--recipe", recipe, "--out", "run")
    assert (done.status, done.err, history_of(Path("run"))) == (0, "", [])
    assert {path.name for path in Path("run").iterdir()} == FILES


def test_an_error_in_a_recipe_is_one_line(fails, recipe):
    recipe.write_text(RECIPE + "lable_smoothing = 0.1\n")
    assert f"{recipe}: 'lable_smoothing' is not one of" in fails("train", "--recipe", recipe)
    assert "did you mean 'five-minutes'?" in fails("train", "--recipe", "five-minute")
    assert not Path("runs").exists()


def test_early_stopping_has_a_best_checkpoint_and_a_validation_curve(
    mlp_xp, recipe, undrawn, monkeypatch
):
    drawn = []
    monkeypatch.setattr(train, "draw_results", lambda *given: drawn.append(given))
    recipe.write_text(RECIPE + "early_stopping = true\n")
    assert mlp_xp("train", "--recipe", recipe, "--checkpoint", 9, "--out", "run").status == 0
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["best"]
    ((_, task, history, _, scores),) = drawn
    curves = results.draw_curves(history, task, scores)
    assert {label: set(lines) for label, lines in curves.panels.items()} == {
        "loss": {"training", "validation"},
        "accuracy [%]": {"training", "validation"},
    }
    assert curves.test == {"accuracy [%]": 100 * scores["test_accuracy"]}


def test_a_recipe_whose_library_is_missing_names_those_that_run(fails, mlp_xp, monkeypatch):
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
