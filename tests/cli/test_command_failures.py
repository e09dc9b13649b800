"""`mlp-xp train` fails, is killed or fills the disk, and continues with `--resume`."""

import contextlib
import errno
import json
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import PATIENCE
from running import DRAWN, FILES, TINY, history_of, in_progress, start

from mlp_xp import MLP
from mlp_xp._utils.storage.durable import locked
from mlp_xp.cli.run_folder import folder as new_run
from mlp_xp.cli.training import fit as fitting
from mlp_xp.cli.training import results
from mlp_xp.cli.training import settings as settings_module
from mlp_xp.datasets import load_digits
from mlp_xp.saving import load_model, write_model
from mlp_xp.training.checkpoints.checkpoints import checkpoints

# An epoch has five steps.
WORDS = "--epochs 4 --batch-size 256 --validation 0.2 --dropout 0.1 --ema-decay 0.9"
OPTIONS = [*WORDS.split(), "--schedule", "cosine"]


@contextlib.contextmanager
def watching(monkeypatch, **methods):
    """Give each training of the command a callback of some methods."""
    real, watch = fitting.create_callbacks, SimpleNamespace(**methods)
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "create_callbacks", lambda *of: [*real(*of), watch])
        yield patched


def in_the_third_epoch(act):
    return lambda model, done, n_steps: (len(model.history_), done) == (2, 3) and act()


@pytest.fixture
def stop(mlp_xp, undrawn, monkeypatch, capsys):
    """Start a run that is stopped in its third epoch, as by a kill."""
    fail = Mock(side_effect=ZeroDivisionError)

    def run(*options, interval="1 steps"):
        with watching(monkeypatch, on_step_end=in_the_third_epoch(fail)) as patched:
            patched.setattr(settings_module, "_INTERVAL", interval)
            with pytest.raises(ZeroDivisionError):
                mlp_xp(*TINY, *OPTIONS, "--out", "run", *options)
        assert not Path("run").exists()
        capsys.readouterr()

    return run


def outcome(folder):
    model, rows = load_model(folder), history_of(Path(folder))
    config = json.loads(Path(folder, "config.json").read_text())
    numbers = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    weights = [W.tobytes() for W in (*model.coefs_, *model.intercepts_)]
    result = config["result"]
    return [weights, numbers, result["test_accuracy"], result["epochs"], config["settings"]]


@pytest.mark.parametrize("name", ["run", "run.partial"])
def test_a_resumed_run_matches_an_uninterrupted_one(name, mlp_xp, stop):
    stop()
    done = mlp_xp("train", "--resume", name)
    assert (done.status, done.err) == (0, "")
    for said in ("resumed after 2 epochs and 2 steps", "epoch 3/4", "saved in run\n"):
        assert said in done.out
    assert "epoch 2/4" not in done.out
    assert [path.name for path in Path().iterdir()] == ["run"]
    assert {path.name for path in Path("run").iterdir()} == FILES - DRAWN
    mlp_xp(*TINY, *OPTIONS, "--out", "whole")
    assert outcome("run") == outcome("whole")


@pytest.mark.usefixtures("undrawn")
def test_a_run_ended_by_ctrl_c_is_marked_and_can_be_resumed(mlp_xp, fails, monkeypatch):
    press = in_the_third_epoch(lambda: signal.raise_signal(signal.SIGINT))
    with watching(monkeypatch, on_step_end=press):
        done = mlp_xp(*TINY, *OPTIONS, "--out", "run")
    assert done.status == 130
    assert "interrupted in epoch 3; the current network is kept\n" in done.out
    assert "to resume the training, type mlp-xp train --resume run\n" in done.out
    assert done.out.splitlines()[-1].startswith("test accuracy ")
    assert {path.name for path in Path("run").iterdir()} == FILES - DRAWN | {"checkpoints"}
    assert [row["n_samples"] for row in history_of(Path("run"))] == ["1150", "1150", "768"]
    result, digits = json.loads(Path("run/config.json").read_text())["result"], load_digits()
    assert result["test_accuracy"] == load_model("run").score(digits.x_test, digits.y_test)
    assert result["interrupted"] is True
    shutil.copytree("run", "copy")
    shutil.rmtree("copy/checkpoints")
    assert "copy was interrupted without a checkpoint" in fails("train", "--resume", "copy")
    assert mlp_xp("runs", ".").out.count(" 3, interrupted ") == 2
    assert re.search("epochs +3, interrupted +3, int", mlp_xp("compare", "run", "copy").out)
    assert "after 2 epochs and 3 steps" in mlp_xp("train", "--resume", "run").out
    mlp_xp(*TINY, *OPTIONS, "--out", "whole")
    assert outcome("run") == outcome("whole")
    assert not Path("run/checkpoints").exists()


