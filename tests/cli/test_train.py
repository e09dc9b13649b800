"""`mlp-xp train`: what it prints and what it leaves."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import FILES, TINY, history_of, start

from mlp_xp import MLP
from mlp_xp._utils.signals import interrupts, postponed
from mlp_xp.callbacks import Callback
from mlp_xp.cli import main, runs, settings, train
from mlp_xp.cli.commands import parse
from mlp_xp.cli.settings import Settings, settings_of
from mlp_xp.datasets import LOADERS, load_digits, split_dataset
from mlp_xp.optimizers import OPTIMIZERS, AdamW, Lion
from mlp_xp.saving import load_model
from mlp_xp.saving._json import decode

# --- train ---------------------------------------------------------------------------------------


def test_train_prints_an_epoch_a_line_and_the_result_last(mlp_xp, tmp_path):
    done = mlp_xp(*TINY, "--epochs", 3, "--out", tmp_path / "run")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "digits: 1,438 images to train on, 359 to test"
    assert lines[1] == "network: 64-16-10, relu, adamw"
    assert lines[2].startswith("backend: library ")
    epoch = r"epoch \d/3  loss \d\.\d{3}  acc [\d.]+ %  [\d,]+ images/s  \d:\d\d left"
    assert all(re.fullmatch(epoch, line) for line in lines[3:6])
    assert lines[6] == f"saved in {tmp_path / 'run'}"
    assert re.fullmatch(r"test accuracy [\d.]+ %, [\d.]+ s, [\d,]+ images/s", lines[7])
    assert len(lines) == 8


def test_train_leaves_a_whole_run_folder_and_nothing_beside_it(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    assert [path.name for path in finished.parent.iterdir()] == ["digits"]
    for name in ("curves.png", "confusion.png"):
        with Image.open(finished / name) as image:
            assert min(image.size) > 500


def test_the_configuration_says_how_to_do_it_again(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["data"] == "digits"
    assert config["settings"]["recipe"] == "default"
    assert config["settings"]["params"]["hidden_layer_sizes"] == {"tuple": [16]}
    assert config["settings"]["params"]["random_state"] == 0
    assert config["backend"]["name"] in ("numpy", "cupy", "torch", "jax")
    assert config["versions"]["numpy"] == np.__version__
    digits = load_digits()
    accuracy = load_model(finished).score(digits.x_test, digits.y_test)
    assert config["result"]["test_accuracy"] == accuracy > 0.5
    assert config["result"]["interrupted"] is False


def test_the_history_has_a_row_an_epoch(finished):
    rows = history_of(finished)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    assert all(row["n_samples"] == "1078" for row in rows)
    losses = [float(row["loss"]) for row in rows]
    assert losses == load_model(finished).loss_curve_
    assert losses[-1] < losses[0]
    assert list(rows[0]) == [
        "epoch",
        "loss",
        "accuracy",
        "learning_rate",
        "n_samples",
        "seconds",
        "validation_loss",
        "validation_accuracy",
    ]
    assert all(0 < float(row["accuracy"]) < 1 for row in rows)


def test_validation_images_are_held_out_of_the_training_set(finished):
    digits = load_digits()
    *_, x_held, y_held = split_dataset(digits.x_train, digits.y_train, 0.75, seed=0)
    score = load_model(finished).score(x_held, y_held)
    assert float(history_of(finished)[-1]["validation_accuracy"]) == score


def test_a_class_of_which_all_is_held_out_is_named(fails):
    line = fails(*TINY, "--validation", "0.99", "--out", "run")
    assert "--validation 0.99 leaves 14 images to train on, and none of 4, 7, 8: hold out" in line
    assert list(Path().iterdir()) == []


def test_validation_does_not_change_the_training(tmp_path, monkeypatch):
    def run(name: str, *options: str) -> MLP:
        assert main([*TINY, "--epochs", "3", "--out", name, *options]) == 0
        return load_model(name)

    held = run("held", "--validation", "0.25")
    digits = load_digits()
    x, y, *_ = split_dataset(digits.x_train, digits.y_train, 0.75, seed=0)
    monkeypatch.setitem(LOADERS, "digits", lambda: digits._replace(x_train=x, y_train=y))
    plain = run("plain")
    assert plain.coefs_[0].tobytes() == held.coefs_[0].tobytes()


def test_the_test_set_is_read_once(monkeypatch, mlp_xp):
    seen = []

    class Watched(MLP):
        def fit(self, X, y, **held):
            seen.extend([X, held["X_val"]])
            return super().fit(X, y, **held)

        def _outputs(self, X, method, **settings):  # All that predicts or scores is made of this.
            seen.append(X)
            return super()._outputs(X, method, **settings)

    digits = load_digits()
    monkeypatch.setitem(LOADERS, "digits", lambda: digits)
    monkeypatch.setattr(settings, "MLPClassifier", Watched)
    assert mlp_xp(*TINY, "--epochs", 3, "--validation", "0.25", "--out", "run").status == 0
    assert [X is digits.x_test for X in seen] == [False, False, True]
    assert [len(X) for X in seen] == [1078, 360, len(digits.x_test)]


def test_a_seed_decides_everything(mlp_xp):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert mlp_xp(*TINY, "--epochs", 1, "--seed", seed, "--out", name).status == 0
    a, b, c = (Path(name, "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_options_reach_the_estimator(mlp_xp):
    options = (
        "--hidden 8 4 --activation tanh --solver sgd --schedule cosine --epochs 2 --batch-size 99 "
        "--alpha 0.5 --backend array_api_strict --precision float64 --placement streamed --seed 7"
    )
    assert mlp_xp(*TINY, *options.split(), "--out", "run").status == 0
    params = load_model("run").get_params()
    expected = {
        "hidden_layer_sizes": (8, 4),
        "activation": "tanh",
        "solver": "sgd",
        "learning_rate": "cosine",
        "learning_rate_init": 0.01,
        "max_iter": 2,
        "batch_size": 99,
        "alpha": 0.5,
        "backend": "array_api_strict",
        "precision": "float64",
        "placement": "streamed",
        "random_state": 7,
        "input_scaling": "standardize",
        "n_iter_no_change": float("inf"),
    }
    assert {name: params[name] for name in expected} == expected


def test_further_options_reach_the_estimator(mlp_xp):
    options = (
        "--hidden 8 8 --solver lion --weight-decay 0.25 --normalization batch --residual "
        "--epochs 2 --dropout 0.1 --label-smoothing 0.2 --max-grad-norm 1.5 --ema-decay 0.75"
    )
    done = mlp_xp(*TINY, *options.split(), "--out", "run")
    assert done.status == 0
    parts = "network: 64-8-8-10, relu, lion, batch normalization, residual, dropout 0.1"
    assert done.out.splitlines()[1] == parts
    params = load_model("run").get_params()
    expected = {
        "solver": Lion(weight_decay=0.25),
        "normalization": "batch",
        "residual": True,
        "dropout": 0.1,
        "label_smoothing": 0.2,
        "max_grad_norm": 1.5,
        "ema_decay": 0.75,
    }
    assert {name: params[name] for name in expected} == expected
    written = json.loads(Path("run/config.json").read_text())["settings"]
    assert set(written) == set(vars(Settings("digits")))
    again = {name: decode(value, name) for name, value in written["params"].items()}
    assert again == {name: value for name, value in params.items() if name != "callbacks"}


@pytest.mark.parametrize("solver", [*OPTIMIZERS, "lbfgs"])
def test_every_solver_trains_and_weight_decay_goes_to_those_that_take_it(solver, mlp_xp):
    decays = solver in ("adamw", "lion", "muon")
    decay = ["--weight-decay", "0.5"] if decays else []
    assert mlp_xp(*TINY, "--solver", solver, *decay, "--epochs", 1, "--out", "run").status == 0
    expected = OPTIMIZERS[solver](weight_decay=0.5) if decays else solver
    assert load_model("run").solver == expected


def test_watching_changes_nothing(mlp_xp):
    argv = [*TINY, "--epochs", 3, "--checkpoint", 1, "--tensorboard", "--backend", "numpy"]
    assert mlp_xp(*argv, "--out", "run").status == 0
    typed = parse([*TINY, "--epochs", "3", "--backend", "numpy"])
    digits = load_digits()
    plain = settings_of(typed).estimator().fit(digits.x_train, digits.y_train)
    loaded = load_model("run")
    assert loaded.loss_curve_ == plain.loss_curve_
    for W, expected in zip(loaded.coefs_, plain.coefs_, strict=True):
        assert W.tobytes() == expected.tobytes()


def test_checkpoints_are_kept_and_can_be_evaluated(mlp_xp):
    options = "--epochs 5 --checkpoint 2 --validation 0.25 --out run"
    assert mlp_xp(*TINY, *options.split()).status == 0
    assert {path.name for path in Path("run").iterdir()} == FILES | {"checkpoints"}
    names = {path.name for path in Path("run/checkpoints").iterdir()}
    assert names == {"epoch-0002", "epoch-0004", "best"}
    scores = [float(row["validation_accuracy"]) for row in history_of(Path("run"))]
    best = load_model("run/checkpoints/best")
    assert best.n_iter_ == 1 + int(np.argmax(scores))
    digits = load_digits()
    for name, model in (("best", best), ("epoch-0002", load_model("run/checkpoints/epoch-0002"))):
        accuracy = model.score(digits.x_test, digits.y_test)
        done = mlp_xp("evaluate", f"run/checkpoints/{name}")
        assert done.out.splitlines()[-1] == f"test accuracy {100 * accuracy:.2f} % of 359 images"


def test_without_validation_there_is_no_best_checkpoint(mlp_xp):
    assert mlp_xp(*TINY, "--epochs", 2, "--checkpoint", 2, "--out", "run").status == 0
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["epoch-0002"]


def test_a_log_for_tensorboard_is_written(mlp_xp):
    pytest.importorskip("tensorboardX")
    assert mlp_xp(*TINY, "--epochs", 2, "--tensorboard", "--out", "run").status == 0
    assert {path.name for path in Path("run").iterdir()} == FILES | {"tensorboard"}
    (events,) = Path("run/tensorboard").iterdir()
    content = events.read_bytes()
    assert all(name in content for name in (b"loss", b"accuracy", b"learning_rate"))


def test_tensorboard_is_looked_for_before_the_work(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert '[tensorboard]"' in fails(*TINY, "--tensorboard", "--out", "run")
    assert list(Path().iterdir()) == []


def test_what_draws_is_loaded_behind_the_training(tmp_path):
    # It takes as much memory as some fits.
    code = (
        "import sys\n"
        "from mlp_xp.cli import main, train\n"
        "write = train._write_history\n"
        "def show(*given):\n"
        "    print('matplotlib' in sys.modules)\n"
        "    write(*given)\n"
        "train._write_history = show\n"
        "main(sys.argv[1:])"
    )
    run = [sys.executable, "-c", code, *TINY, "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "False" in done.stdout.splitlines()
    assert (tmp_path / "run" / "curves.png").is_file()


def test_without_options_the_settings_are_those_of_the_default_recipe():
    typed = settings_of(parse(["train"]))
    assert typed == Settings("cifar10", "default", {"random_state": 0})
    assert (
        typed.estimator().get_params()
        == MLP(
            (512, 512),
            solver=AdamW(weight_decay=1.0),
            learning_rate="onecycle",
            max_iter=12,
            n_iter_no_change=float("inf"),
            batch_size=128,
            alpha=0.0,
            backend="auto",
            input_scaling="standardize",
            random_state=0,
        ).get_params()
    )


def test_no_hidden_layer_is_a_linear_classifier(mlp_xp):
    assert mlp_xp(*TINY, "--hidden", "--epochs", 1, "--out", "run").status == 0
    assert [W.shape for W in load_model("run").coefs_] == [(64, 10)]


def test_runs_without_a_name_get_one_each(mlp_xp, monkeypatch):
    monkeypatch.setattr(runs.time, "strftime", lambda _: "20260102-030405")
    for _ in range(2):
        assert mlp_xp(*TINY, "--epochs", 1).status == 0
    names = {path.name for path in Path("runs").iterdir()}
    assert names == {"20260102-030405-digits", "20260102-030405-digits-2"}


@pytest.mark.parametrize("taken", ["run", "run.partial"])
def test_nothing_is_overwritten(taken, fails):
    Path(taken).mkdir()
    line = fails(*TINY, "--out", "run")
    assert f"error: {taken} is already there" in line
    assert "type --out run-2" in line
    assert [path.name for path in Path().iterdir()] == [taken]


def fail(*_):
    raise OSError("No space left on device")


@pytest.mark.parametrize("what", ["confusion_figure", "curves_figure", "_write_history"])
def test_a_run_that_fails_behind_the_training_keeps_the_network(what, mlp_xp, fails, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(train, what, fail)
        done = mlp_xp(*TINY, "--epochs", 3, "--out", "run")
    assert done.status == 2
    note, error = done.err.splitlines()
    assert note == "note: kept what is in run.partial: mlp-xp evaluate run.partial"
    assert error == "mlp-xp: error: No space left on device"
    assert [path.name for path in Path().iterdir()] == ["run.partial"]
    kept = load_model("run.partial")
    assert kept.n_iter_ == 3
    digits = load_digits()
    accuracy = f"test accuracy {100 * kept.score(digits.x_test, digits.y_test):.2f} %"
    assert accuracy in mlp_xp("evaluate", "run.partial").out
    # Another run does not touch it.
    assert "run.partial is already there" in fails(*TINY, "--out", "run")
    assert load_model("run.partial").loss_curve_ == kept.loss_curve_


def test_a_prediction_that_fails_keeps_the_network(mlp_xp, monkeypatch):
    class Fails(MLP):
        def predict(self, X, **settings):
            raise MemoryError("8 GB")

    monkeypatch.setattr(settings, "MLPClassifier", Fails)
    done = mlp_xp(*TINY, "--epochs", 1, "--out", "run")
    assert done.status == 2
    assert "error: not enough memory (8 GB): ask for less" in done.err.splitlines()[1]
    assert load_model("run.partial").n_iter_ == 1


def test_an_error_in_the_training_keeps_checkpoints(mlp_xp, fails, monkeypatch):
    class Fails(Callback):
        def on_epoch_end(self, model, record):
            if record.epoch == 3:
                fail()

    real = Settings.callbacks
    with monkeypatch.context() as patched:
        patched.setattr(Settings, "callbacks", lambda *of: [*real(*of), Fails()])
        done = mlp_xp(*TINY, "--epochs", 9, "--checkpoint", 1, "--out", "run")
    assert done.status == 2
    epoch = Path("run.partial", "checkpoints", "epoch-0003")
    note, error = done.err.splitlines()
    assert note == f"note: kept what is in run.partial: mlp-xp evaluate {epoch}"
    assert error == "mlp-xp: error: No space left on device"
    assert "test accuracy" in mlp_xp("evaluate", epoch).out
    line = fails("evaluate", "run.partial")
    assert f"run.partial holds no model, and {epoch} does: type that in its place" in line


def test_a_loss_that_is_not_finite_is_pointed_out(mlp_xp):
    done = mlp_xp(*TINY, "--solver", "sgd", "--learning-rate", "1e30", "--out", "run")
    assert "try a smaller learning_rate_init. First seen in epoch 1, step" in done.err
    assert done.status == 1
    assert {path.name for path in Path("run").iterdir()} == FILES
    assert load_model("run").n_iter_ == len(history_of(Path("run"))) < 12
    assert np.isfinite(load_model("run").coefs_[0]).all()


def test_a_diverged_network_keeps_validation_and_checkpoints(mlp_xp):
    options = "--solver sgd --learning-rate 1e30 --validation 0.25 --checkpoint 1 --out run"
    done = mlp_xp(*TINY, *options.split())
    assert "non-finite" in done.err
    assert done.status == 1
    assert {path.name for path in Path("run").iterdir()} >= FILES
    for checkpoint in Path("run", "checkpoints").glob("*"):
        assert np.isfinite(load_model(checkpoint).coefs_[0]).all()


def test_an_error_in_the_training_is_not_taken_for_divergence(fails, monkeypatch):
    class Fails(Callback):
        def on_epoch_end(self, model, record):
            raise ValueError("something else")

    monkeypatch.setattr(Settings, "callbacks", lambda self, folder: [Fails()])
    assert "something else" in fails(*TINY, "--epochs", 2, "--out", "run")
    assert list(Path().iterdir()) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("schedule", ["constant", "invscaling"])
def test_no_schedule_warns_that_it_has_not_converged(schedule, mlp_xp):
    done = mlp_xp(*TINY, "--schedule", schedule, "--epochs", 1, "--out", "run")
    assert (done.status, done.err) == (0, "")


def test_on_a_terminal_there_is_a_bar(mlp_xp, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = mlp_xp(*TINY, "--epochs", 3, "--out", "run")
    assert "3/3" in done.out
    assert "━" in done.out
    assert re.search(r"loss \d\.\d{3}  acc [\d.]+ %  [\d,]+ images/s", done.out)
    assert "test accuracy" in done.out.splitlines()[-1]


def without_compiling(err: str) -> str:
    """Return stderr without what the first long training of an installation says."""
    return re.sub(r"(?m)^mlp_xp: compil.*\n", "", err)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_keeps_the_network_so_far(tmp_path):
    process = start(*TINY, "--epochs", 1_000_000, "--out", tmp_path / "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch       3/"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert without_compiling(err) == ""
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    rows = history_of(tmp_path / "run")
    assert 3 <= len(rows) < 1_000_000
    assert f"interrupted in epoch {len(rows)}; the network is kept" in out
    assert re.fullmatch(r"test accuracy .*", out.splitlines()[-1])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    digits = load_digits()
    accuracy = load_model(tmp_path / "run").score(digits.x_test, digits.y_test)
    assert config["result"]["test_accuracy"] == accuracy
    assert config["result"]["interrupted"] is True


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_at_the_end_of_the_step(mlp_xp, monkeypatch):
    steps = []

    def pressed_in_the_second_epoch(done: int, n_steps: int) -> None:
        steps.append((done, n_steps))
        if len(steps) == n_steps + 3:
            signal.raise_signal(signal.SIGINT)

    real = train.display

    @contextlib.contextmanager
    def display(*args):
        with real(*args) as shown:
            yield shown._replace(after_step=pressed_in_the_second_epoch)

    monkeypatch.setattr(train, "display", display)
    done = mlp_xp(*TINY, "--epochs", 5, "--out", "run")
    assert done.status == 130
    assert steps[-1] == (3, 12)
    assert [row["n_samples"] for row in history_of(Path("run"))] == ["1438", "384"]


def test_ctrl_c_waits_where_it_is_postponed():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []

    def press_twice():
        with interrupts() as pressed, postponed():
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
            seen.append(pressed())

    try:
        with pytest.raises(KeyboardInterrupt):
            press_twice()
        assert seen == [False]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_twice_ends_at_once(tmp_path):
    process = start(*TINY, "--epochs", 1_000_000, "--out", tmp_path / "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch       3/"):
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)  # By now it is evaluating or drawing.
    process.send_signal(signal.SIGINT)
    err = without_compiling(process.communicate(timeout=60)[1])
    assert process.returncode == 130
    if err:
        partial = tmp_path / "run.partial"
        assert err == f"note: kept what is in {partial}: mlp-xp evaluate {partial}\n"
        assert load_model(partial).n_iter_ >= 3
    else:
        assert list(tmp_path.iterdir()) == []
