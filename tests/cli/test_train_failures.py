"""`mlp-xp train` after an error, on a full disk, and when it is terminated."""

import errno
import re
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from running import DRAWN, FILES, TINY, history_of, start_training

from mlp_xp import MLP
from mlp_xp.callbacks import Callback
from mlp_xp.cli import new_run, results, settings, train
from mlp_xp.cli.settings import Settings
from mlp_xp.datasets import load_digits
from mlp_xp.saving import load_model, write_model


def fail(*_):
    raise OSError("No space left on device")


def test_a_run_that_fails_after_the_training_keeps_the_network(mlp_xp, monkeypatch):
    monkeypatch.setattr(results, "save_figure", fail)
    done = mlp_xp(*TINY, "--epochs", 2, "--out", "run")
    assert done.status == 2
    assert done.err.splitlines() == [
        "note: kept what is in run.partial: mlp-xp evaluate run.partial",
        "mlp-xp: error: No space left on device",
    ]
    assert [path.name for path in Path().iterdir()] == ["run.partial"]
    kept, digits = load_model("run.partial"), load_digits()
    assert kept.n_iter_ == 2
    accuracy = f"test accuracy {100 * kept.score(digits.x_test, digits.y_test):.2f} %"
    assert accuracy in mlp_xp("evaluate", "run.partial").out


def test_another_run_is_not_in_the_way_of_one_that_was_interrupted(
    mlp_xp, train_digits, partial_run, undrawn
):
    kept = load_model("run.partial").loss_curve_
    said = "note: run.partial was left by a run that was interrupted, and is now run.partial-1; go"
    assert said in train_digits("--epochs", 1).err
    assert {path.name for path in Path().iterdir()} == {"run", "run.partial-1"}
    assert load_model("run.partial-1").loss_curve_ == kept
    # It can still be resumed.
    done = mlp_xp("train", "--resume", "run.partial-1")
    assert done.status == 0
    assert "saved in run-2" in done.out
    assert load_model("run-2").loss_curve_ == kept


def test_a_prediction_that_fails_keeps_the_network(mlp_xp, monkeypatch):
    class Fails(MLP):
        def predict_proba(self, X, **settings):
            raise MemoryError("8 GB")

    monkeypatch.setitem(settings.ESTIMATORS, "classification", Fails)
    done = mlp_xp(*TINY, "--epochs", 1, "--out", "run")
    assert done.status == 2
    assert "error: not enough memory (8 GB): ask for less" in done.err.splitlines()[1]
    assert load_model("run.partial").n_iter_ == 1


def test_an_error_in_the_training_keeps_checkpoints(mlp_xp, fails, monkeypatch):
    class Fails(Callback):
        def on_epoch_end(self, model, record):
            if record.epoch == 3:
                raise ValueError("something else")  # Which is not taken for divergence.

    real = Settings.callbacks
    with monkeypatch.context() as patched:
        patched.setattr(Settings, "callbacks", lambda *of: [*real(*of), Fails()])
        done = mlp_xp(*TINY, "--epochs", 9, "--checkpoint", 1, "--out", "run")
    assert done.status == 2
    epoch = Path("run.partial", "checkpoints", "epoch-0002")  # The third is not over.
    assert done.err.splitlines() == [
        f"note: kept what is in run.partial: mlp-xp evaluate {epoch}",
        "mlp-xp: error: something else",
    ]
    assert "test accuracy" in mlp_xp("evaluate", epoch).out
    line = fails("evaluate", "run.partial")
    assert f"run.partial holds no model, and {epoch} does: type that instead" in line


def test_a_training_that_diverges_is_reported_and_kept(mlp_xp, undrawn):
    options = "--solver sgd --learning-rate 1e30 --validation 0.25 --checkpoint 1 --out run"
    done = mlp_xp(*TINY, *options.split())
    assert "try a smaller --learning-rate. First seen in epoch 1, step" in done.err
    assert done.status == 1
    assert {path.name for path in Path("run").iterdir()} >= FILES - DRAWN
    assert load_model("run").n_iter_ == len(history_of(Path("run"))) < 12
    for model in ("run", *Path("run", "checkpoints").glob("*")):
        assert np.isfinite(load_model(model).coefs_[0]).all()