def test_a_run_without_a_checkpoint_starts_again(mlp_xp, stop):
    stop("--seed", 3, interval="1 h")
    assert not Path("run.partial").exists()  # There was nothing to keep.
    mlp_xp(*TINY, *OPTIONS, "--seed", 3, "--out", "run")
    whole = outcome("run")
    partial = in_progress(Path("run"))
    for path in partial.iterdir():
        if path.name != "config.json":
            path.unlink()
    done = mlp_xp("train", "--resume", "run")
    assert (done.status, done.err) == (0, "")
    assert "no checkpoint yet: the training starts at its first epoch" in done.out
    assert outcome("run") == whole


def test_resuming_keeps_requested_checkpoints_and_does_not_need_the_recipe_file(
    mlp_xp, recipe, stop
):
    options = "--recipe", recipe, "--checkpoint", 1
    mlp_xp(*TINY, *OPTIONS, *options, "--out", "whole")
    stop(*options)
    recipe.unlink()
    assert mlp_xp("train", "--resume", "run").status == 0
    found = {path.name for path in Path("run", "checkpoints").iterdir()}
    assert {"best", "epoch-0002", "epoch-0003", "epoch-0004"} <= found
    assert len(found) <= 5
    assert outcome("run") == outcome("whole")


def test_resume_rejects_options_that_would_change_the_results(fails, partial_run):
    refused = (
        "--dropout 0.9",
        "--recipe record",
        "--data digits",
        "t.csv",
        "--early-stopping",
        "--out x",
    )
    for typed in (*refused, "--no-residual"):
        line = fails("train", "--resume", "run", *typed.split())
        option = typed.removeprefix("--data ").split()[0].replace("--no-", "--")
        assert f"{option} cannot be combined with --resume, which keeps the settings" in line
    assert partial_run.exists()


def test_resume_error_says_why_a_run_cannot_be_resumed(fails, finished, partial_run):
    assert "neither none.partial nor none exists" in fails("train", "--resume", "none")
    Path("empty").mkdir()
    assert "empty has no config.json" in fails("train", "--resume", "empty")
    with locked(partial_run):
        line = fails("train", "--resume", "run")
    assert "is writing to this folder: wait until it has finished" in line
    for content in ("{", "{}", '{"settings": {"params": {}, "color": 1}}'):
        (partial_run / "config.json").write_text(content)
        assert "run.partial" in fails("train", "--resume", "run")


@pytest.mark.filterwarnings("always::RuntimeWarning")
def test_a_failed_checkpoint_prints_a_note(mlp_xp, undrawn, monkeypatch):
    write = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("mlp_xp.callbacks._checkpoint.write_snapshot", write)
    done = mlp_xp(*TINY, "--epochs", 2, "--checkpoint", 1, "--out", "run")
    assert done.status == 0
    first, second = done.err.splitlines()
    assert first.startswith("note: run.partial/checkpoints/epoch-0001 cannot be written: No space")
    assert "epoch-0002 cannot be written" in second


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
def test_a_terminated_process_can_be_resumed(mlp_xp, fails):
    options = [*TINY, "--epochs", 40, "--hidden", "64", "--checkpoint", 1]
    with start(*options, "--out", "run", held_at="epoch  3/") as process:
        next(line for line in process.stdout if line.startswith("epoch  3/"))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert max(checkpoints(Path("run.partial", "checkpoints"))) >= (2, 0)
    assert "to resume it, type mlp-xp train --resume run" in err
    assert "type that instead" in fails("evaluate", "run.partial")
    assert mlp_xp("train", "--resume", "run").status == 0
    mlp_xp(*options, "--out", "whole")
    assert outcome("run") == outcome("whole")


