"""Callbacks do what they say, outlive the fit that they watched, and leave nothing half done."""

from __future__ import annotations

import copy
import csv
import io
import math
import pickle
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone

from mlp_xp import MLPClassifier, callbacks
from mlp_xp._utils.optional import optional
from mlp_xp.callbacks import (
    Callback,
    Checkpoint,
    CSVLog,
    ProgressBar,
    TargetScore,
    TensorBoard,
    TimeBudget,
)
from mlp_xp.saving import SavingError, load_model, save_model
from mlp_xp.training import time_budget as budget
from mlp_xp.training.records import Record

X = np.random.default_rng(0).normal(size=(60, 5))
Y = np.arange(60) % 3
MAKE = {
    "ProgressBar": lambda folder: ProgressBar(),
    "Checkpoint": lambda folder: Checkpoint(folder / "checkpoints", every=2),
    "TimeBudget": lambda folder: TimeBudget(1000.0),
    "TargetScore": lambda folder: TargetScore(2.0),
    "CSVLog": lambda folder: CSVLog(folder / "log.csv"),
    "TensorBoard": lambda folder: TensorBoard(folder / "events"),
}


def record(epoch: int = 1, **fields) -> Record:
    facts = {"loss": 1.0 / epoch, "accuracy": None, "learning_rate": 0.001, "n_samples": 60}
    facts |= {"seconds": 0.5, "validation_loss": None, "validation_score": None}
    return Record(epoch=epoch, **(facts | fields))


SCORED = [record(epoch, validation_score=0.5) for epoch in (1, 2, 3)]


def fit(callback, records=SCORED, *, n_steps=4, model=None, fail=False) -> list[int]:
    """Call what a fit calls, and give the steps that were done in each epoch."""
    model = model or SimpleNamespace(max_iter=len(records))
    done_in = []
    callback.on_fit_begin(model)
    try:
        for row in records:
            for done in range(1, n_steps + 1):
                stopped = callback.on_step_end(model, done, n_steps)
                if stopped:
                    break
            done_in.append(done)
            if callback.on_epoch_end(model, row) or stopped:
                break
        if fail:
            raise KeyboardInterrupt
    finally:
        callback.on_fit_end(model)
    return done_in


@pytest.fixture(scope="module")
def fitted() -> MLPClassifier:
    return MLPClassifier((4,), max_iter=3, learning_rate="cosine", random_state=0).fit(X, Y)


def test_the_base_does_nothing_and_stops_nothing():
    assert fit(Callback()) == [4, 4, 4]


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("how", ["deepcopy", "clone", "pickle"])
def test_copies_made_before_during_and_after_a_fit_work(name, how, tmp_path, fitted):
    copied = {
        "deepcopy": copy.deepcopy,
        "clone": lambda callback: clone(callback, safe=False),
        "pickle": lambda callback: pickle.loads(pickle.dumps(callback)),  # noqa: S301
    }[how]
    original = MAKE[name](tmp_path)
    copies = [copied(original)]
    original.on_fit_begin(fitted)
    for row in SCORED:
        original.on_step_end(fitted, 1, 1)
        original.on_epoch_end(fitted, row)
        copies.append(copied(original))
    original.on_fit_end(fitted)
    copies.append(copied(original))
    for callback in [*copies, original]:
        assert type(callback) is type(original)
        assert fit(callback, model=fitted) == [4, 4, 4]


