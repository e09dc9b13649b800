"""`mlp-xp train`: what it prints and writes, by options or recipes; `mlp-xp recipes`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import matrix
from PIL import Image
from running import DRAWN, FILES, RECIPE, TINY, complete, history_of

from mlp_xp import MLP
from mlp_xp._utils.storage.durable import locked
from mlp_xp.cli.run_folder import folder as new_run
from mlp_xp.cli.settings import Settings
from mlp_xp.cli.training import results, settings
from mlp_xp.cli.training.settings import create_estimator
from mlp_xp.datasets import LOADERS, load_digits, split_dataset
from mlp_xp.optimizers import OPTIMIZERS, AdamW, Lion, Muon
from mlp_xp.saving import load_model
from mlp_xp.saving._json import decode


@pytest.fixture(autouse=True)
def nothing_is_drawn(finished, undrawn):
    """These tests read the same finished run."""


def test_train_prints_a_line_for_each_epoch_and_the_result_last(train_digits):
    first, *lines = train_digits("--epochs", 3).out.splitlines()
    assert first == "loading digits"
    assert lines[0] == "digits: 1,438 images to train on, 359 to test"
    assert lines[1] == "network: 64-16-10, relu, adamw"
    assert lines[2].startswith("backend: library ")
    epoch = r"epoch \d/3  loss \d\.\d{3}  acc [\d.]+ %  [\d,]+ images/s  \d:\d\d left"
    assert all(re.fullmatch(epoch, line) for line in lines[3:6])
    assert lines[6] == "saved in run"
    assert lines[7] == "report in run/report.html"
    assert re.fullmatch(r"test accuracy [\d.]+ %, [\d.]+ s, [\d,]+ images/s", lines[8])
    assert len(lines) == 9


def test_the_run_folder_contains_settings_history_result_and_plots(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    assert [path.name for path in finished.parent.iterdir()] == ["digits"]
    for name in ("curves.png", "confusion.png"):
        with Image.open(finished / name) as image:
            assert min(image.size) > 500
    config = json.loads((finished / "config.json").read_text())
    assert (config["settings"]["data"], config["settings"]["recipe"]) == ("digits", "default")
    assert config["settings"]["params"]["hidden_layer_sizes"] == {"tuple": [16]}
    assert config["backend"]["name"] in ("numpy", "cupy", "torch", "jax")
    assert config["versions"]["numpy"] == np.__version__
    rows, model = history_of(finished), load_model(finished)
    digits, result = load_digits(), config["result"]
    assert result["test_accuracy"] == model.score(digits.x_test, digits.y_test) > 0.5
    assert result["interrupted"] is False
    seconds = sum(float(row["seconds"]) for row in rows)
    assert result["seconds"] == pytest.approx(seconds)
    assert result["images_per_second"] == pytest.approx(8 * 1078 / seconds)
    names = "epoch loss accuracy learning_rate n_samples seconds validation_loss"
    assert list(rows[0]) == [*names.split(), "validation_accuracy"]
    assert [row["epoch"] for row in rows] == list("12345678")
    assert all(row["n_samples"] == "1078" and 0 < float(row["accuracy"]) < 1 for row in rows)
    losses = [float(row["loss"]) for row in rows]
    assert losses == model.loss_curve_
    assert losses[-1] < losses[0]
    # Validation images are held out of the training set.
    *_, x_held, y_held = split_dataset(digits.x_train, digits.y_train, 0.75, seed=0)
    assert float(rows[-1]["validation_accuracy"]) == model.score(x_held, y_held)


def test_a_class_without_training_images_is_an_error(fails):
    line = fails(*TINY, "--validation", "0.99", "--out", "run")
    assert "leaves 14 samples to train on, but none of the classes 4, 7, 8: hold out" in line
    assert list(Path().iterdir()) == []


def test_test_images_are_used_once_and_validation_does_not_affect_training(
    monkeypatch, train_digits
):
    seen = []

    class Watched(MLP):
        def fit(self, X, y, **held):
            seen.extend(x for x in (X, held.get("X_val")) if x is not None)
            return super().fit(X, y, **held)

        def _outputs(self, X, method, **settings):  # All that predicts or scores is made of this.
            seen.append(X)
            return super()._outputs(X, method, **settings)

    digits = load_digits()
    monkeypatch.setitem(LOADERS, "digits", lambda: digits)
    with monkeypatch.context() as patched:
        patched.setitem(settings.ESTIMATORS, "classification", Watched)
        train_digits("--epochs", 2, "--validation", 0.25, out="held")
        out = train_digits("--epochs", 2, "--max-time", 1000, out="timed").out
    assert [X is digits.x_test for X in seen] == [False, False, True, *[False] * 3, True]
    assert [len(X) for X in seen[:3]] == [1078, 360, len(digits.x_test)]
    # Timed predictions use training images; the remaining time is for the epochs.
    assert all(np.shares_memory(X, digits.x_train) for X in seen[3:6])
    assert re.search(r"epoch 2  loss .* 0:00 left", out)
    x, y, *_ = split_dataset(digits.x_train, digits.y_train, 0.75, seed=0)
    monkeypatch.setitem(LOADERS, "digits", lambda: digits._replace(x_train=x, y_train=y))
    train_digits("--epochs", 2, out="plain")
    held, plain = (load_model(name).coefs_[0].tobytes() for name in ("held", "plain"))
    assert held == plain


@pytest.mark.parametrize("logs", [[], *matrix(["--tensorboard"])], ids=bool)
def test_checkpoints_can_be_evaluated_and_do_not_change_the_training(logs, mlp_xp, train_digits):
    options = ["--epochs", 5, "--validation", 0.25]
    train_digits(*options, "--checkpoint", 2, *logs)
    names = {path.name for path in Path("run/checkpoints").iterdir()}
    assert names == {"epoch-0002", "epoch-0004", "best"}
    scores = [float(row["validation_accuracy"]) for row in history_of(Path("run"))]
    assert load_model("run/checkpoints/best").n_iter_ == 1 + int(np.argmax(scores))
    digits = load_digits()
    for folder in ("run/checkpoints/best", "run/checkpoints/epoch-0002"):
        accuracy = load_model(folder).score(digits.x_test, digits.y_test)
        last = mlp_xp("evaluate", folder).out.splitlines()[-1]
        assert last == f"test accuracy {100 * accuracy:.2f} % of 359 images"
    if logs:
        (events,) = Path("run/tensorboard").iterdir()
        logged = events.read_bytes()
        assert all(name in logged for name in (b"loss", b"accuracy", b"learning_rate"))
    train_digits(*options, out="plain")
    run, plain = (Path(name, "model.safetensors").read_bytes() for name in ("run", "plain"))
    assert run == plain


def test_runs_get_unique_names_and_reuse_folders_of_killed_runs(mlp_xp, train_digits, monkeypatch):
    Path("run.partial").mkdir()
    Path("run.partial", "config.json").write_text("{}")
    assert train_digits("--epochs", 1).err == ""
    assert [path.name for path in Path().iterdir()] == ["run"]
    monkeypatch.setattr(new_run.time, "strftime", lambda _: "20260102-030405")
    for _ in range(2):
        assert mlp_xp(*TINY, "--epochs", 1).status == 0
    names = {path.name for path in Path("runs").iterdir()}
    assert names == {"20260102-030405-digits", "20260102-030405-digits-2"}


@pytest.mark.parametrize("taken", ["run", "run.partial"])
def test_nothing_is_overwritten(taken, fails):
    said = {"run": "run already exists", "run.partial": "another mlp-xp train is writing to"}[taken]
    Path(taken).mkdir()
    if taken == "run":
        Path(taken, "notes.txt").touch()  # An empty folder could be the folder of a run.
    with locked(Path(taken)):  # Locked by a run in progress.
        line = fails(*TINY, "--out", "run")
    assert f"error: {said}" in line
    assert "type --out run-2" in line
    assert [path.name for path in Path().iterdir()] == [taken]


def test_options_reach_the_estimator(train_digits):
    options = (
        "--hidden 8 8 --activation tanh --normalization batch --residual --dropout 0.1 "
        "--label-smoothing 0.2 --solver lion --weight-decay 0.25 --schedule cosine --epochs 2 "
        "--batch-size 99 --alpha 0.5 --max-grad-norm 1.5 --ema-decay 0.75 --seed 7 "
        "--backend array_api_strict --precision float64 --placement streamed "
        "--validation 0.2 --scoring balanced_accuracy"
    )
    parts = "network: 64-8-8-10, tanh, lion, batch normalization, residual, dropout 0.1"
    assert train_digits(*options.split()).out.splitlines()[2] == parts
    params = load_model("run").get_params()
    expected = {"hidden_layer_sizes": (8, 8), "activation": "tanh", "normalization": "batch"}
    expected |= {"residual": True, "dropout": 0.1, "label_smoothing": 0.2, "alpha": 0.5}
    expected |= {"solver": Lion(weight_decay=0.25), "learning_rate": "cosine", "max_iter": 2}
    expected |= {"learning_rate_init": 0.01, "batch_size": 99, "max_grad_norm": 1.5}
    expected |= {"ema_decay": 0.75, "backend": "array_api_strict", "precision": "float64"}
    expected |= {"placement": "streamed", "random_state": 7, "input_scaling": "standardize"}
    expected |= {"n_iter_no_change": float("inf"), "scoring": "balanced_accuracy"}
    assert "validation_score" in history_of(Path("run"))[0]
    assert {name: params[name] for name in expected} == expected
    written = json.loads(Path("run/config.json").read_text())["settings"]
    assert set(written) == set(vars(Settings("digits")))
    again = {name: decode(value, name) for name, value in written["params"].items()}
    assert again == {name: value for name, value in params.items() if name != "callbacks"}


@pytest.mark.parametrize("solver", [*OPTIMIZERS, "lbfgs"])
def test_every_solver_trains_with_weight_decay_if_supported(solver, train_digits):
    decays = solver in ("adamw", "lion", "muon")
    train_digits("--solver", solver, *["--weight-decay", "0.5"] * decays, "--epochs", 1)
    expected = OPTIMIZERS[solver](weight_decay=0.5) if decays else solver
    assert load_model("run").solver == expected


def test_without_options_the_default_recipe_is_used():
    typed = complete()
    assert typed == Settings(
        "cifar10", recipe="default", params={"random_state": 0, "distributed": None}
    )
    params = create_estimator(typed).get_params()
    expected = {"hidden_layer_sizes": (512, 512), "solver": AdamW(weight_decay=1.0)}
    expected |= {"max_iter": 12, "n_iter_no_change": float("inf"), "backend": "auto"}
    assert {name: params[name] for name in expected} == expected


def test_early_stopping_keeps_the_best_network(train_digits):
    train_digits("--early-stopping", 2, "--epochs", 60, "--learning-rate", 0.03)
    model = load_model("run")
    best = max(model.validation_scores_)
    assert model.best_validation_score_ == best
    # One more than that, as in scikit-learn.
    assert model.n_iter_ == model.validation_scores_.index(best) + 1 + 3 < 60
    assert complete("--early-stopping").params["n_iter_no_change"] == 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("schedule", ["constant", "invscaling"])
def test_networks_without_hidden_layers_train_with_every_schedule(schedule, train_digits):
    """There is also no warning about convergence."""
    options = ["--hidden", "--schedule", schedule, "--epochs", 1]
    assert train_digits(*options, out=schedule).err == ""
    assert [W.shape for W in load_model(schedule).coefs_] == [(64, 10)]


def test_options_override_the_recipe(recipe):
    options = "--recipe", recipe, "--epochs", 7, "--hidden", 4, 4, "--no-residual", "--seed", 5
    model = create_estimator(complete(*options))
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
        assert create_estimator(complete("--recipe", recipe, *options)).solver == solver
    assert create_estimator(complete("--recipe", recipe)).random_state == 0
    recipe.write_text(RECIPE + "random_state = 9\n")
    assert create_estimator(complete("--recipe", recipe)).random_state == 9


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
def test_a_weight_decay_for_a_solver_without_one_is_an_error(solver, options, name, fails, recipe):
    recipe.write_text(re.sub("solver = .*", f"solver = {solver}", RECIPE))
    line = fails("train", "--recipe", recipe, *options, "--weight-decay", 0.5, "--out", "run")
    said = f"decay is 0.5, but the solver {name} does not support weight decay: leave it out"
    assert said in line
    assert "set --solver to one of adamw, lion, muon\n" in line
    assert not Path("run").exists()


@pytest.mark.parametrize("options", [["--validation", 0.25], *matrix(["--tensorboard"])])
def test_lbfgs_trains_and_writes_a_complete_run(options, mlp_xp, recipe):
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


def test_early_stopping_has_a_best_checkpoint_and_a_validation_curve(mlp_xp, recipe, monkeypatch):
    drawn = []
    monkeypatch.setattr(results, "draw_results", lambda *given: drawn.append(given))
    recipe.write_text(RECIPE + "early_stopping = true\n")
    assert mlp_xp("train", "--recipe", recipe, "--checkpoint", 9, "--out", "run").status == 0
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["best"]
    assert load_model("run").solver == Muon(ns_steps=3, weight_decay=0.02)
    ((_, task, history, _, scores),) = drawn
    curves = results.draw_curves(history, task, scores)
    labels = {label: set(lines) for label, lines in curves.panels.items()}
    assert labels == {key: {"training", "validation"} for key in ("loss", "accuracy [%]")}
    assert curves.test == {"accuracy [%]": 100 * scores["test_accuracy"]}


def test_a_recipe_without_its_library_trains_on_numpy(fails, mlp_xp, recipe, monkeypatch, undrawn):
    monkeypatch.setattr("mlp_xp.backends.installed", lambda name: name == "numpy")
    monkeypatch.setattr("mlp_xp.cli.loading.installed", lambda name: name == "numpy")
    recipe.write_text(re.sub("backend = .*", 'backend = "torch"\nprecision = "bf16"', RECIPE))
    done = mlp_xp("train", "--recipe", recipe, "--out", "run")
    assert re.search(r"^note: torch.* is not installed: training on NumPy in float32", done.err)
    assert '[torch]"' in done.err
    assert load_model("run").precision == "auto"
    assert MLP.from_recipe("one-minute", backend="numpy").precision == "auto"
    with pytest.warns(UserWarning, match="torch, which the recipe one-minute uses"):
        assert MLP.from_recipe("one-minute").backend == "numpy"
    monkeypatch.setitem(LOADERS, "cifar10", None)  # The error does not need the data.
    line = fails("train", "--recipe", "record")
    assert re.search("torch, which is not installed: .*here: default, .*Or type --backend", line)
    assert "Recipes that run" not in fails("train", "--backend", "jax")
    lines = mlp_xp("recipes").out.splitlines()
    needs = {line.split()[0]: line.partition("; ")[2] for line in lines}
    assert needs["one-minute"] == "torch is not installed, so it runs on NumPy, which is slower"
    assert needs["record"] == "needs a CUDA GPU, which this machine lacks"
    assert needs["default"] == ""
