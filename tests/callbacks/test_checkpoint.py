"""Checkpoints: when they are written, which are kept, and what failed writes and power cuts do."""

import errno
import math
import os
import stat
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_fit import X, Y
from helpers import PATIENCE, names

from mlp_xp import MLPClassifier, MLPRegressor, callbacks
from mlp_xp._utils.storage.durable import locked
from mlp_xp.callbacks import Callback, Checkpoint
from mlp_xp.saving import SavingError, load_model, save_model
from mlp_xp.training.checkpoints.checkpoints import checkpoints, read_checkpoint, write_snapshot

STEPS = 4  # Steps per epoch.


def fit(*watch, n_epochs=3, resume=None, **settings) -> MLPClassifier:
    defaults = {"batch_size": 15, "learning_rate": "cosine", "random_state": 0}
    model = MLPClassifier((4,), max_iter=n_epochs, callbacks=watch, **(defaults | settings))
    return model.fit(X, Y, resume=resume)


def test_a_checkpoint_predicts_like_the_fitted_model(tmp_path):
    folder = tmp_path / "new" / "run"
    fitted = fit(Checkpoint(folder))
    assert names(folder) == ["best", "epoch-0001", "epoch-0002", "epoch-0003"]
    for loaded in (load_model(folder / "epoch-0003"), load_model(folder / "best")):
        np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert load_model(folder / "epoch-0001").n_iter_ == 1


