"""`mlp-xp train` where the disk is full, the folder refuses, or the process is ended."""

from __future__ import annotations

import errno
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import FILES, TINY, start

from mlp_xp.cli import runs, train
from mlp_xp.saving import load_model, save_model


@pytest.fixture
def other_folders(tmp_path, monkeypatch):
    """The home folder and the one for temporary files."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return home, temporary


def full(*names: str):
    """Return a `save_model` for which the disk of some folders is full."""

    def save(model, folder):
        if any(name in str(folder) for name in names):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_model(model, folder)

    return save


def test_a_network_that_no_folder_takes_is_an_error(mlp_xp, other_folders, monkeypatch):
    monkeypatch.setattr(train, "save_model", full("run"))
    done = mlp_xp(*TINY, "--epochs", 1, "--out", "run")
    assert done.status == 2
    first, second, third, error = done.err.splitlines()
    assert first == "note: cannot write: [Errno 28] No space left on device: 'run.partial'"
    assert str(other_folders[0]) in second
    assert str(other_folders[1]) in third
    assert error == "mlp-xp: error: [Errno 28] No space left on device: 'run.partial'"
    assert not Path("run.partial").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_a_full_disk_does_not_lose_the_network(which, mlp_xp, other_folders, monkeypatch):
    refused = ["run.partial", *map(str, other_folders[:which])]
    monkeypatch.setattr(train, "save_model", full(*refused))
    done = mlp_xp(*TINY, "--epochs", 2, "--out", "run")
    assert done.status == 0
    (kept,) = other_folders[which].glob("run-*")  # Libraries keep caches at home.
    assert f"note: the network is kept in {kept}" in done.err
    assert f"saved in {kept}" in done.out
    assert {path.name for path in kept.iterdir()} == FILES
    assert not Path("run.partial").exists()
    assert "test accuracy" in mlp_xp("evaluate", kept).out


def test_somebody_at_a_terminal_is_asked_for_another_folder(mlp_xp, other_folders, monkeypatch):
    monkeypatch.setattr(train, "save_model", full("run.partial", *map(str, other_folders)))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: "mine")
    assert mlp_xp(*TINY, "--epochs", 1, "--out", "run").status == 0
    (kept,) = Path("mine").iterdir()
    assert load_model(kept).n_iter_ == 1


def test_a_disk_without_room_is_noticed_before_the_first_step(fails, monkeypatch):
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000))
    line = fails(*TINY, "--out", "run")
    assert "the run needs 1 MB, and 0 MB are free; make room, or type --out with a folder" in line
    assert "'run.partial'" in line
    assert list(Path().iterdir()) == []


def test_a_folder_that_cannot_be_made_is_noticed_before_the_training(fails):
    Path("file").touch()
    line = fails(*TINY, "--out", "file/run")
    assert "file/run.partial cannot be made (Not a directory): type --out with a folder" in line


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
def test_what_a_terminated_training_leaves_is_told(fails, tmp_path):
    for options, cure in (
        ([], "holds no network: the training ended before there was one"),
        (["--checkpoint", 1], "type that in its place"),
    ):
        out = tmp_path / f"run{len(options)}"
        process = start(*TINY, "--epochs", 1_000_000, *options, "--out", out)
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch       3/"))
        process.terminate()
        process.communicate(timeout=60)
        assert cure in fails("evaluate", out.with_name(f"{out.name}.partial"))