@pytest.fixture
def other_folders(tmp_path, undrawn, monkeypatch):
    """The home folder and the one for temporary files."""
    folders = tmp_path / "home", tmp_path / "temporary"
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv("HOME", str(folders[0]))
    monkeypatch.setattr(tempfile, "tempdir", str(folders[1]))
    return folders


def fill_disk(monkeypatch, *names):
    """Let the disk of some folders be full."""

    def save(model, folder):
        if any(str(name) in str(folder) for name in names):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_model(model, folder)

    monkeypatch.setattr(train, "write_model", save)


def test_a_network_that_cannot_be_written_anywhere_is_an_error(mlp_xp, other_folders, monkeypatch):
    fill_disk(monkeypatch, "run")
    done = mlp_xp(*TINY, "--epochs", 1, "--out", "run")
    assert done.status == 2
    *notes, kept, error = done.err.splitlines()
    assert notes[0] == "note: cannot write: [Errno 28] No space left on device: 'run.partial'"
    assert all(str(place) in note for place, note in zip(other_folders, notes[1:], strict=True))
    assert kept == "note: kept what is in run.partial"
    said = r"the network cannot be written to run.partial, .*; make room in one of them and type "
    assert re.search(said + "mlp-xp train --resume run, which", error)
    # The history and the settings are kept, and the network can be trained again from them.
    found = {path.name for path in Path("run.partial").iterdir()}
    assert found == {"config.json", "history.csv", "checkpoints"}
    assert len(history_of(Path("run.partial"))) == 1
    fill_disk(monkeypatch)
    assert mlp_xp("train", "--resume", "run").status == 0
    assert {path.name for path in Path("run").iterdir()} == FILES - DRAWN


@pytest.mark.parametrize("which", ["home", "temporary", "typed"])
def test_a_full_disk_does_not_lose_the_network(
    which, mlp_xp, train_digits, other_folders, monkeypatch
):
    home, temporary = other_folders
    full = {"home": [], "temporary": [home], "typed": [home, temporary]}
    fill_disk(monkeypatch, "run.partial", *full[which])
    if which == "typed":  # A user at a terminal is asked for another folder.
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr("builtins.input", lambda question: "mine")
    done = train_digits("--epochs", 1)
    places = {"home": home, "temporary": temporary, "typed": Path("mine")}
    (kept,) = places[which].glob("run-*")  # Libraries keep caches at home.
    assert f"note: the network is kept in {kept}" in done.err
    assert f"saved in {kept}" in done.out
    assert {path.name for path in kept.iterdir()} == FILES - DRAWN
    assert not Path("run.partial").exists()
    assert "test accuracy" in mlp_xp("evaluate", kept).out


def test_a_folder_without_room_or_leave_is_an_error_before_the_first_step(fails, monkeypatch):
    monkeypatch.setattr(new_run.shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000))
    line = fails(*TINY, "--hidden", 4096, "--out", "run")
    # Twice 307,210 weights of 4 bytes, and a megabyte.
    assert "the run needs 3.5 MB, and 0.5 MB are free; make room, or type --out" in line
    assert list(Path().iterdir()) == []
    Path("file").touch()
    line = fails(*TINY, "--out", "file/run")
    assert "file/run.partial cannot be made (Not a directory): type --out with a folder" in line


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
@pytest.mark.parametrize("options", [[], ["--checkpoint", 1]])
def test_evaluate_says_what_a_terminated_training_left(options, fails):
    with start_training(*options, "--out", "run") as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "go on with mlp-xp train --resume run" in err
    assert "type that instead" in fails("evaluate", "run.partial")