class Tick(Callback):
    """A clock that advances by a second at each step."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(callbacks._checkpoint.time, "perf_counter", lambda: self.now)

    def on_step_end(self, model, done, n_steps):
        self.now += 1.0


EVERY = {  # Intervals, and a fit's checkpoints if each step takes a second.
    1: ["epoch-0001", "epoch-0002", "epoch-0003"],
    2: ["epoch-0002"],
    "2 epochs": ["epoch-0002"],
    4: [],
    "3 steps": [*(f"epoch-000{i}-step-00000{3 - i}" for i in range(3)), "epoch-0003"],
    "1 h": [],
    "5 s": ["epoch-0001-step-000001", "epoch-0002-step-000002"],
    "0.1 min": ["epoch-0001-step-000002", "epoch-0003"],
    "0.002 hours": ["epoch-0002"],
}


@pytest.mark.parametrize(("every", "expected"), EVERY.items())
def test_every_sets_the_checkpoint_interval(every, expected, tmp_path, monkeypatch):
    folder = tmp_path / str(every)
    fit(Tick(monkeypatch), Checkpoint(str(folder), every=every, keep_last=None, keep_best=0))
    assert names(folder) == expected


KEPT = [  # `keep_last`, `keep_best` and the epochs that are kept.
    (1, 0, [6]),
    (2, 0, [5, 6]),
    (None, 0, [1, 2, 3, 4, 5, 6]),
    (1, 1, [2, 6]),
    (1, 2, [2, 4, 6]),
    (1, 4, [2, 4, 5, 6]),
    (3, 2, [2, 4, 5, 6]),
    (9, 9, [1, 2, 3, 4, 5, 6]),
]


def test_the_last_and_the_best_checkpoints_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks._checkpoint, "check_can_save", lambda model: None)
    for name in ("save_model", "write_model"):
        monkeypatch.setattr(callbacks._checkpoint, name, lambda model, path: None)
    for number, (keep_last, keep_best, expected) in enumerate(KEPT):
        # The first score is from trying the scorer.
        scores = iter([0.0, 0.1, 0.9, 0.2, 0.8, 0.3, 0.3])
        folder = tmp_path / str(number)
        watch = Checkpoint(folder, keep_last=keep_last, keep_best=keep_best)
        settings = {"scoring": lambda *_, scores=scores: next(scores), "callbacks": [watch]}
        model = MLPClassifier((4,), max_iter=6, learning_rate="cosine", **settings)
        model.fit(X, Y, X_val=X, y_val=Y)
        found = [path.name for path in checkpoints(folder).values()]
        assert found == [f"epoch-{epoch:04}" for epoch in expected], (keep_last, keep_best)


@pytest.mark.parametrize("every", [1, 2, "1 h"])
def test_best_holds_the_best_epoch_even_if_checkpoints_are_rare(every, tmp_path):
    settings = {"early_stopping": True, "learning_rate_init": 0.1, "n_iter_no_change": 100}
    fitted = fit(Checkpoint(tmp_path, every=every), n_epochs=8, **settings)
    scores = fitted.validation_scores_
    best = load_model(tmp_path / "best")
    assert best.n_iter_ == len(best.history_) == 1 + scores.index(max(scores)) < 8
    np.testing.assert_array_equal(best.predict_proba(X), fitted.predict_proba(X))


def test_a_regressor_without_validation_is_judged_by_its_loss(tmp_path):
    model = MLPRegressor(max_iter=3, learning_rate="cosine", random_state=0)
    model.set_params(callbacks=[Checkpoint(tmp_path)]).fit(X, Y)
    lowest = 1 + int(np.argmin(model.loss_curve_))
    assert load_model(tmp_path / "best").n_iter_ == lowest


def test_lbfgs_checkpoints_are_models_but_cannot_be_resumed(tmp_path):
    watch = [Checkpoint(tmp_path, every=2)]
    with pytest.warns(UserWarning, match="lbfgs failed to converge"):
        MLPClassifier((4,), solver="lbfgs", max_iter=3, callbacks=watch).fit(X, Y)
    assert names(tmp_path) == ["best", "epoch-0002"]
    with pytest.raises(ValueError, match="solver 'lbfgs', whose state is inside SciPy"):
        MLPClassifier((4,), solver="lbfgs").fit(X, Y, resume=tmp_path)


def test_training_continues_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    class Later(Tick):
        def on_step_end(self, model, done, n_steps):
            super().on_step_end(model, done, n_steps)
            if self.now == 7:
                goes_on.set()

    def write(folder, snapshot):
        assert goes_on.wait(PATIENCE)
        write_snapshot(folder, snapshot)

    goes_on = threading.Event()
    monkeypatch.setattr(callbacks._checkpoint, "write_snapshot", write)
    watch = Checkpoint(tmp_path, every="5 s", keep_last=None, keep_best=0)
    fitted = fit(Later(monkeypatch), watch)
    # The checkpoint has the state when it was due: after 5 steps, at 4 per epoch.
    first, second = checkpoints(tmp_path).values()
    assert (first.name, second.name) == ("epoch-0001-step-000001", "epoch-0002-step-000002")
    assert read_checkpoint(first).metadata["steps"] + read_checkpoint(first).metadata["step"] == 5
    model = load_model(first)
    assert len(model.history_) == 1
    resumed = fit(Tick(monkeypatch), n_epochs=3, resume=first.parent)
    np.testing.assert_array_equal(resumed.coefs_[0], fitted.coefs_[0])
    at_five = read_checkpoint(first).arrays
    assert any(np.array_equal(model.coefs_[0], array) for array in at_five.values())


def test_a_failed_write_warns_and_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    fails = [False]

    def save(model, folder):
        save_model(model, folder)
        if fails[0]:
            raise OSError(errno.ENOSPC, "No space left on device")

    class Toggle(Callback):
        def on_epoch_end(self, model, record):
            fails[0] = record.epoch == 2

    for name in ("save_model", "write_model"):
        monkeypatch.setattr(callbacks._checkpoint, name, save)
    said = r"(epoch-0002|best) cannot be written: No space left on device. The fit continues"
    with pytest.warns(RuntimeWarning, match=said) as caught:
        fitted = fit(Toggle(), Checkpoint(tmp_path, keep_last=None))
    assert fitted.n_iter_ == 3
    assert len(caught) == 2
    assert load_model(tmp_path / "best").n_iter_ == 3
    assert names(tmp_path) == ["best", "epoch-0001", "epoch-0003"]


def test_a_history_too_long_to_read_back_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks._checkpoint, "write_model", lambda model, folder: None)
    monkeypatch.setattr("mlp_xp._utils.storage.files.MOST_VALUES", 120)
    said = (
        r"epoch-0004 cannot be written: the history gives training.json \d+ values, more than the "
    )
    with pytest.warns(RuntimeWarning, match=rf"{said}120 allowed\. The fit continues\.$"):
        fitted = fit(Checkpoint(tmp_path, keep_last=None, keep_best=0), n_epochs=4)
    assert fitted.n_iter_ == 4
    *_, newest = checkpoints(tmp_path).values()
    assert read_checkpoint(newest).metadata["epoch"] == 3


def test_writing_the_best_model_is_retried_after_a_failure(tmp_path, monkeypatch):
    def save(model, folder):
        tried.append(model.n_iter_)
        if len(tried) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_model(model, folder)

    tried = []
    monkeypatch.setattr(callbacks._checkpoint, "save_model", save)
    with pytest.warns(RuntimeWarning, match="best cannot be written: No space"):
        fit(Checkpoint(tmp_path), early_stopping=True, learning_rate_init=1e-12)
    assert tried == [1, 1]


def test_partial_checkpoints_of_a_killed_process_are_removed(tmp_path):
    for name in (".epoch-0001.0123abcd.partial", ".epoch-0002.aa23abcd.partial", "epoch-0001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text("{")
    fit(Checkpoint(tmp_path))
    assert names(tmp_path) == ["best", "epoch-0001", "epoch-0002", "epoch-0003"]
    load_model(tmp_path / "epoch-0001")


def test_first_new_checkpoint_replaces_checkpoints_of_an_earlier_fit(tmp_path):
    fit(Checkpoint(tmp_path, keep_last=None), n_epochs=5)
    found = []

    class Look(Callback):
        def on_epoch_end(self, model, record):
            found.append([name for name in names(tmp_path) if name != "best"])

    watch = [Look(), Checkpoint(tmp_path, every=2, keep_last=None)]
    fitted = fit(*watch, n_epochs=3, random_state=1)
    assert found[0] == found[1] == [f"epoch-000{epoch}" for epoch in range(1, 6)]
    assert found[2] == ["epoch-0002"]
    best = load_model(tmp_path / "best")  # Not the better model of the other fit.
    np.testing.assert_array_equal(best.predict_proba(X), fitted.predict_proba(X))


def test_unwritable_checkpoint_is_an_error_before_the_first_step(tmp_path):
    def square(x, *, xp):
        return x * x, lambda dy: 2.0 * x * dy

    steps, watch = [], Callback()
    watch.on_step_end = lambda *step: steps.append(step)
    with locked(tmp_path), pytest.raises(BlockingIOError, match="wait until it has finished"):
        fit(Checkpoint(tmp_path), watch)
    with pytest.raises(SavingError, match=r"activation is .*square.* pickle or joblib"):
        fit(Checkpoint(tmp_path / "run"), watch, activation=square)
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        fit(Checkpoint(tmp_path / "file" / "run"), watch)
    assert steps == []
    fit(Checkpoint(tmp_path))


@pytest.mark.parametrize("every", [0, 1.5, "2", None, True, "0 s", "1.5 steps", "5 eons", "-1 s"])
def test_every_must_be_an_interval(every):
    with pytest.raises(ValueError, match=r'`every` must be a number of epochs .* "10 min"'):
        Checkpoint("folder", every=every)


@pytest.mark.parametrize(
    ("name", "value"), [("keep_last", 0), ("keep_last", "3"), ("keep_best", math.inf)]
)
def test_number_of_kept_checkpoints_must_be_an_integer(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an int of at least"):
        Checkpoint(Path("folder"), **{name: value})


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not flushed there")
def test_a_checkpoint_is_flushed_to_disk_before_it_is_renamed(tmp_path, monkeypatch):
    sync, rename, events = os.fsync, Path.replace, []

    def seen(facts: os.stat_result) -> tuple[int, int]:
        """Return what tells a file, with all of its content, or a folder from others."""
        return facts.st_ino, facts.st_size if stat.S_ISREG(facts.st_mode) else 0

    def synced(descriptor):
        sync(descriptor)
        events.append(("flush", {seen(os.fstat(descriptor))}))

    def renamed(path, target):
        events.append((Path(target).name, {seen(p.stat()) for p in (path, *path.rglob("*"))}))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    watch = [Checkpoint(tmp_path, keep_last=1, keep_best=0)]
    MLPClassifier((4,), max_iter=3, learning_rate="cosine", callbacks=watch).fit(X, Y)
    named = [i for i, (name, _) in enumerate(events) if name.startswith("epoch-")]
    assert len(named) == 3
    for i in named:
        flushed = set.union(*(what for name, what in events[:i] if name == "flush"))
        assert events[i][1] <= flushed
        # The new name is also flushed before an older checkpoint is removed.
        assert events[i + 1] == ("flush", {seen(tmp_path.stat())})
    assert [name[:7] for name, _ in events[named[1] + 2 : named[1] + 3]] == [".epoch-"]
