"""Checkpoints predict the same, and a failed save leaves the one before."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fake_fit import SCORED, X, Y, fit, names, record

from mlp_xp import MLPClassifier, callbacks
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.saving import SavingError, load_model, save_model


def test_a_checkpoint_predicts_the_same(tmp_path, fitted):
    fit(Checkpoint(tmp_path / "new" / "run"), model=fitted)
    assert names(tmp_path / "new" / "run") == ["epoch-0001", "epoch-0002", "epoch-0003"]
    loaded = load_model(tmp_path / "new" / "run" / "epoch-0002")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_every_tells_which_epochs_are_saved(tmp_path, fitted):
    fit(Checkpoint(str(tmp_path), every=2), [record(e) for e in range(1, 6)], model=fitted)
    assert names(tmp_path) == ["epoch-0002", "epoch-0004"]


@pytest.mark.parametrize(
    ("fields", "improved"),
    [
        # The score counts before the losses, and higher is better.
        ({"validation_score": [0.5, 0.4, 0.5, 0.6], "validation_loss": [4, 3, 2, 1]}, [1, 4]),
        ({"validation_score": [-3.0, -2.0, -4.0, -2.0]}, [1, 2]),
        ({"validation_loss": [3.0, 4.0, 2.0, 2.0], "loss": [4, 3, 2, 1]}, [1, 3]),
        ({"loss": [3.0, 2.0, math.nan, 1.0]}, [1, 2, 4]),
    ],
)
def test_only_the_best_is_kept(fields, improved, tmp_path, fitted, monkeypatch):
    saved = []

    def save(model, folder):
        saved.append(epoch)
        save_model(model, folder)

    monkeypatch.setattr(callbacks._checkpoint, "save_model", save)
    checkpoint = Checkpoint(tmp_path, best_only=True)
    for _ in range(2):  # The best of another fit does not count.
        saved.clear()
        checkpoint.on_fit_begin(fitted)
        for epoch, values in enumerate(zip(*fields.values(), strict=True), start=1):
            row = record(epoch, **dict(zip(fields, values, strict=True)))
            assert not checkpoint.on_epoch_end(fitted, row)
            assert names(tmp_path) == ["best"]
        assert saved == improved
    load_model(tmp_path / "best")


def test_a_save_that_fails_leaves_the_checkpoint_before_it(tmp_path, fitted, monkeypatch):
    checkpoint = Checkpoint(tmp_path, best_only=True)
    checkpoint.on_fit_begin(fitted)
    checkpoint.on_epoch_end(fitted, record(1))
    before = {path: path.read_bytes() for path in (tmp_path / "best").iterdir()}

    def full_disk(model, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(callbacks._checkpoint, "save_model", full_disk)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.on_epoch_end(fitted, record(2))
    assert names(tmp_path) == ["best"]
    assert {path: path.read_bytes() for path in (tmp_path / "best").iterdir()} == before
    # Nor was the one that failed the best so far.
    (tmp_path / "best" / "old").touch()
    checkpoint.on_epoch_end(fitted, record(2))
    assert names(tmp_path / "best") == ["model.json", "model.safetensors"]


def test_between_two_renames_both_checkpoints_are_whole(tmp_path, fitted, monkeypatch):
    checkpoint = Checkpoint(tmp_path, best_only=True)
    fit(checkpoint, model=fitted)
    rename, found = Path.rename, []

    def watched(path, target):
        found.append([load_model(folder).n_iter_ for folder in tmp_path.iterdir()])
        rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    fit(checkpoint, SCORED[:1], model=fitted)
    assert found == [[3, 3], [3, 3]]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path, fitted):
    for name in (".best.partial", ".best.old", "best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text("{")
    fit(Checkpoint(tmp_path, best_only=True), model=fitted)
    assert names(tmp_path) == ["best"]
    load_model(tmp_path / "best")


def test_a_model_that_cannot_be_saved_is_rejected_before_the_first_step(tmp_path):
    def square(x, *, xp):
        return x * x, lambda dy: 2.0 * x * dy

    steps = []
    watch = [Checkpoint(tmp_path / "run"), Callback()]
    watch[1].on_step_end = lambda *step: steps.append(step)
    model = MLPClassifier((4,), activation=square, callbacks=watch)
    with pytest.raises(SavingError, match=r"activation is .*square.* pickle or joblib"):
        model.fit(X, Y)
    assert steps == names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_step(tmp_path, fitted):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Checkpoint(tmp_path / "file" / "run").on_fit_begin(fitted)


@pytest.mark.parametrize("every", [0, 1.5, "2", None])
def test_every_must_be_a_count(every):
    with pytest.raises(ValueError, match=f"every must be an int of at least 1, got {every!r}"):
        Checkpoint("folder", every=every)


def test_best_only_must_be_a_truth_value():
    with pytest.raises(ValueError, match="best_only must be True or False, got 'yes'"):
        Checkpoint("folder", best_only="yes")