@pytest.mark.parametrize(
    ("owner", "name", "error", "said"),
    [
        (results, "save_figure", OSError("No space left on device"), "No space left on device"),
        (MLP, "predict_proba", MemoryError("8 GB"), "not enough memory (8 GB): use less"),
    ],
)
def test_a_failure_after_training_keeps_the_network(owner, name, error, said, mlp_xp, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, Mock(side_effect=error))
        done = mlp_xp(*TINY, "--epochs", 2, "--out", "run")
    assert done.status == 2
    note, line = done.err.splitlines()
    assert note == "note: run.partial was kept; to test it, type mlp-xp evaluate run.partial"
    assert line.startswith(f"mlp-xp: error: {said}")
    assert [path.name for path in Path().iterdir()] == ["run.partial"]
    kept, digits = load_model("run.partial"), load_digits()
    assert kept.n_iter_ == 2
    accuracy = f"test accuracy {100 * kept.score(digits.x_test, digits.y_test):.2f} %"
    assert accuracy in mlp_xp("evaluate", "run.partial").out


def test_a_new_run_does_not_overwrite_an_interrupted_one(
    mlp_xp, train_digits, partial_run, undrawn
):
    kept = load_model("run.partial").loss_curve_
    said = "note: run.partial, left by an interrupted run, was renamed to run.partial-1; to resume"
    assert said in train_digits("--epochs", 1).err
    assert {path.name for path in Path().iterdir()} == {"run", "run.partial-1"}
    assert load_model("run.partial-1").loss_curve_ == kept
    # The run can still be resumed.
    assert "saved in run-2" in mlp_xp("train", "--resume", "run.partial-1").out
    assert load_model("run-2").loss_curve_ == kept


def test_an_error_during_training_keeps_checkpoints(mlp_xp, fails, monkeypatch):
    fail = Mock(side_effect=ValueError("something else"))  # This is not mistaken for divergence.
    with watching(monkeypatch, on_epoch_end=lambda model, record: record.epoch == 3 and fail()):
        done = mlp_xp(*TINY, "--epochs", 9, "--checkpoint", 1, "--out", "run")
    assert done.status == 2
    epoch = Path("run.partial", "checkpoints", "epoch-0002")  # The third is not over.
    note = f"note: run.partial was kept; to test it, type mlp-xp evaluate {epoch}"
    assert done.err.splitlines() == [note, "mlp-xp: error: something else"]
    assert "test accuracy" in mlp_xp("evaluate", epoch).out
    line = fails("evaluate", "run.partial")
    assert f"run.partial contains no model, but {epoch} does: type that instead" in line


def test_diverged_training_is_reported_and_kept(mlp_xp, undrawn):
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
    """Make the disk of some folders full."""

    def save(model, folder):
        if any(str(name) in str(folder) for name in names):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_model(model, folder)

    monkeypatch.setattr(results, "write_model", save)


def test_a_network_that_cannot_be_written_anywhere_is_an_error(mlp_xp, other_folders, monkeypatch):
    fill_disk(monkeypatch, "run")
    done = mlp_xp(*TINY, "--epochs", 1, "--out", "run")
    assert done.status == 2
    *notes, kept, error = done.err.splitlines()
    assert notes[0] == "note: cannot write: [Errno 28] No space left on device: 'run.partial'"
    assert all(str(place) in note for place, note in zip(other_folders, notes[1:], strict=True))
    assert kept == "note: run.partial was kept"
    said = r"the network cannot be written to run.partial, .*; free disk space there, and type "
    assert re.search(said + "mlp-xp train --resume run to resume", error)
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
    assert f"note: the network was saved in {kept}" in done.err
    assert f"saved in {kept}" in done.out
    assert {path.name for path in kept.iterdir()} == FILES - DRAWN
    assert not Path("run.partial").exists()
    assert "test accuracy" in mlp_xp("evaluate", kept).out


def test_full_disk_or_missing_permission_is_an_error_before_training(fails, monkeypatch):
    monkeypatch.setattr(new_run.shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000))
    line = fails(*TINY, "--hidden", 4096, "--out", "run")
    # Twice 307,210 weights of 4 bytes, and a megabyte.
    assert "the run needs 3.5 MB, but only 0.5 MB are free: delete files, or set --out" in line
    assert list(Path().iterdir()) == []
    Path("file").touch()
    line = fails(*TINY, "--out", "file/run")
    assert "file/run.partial cannot be created (Not a directory): set --out to a folder" in line