@pytest.mark.parametrize("name", MAKE)
def test_nothing_stays_open_after_a_fit_that_was_interrupted(name, tmp_path, fitted, terminal):
    terminal()
    callback = MAKE[name](tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(callback, model=fitted, fail=True)
    callback.on_fit_end(fitted)  # once more does no harm
    # What is open cannot be pickled; nothing may have been left out to make it possible.
    state = vars(callback)
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301
    assert fit(callback, model=fitted) == [4, 4, 4]


def test_an_estimator_calls_them(tmp_path, capsys):
    watch = [make(tmp_path) for name, make in MAKE.items() if name != "TargetScore"]
    model = MLPClassifier((4,), max_iter=3, learning_rate="cosine", callbacks=watch)
    clone(model).fit(X, Y)
    model.fit(X, Y)
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert names(tmp_path / "checkpoints") == ["epoch-0002"]
    assert load_model(tmp_path / "checkpoints" / "epoch-0002").n_iter_ == 2
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
    assert len(list((tmp_path / "events").iterdir())) == 2
    saved = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(saved.predict(X), model.predict(X))


# --- ProgressBar ---------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch) -> Callable[[], io.StringIO]:
    """Make stdout a terminal; to be called in the test, as pytest sets stdout before each."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def make() -> io.StringIO:
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        return screen

    return make


def test_a_terminal_gets_a_bar_for_each_fit(terminal):
    bar = ProgressBar()
    for _ in range(2):
        screen = terminal()
        fit(bar, [record(1), record(2, validation_score=0.75)])
        shown = screen.getvalue()
        assert "epoch 2/2" in shown
        assert "loss 0.5000  validation 0.7500" in shown
        assert "━" in shown
        # The cursor comes back, and prints go to the terminal again.
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
        assert sys.stdout is screen


def test_the_bar_shows_how_far_the_fit_is_and_the_time_left(terminal):
    screen, bar, model = terminal(), ProgressBar(), SimpleNamespace(max_iter=4)
    bar.on_fit_begin(model)
    bar.on_epoch_end(model, record(1))
    bar.on_step_end(model, 5, 10)
    task = bar._live.tasks[0]
    assert (task.completed, task.total) == (15 / 40, 1.0)
    assert task.fields == {"epoch": 2, "facts": "loss 1.0000", "left": "0:00 left"}
    bar.on_fit_end(model)
    assert re.search(r"epoch 2/4 .*━.* loss 1.0000 0:00 left", screen.getvalue())


def test_the_bar_moves_also_where_an_epoch_has_no_steps(terminal):
    terminal()
    bar, model = ProgressBar(), SimpleNamespace(max_iter=4)
    bar.on_fit_begin(model)
    bar.on_epoch_end(model, record(1))
    task = bar._live.tasks[0]
    assert (task.completed, task.total) == (0.25, 1.0)
    bar.on_fit_end(model)


def test_steps_that_are_quick_are_not_all_drawn(terminal):
    terminal()
    bar, model = ProgressBar(), SimpleNamespace(max_iter=1)
    bar.on_fit_begin(model)
    for done in range(1, 1000):
        bar.on_step_end(model, done, 10**9)
    assert bar._live.tasks[0].completed < 999 / 10**9
    bar.on_fit_end(model)


@pytest.mark.parametrize(("max_iter", "printed"), [(3, [1, 2, 3]), (50, [3, 5, 8, 10])])
def test_a_file_gets_about_twenty_lines_and_the_last(max_iter, printed, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar, model = ProgressBar(), SimpleNamespace(max_iter=max_iter)
    for _ in range(2):  # as by early stopping, after ten epochs
        fit(bar, [record(epoch) for epoch in range(1, 1 + min(10, max_iter))], model=model)
        lines = capsys.readouterr().out.splitlines()
        assert [int(line[6:].split("/")[0]) for line in lines] == printed
        assert all(line.isprintable() for line in lines)
        assert lines[-1].startswith(f"epoch {printed[-1]:{len(str(max_iter))}}/{max_iter}  loss 0.")
        assert lines[-1].endswith(" left")


def test_the_time_left_is_that_of_the_epochs_to_come(capsys, clock):
    bar, model = ProgressBar(), SimpleNamespace(max_iter=3)
    bar.on_fit_begin(model)
    clock.now += 90.0
    bar.on_epoch_end(model, record(1, validation_score=0.25))
    assert capsys.readouterr().out == "epoch 1/3  loss 1.0000  validation 0.2500  3:00 left\n"


def test_the_first_step_which_may_compile_does_not_count(terminal, clock):
    terminal()
    bar, model = ProgressBar(), SimpleNamespace(max_iter=10)
    bar.on_fit_begin(model)
    assert bar._live.tasks[0].fields["facts"] == "preparing the first step"
    clock.now += 18.0
    for done in range(1, 11):
        bar.on_step_end(model, done, 10)
        clock.now += 1.0
    assert bar._live.tasks[0].fields["left"] == "1:30 left"
    bar.on_fit_end(model)


def test_the_time_left_is_that_of_the_fit_where_it_ends_it(capsys, clock):
    bar, model = ProgressBar(), SimpleNamespace(max_iter=10**6, max_time=200.0)
    bar.on_fit_begin(model)
    for epoch in range(1, 41):
        clock.now += 5.0
        bar.on_epoch_end(model, record(epoch))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0].endswith(" 3:10 left")
    assert lines[-1].endswith(" 0:00 left")


def test_a_warm_start_is_shown_from_its_own_beginning(capsys):
    fit(ProgressBar(), [record(epoch) for epoch in (8, 9)])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]


# --- Checkpoint ----------------------------------------------------------------------------------


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


def test_a_model_that_cannot_be_saved_is_refused_before_the_first_step(tmp_path):
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


# --- TimeBudget ----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(callbacks._progress_bar, "time", fake)
    monkeypatch.setattr(budget, "time", fake)
    return clock


def steps_within(clock, seconds, durations, *, between=0.0, n_steps=100) -> int:
    ours, done_in_all = TimeBudget(seconds), 0
    ours.on_fit_begin(None)
    for epoch in range(1, 100):
        for done in range(1, n_steps + 1):
            clock.now += durations(done_in_all)
            done_in_all += 1
            if ours.on_step_end(None, done, n_steps):
                return done_in_all
        clock.now += between
        if ours.on_epoch_end(None, record(epoch)):
            return done_in_all
    raise AssertionError("the budget ended nothing")


@pytest.mark.parametrize("n_steps", [1, 3, 100])
def test_the_fit_ends_before_the_step_that_would_be_too_late(clock, n_steps):
    assert steps_within(clock, 10.05, lambda _: 1.0, n_steps=n_steps) == 10
    assert steps_within(clock, 10.95, lambda _: 1.0, n_steps=n_steps) == 10
    assert steps_within(clock, 9.75, lambda _: 1.0, n_steps=n_steps) == 9


def test_a_step_that_is_too_long_is_the_only_one(clock):
    assert steps_within(clock, 5.0, lambda _: 7.0) == 1


def test_the_first_step_which_compiles_is_no_measure_of_the_others(clock):
    assert steps_within(clock, 10.5, lambda step: 6.0 if step == 0 else 1.0) == 5


def test_what_is_between_epochs_counts(clock):
    # 10 steps and a validation of 40 s: no second epoch fits.
    assert steps_within(clock, 49.5, lambda _: 1.0, between=40.0, n_steps=10) == 10


def test_time_is_kept_for_what_follows_an_epoch(clock):
    # From the second epoch on, its validation of 4 s is foreseen.
    assert steps_within(clock, 20.5, lambda _: 1.0, between=4.0, n_steps=8) == 12


def test_an_epoch_that_a_device_has_only_queued_is_not_begun_unless_it_fits(clock):
    # An epoch of 10 s: all of its 10 steps are queued at once, and its end waits for them.
    assert steps_within(clock, 25.5, lambda _: 0.0, between=10.0, n_steps=10) == 20


def test_epochs_without_steps_count_as_steps(clock):
    ours = TimeBudget(10.5)
    ours.on_fit_begin(None)
    for epoch in range(1, 100):
        clock.now += 1.0
        if ours.on_epoch_end(None, record(epoch)):
            break
    assert epoch == 10


def test_a_budget_starts_anew_with_each_fit(clock):
    ours = TimeBudget(1.0)
    for _ in range(2):
        ours.on_fit_begin(None)
        assert not ours.on_step_end(None, 1, 2)
        clock.now += 5.0
        assert ours.on_step_end(None, 2, 2)


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, "60", None])
def test_seconds_must_be_above_0(seconds):
    with pytest.raises(ValueError, match=f"seconds must be a number above 0, got {seconds!r}"):
        TimeBudget(seconds)


# --- TargetScore ---------------------------------------------------------------------------------


def test_the_fit_ends_at_the_first_score_that_is_enough():
    rows = [record(i + 1, validation_score=s) for i, s in enumerate([0.5, 0.79, 0.8, 0.9])]
    assert fit(TargetScore(0.8), rows) == [4, 4, 4]


def test_a_target_without_a_score_says_what_is_missing():
    with pytest.raises(ValueError, match=r"TargetScore\(0.9\).*X_val.*early_stopping=True"):
        fit(TargetScore(0.9), [record(1)])


@pytest.mark.parametrize("score", [math.nan, math.inf, "0.9", None])
def test_a_target_must_be_a_number(score):
    with pytest.raises(ValueError, match=f"score must be a finite number, got {score!r}"):
        TargetScore(score)


# --- CSVLog --------------------------------------------------------------------------------------


def test_a_log_is_read_back_exactly(tmp_path):
    rows = [
        record(1, loss=1 / 3, seconds=1e-9, accuracy=0.1 + 0.2),
        record(2, loss=math.inf, validation_loss=np.float64(2 / 3), validation_score=-0.0),
    ]
    log = CSVLog(tmp_path / "new" / "log.csv")
    fit(log, rows)
    with open(log.path, newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(Record._fields)
    parsed = [tuple(float(v) if v else None for v in row.values()) for row in read]
    assert parsed == [tuple(row) for row in rows]


def test_each_epoch_is_in_the_file_when_it_ends(tmp_path):
    log = CSVLog(str(tmp_path / "log.csv"))
    log.on_fit_begin(None)
    for epoch in (1, 2, 3):
        log.on_epoch_end(None, record(epoch))
        assert len(log.path.read_text().splitlines()) == 1 + epoch


def test_a_log_is_replaced_when_a_fit_begins_and_not_before(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("an earlier log")
    log = CSVLog(path)
    assert path.read_text() == "an earlier log"
    for _ in range(2):
        fit(log)
        assert len(path.read_text().splitlines()) == 4


# --- TensorBoard ---------------------------------------------------------------------------------


def events(path) -> list:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    content, found = path.read_bytes(), []
    while content:  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", content[:8])
        found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def scalars(path) -> dict[tuple[str, int], float]:
    return {(v.tag, e.step): v.simple_value for e in events(path) for v in e.summary.value}


def test_the_scalars_of_each_epoch_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    rows = [record(1, loss=2.5), record(2, validation_loss=0.75, validation_score=0.5)]
    fit(TensorBoard(tmp_path / "new" / "run"), rows)
    (path,) = (tmp_path / "new" / "run").iterdir()
    rate = pytest.approx(0.001)
    assert scalars(path) == {
        ("loss", 1): 2.5,
        ("learning_rate", 1): rate,
        ("samples_per_second", 1): 120.0,
        ("loss", 2): 0.5,
        ("learning_rate", 2): rate,
        ("samples_per_second", 2): 120.0,
        ("validation_loss", 2): 0.75,
        ("validation_score", 2): 0.5,
    }


def test_lbfgs_which_has_no_learning_rate_writes_none(tmp_path, caplog):
    pytest.importorskip("tensorboardX")
    fit(TensorBoard(tmp_path), [record(1, learning_rate=math.nan)])
    (path,) = tmp_path.iterdir()
    assert set(scalars(path)) == {("loss", 1), ("samples_per_second", 1)}
    assert caplog.records == []


def test_quick_fits_one_after_the_other_keep_their_files(tmp_path):
    pytest.importorskip("tensorboardX")
    board = TensorBoard(str(tmp_path))
    for n_epochs in (1, 2, 3):
        fit(board, SCORED[:n_epochs])
    paths = sorted(tmp_path.iterdir())
    assert [len(scalars(path)) for path in paths] == [4, 8, 12]
    # This is what makes TensorBoard forget the fits before.
    starts = [e.session_log.status for e in events(paths[-1]) if e.HasField("session_log")]
    assert len(starts) == 1


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'\'tensorboardX\'.*pip install -e ".*\[tensorboard\]"'):
        TensorBoard("folder").on_fit_begin(None)
    with pytest.raises(ImportError, match=r'\'nothing\'.*\[cli\]"'):
        optional("nothing.like.this")
