"""A fit that is interrupted and resumed is the whole one, bit for bit."""

import copy
import json
import math
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
from helpers import bounded, names, place_of, problem

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import Flip, Mixup
from mlp_xp.backends import to_numpy
from mlp_xp.callbacks import Callback, Checkpoint, CSVLog
from mlp_xp.optimizers import SGD, ByKind, Muon
from mlp_xp.training.checkpoints import checkpoints
from mlp_xp.training.checkpoints.snapshot import SnapshotError

X, Y = problem(n=210, features=8)
STEPS = 6  # Steps per epoch, with early stopping.
CASES = {
    "plain": {"early_stopping": False},
    "everything": {"dropout": 0.2, "input_dropout": 0.1, "ema_decay": 0.9, "max_grad_norm": 1.0},
    "adaptive": {"solver": SGD(0.9), "learning_rate": "adaptive", "learning_rate_init": 0.5},
    "muon": {"solver": ByKind(Muon(ns_steps=2)), "learning_rate": "onecycle", "residual": True},
    "streamed": {"placement": "streamed", "dropout": 0.1, "precision": "float64"},
}
CASES["everything"] |= {"augmentation": [Flip((1, 2, 4)), Mixup(0.2)], "normalization": "batch"}
CASES["everything"] |= {"input_scaling": "standardize", "class_weight": "balanced"}
CASES["everything"] |= {"learning_rate": "cosine", "n_iter_no_change": 20}
CASES["muon"] |= {"numeric_embedding": "ple", "parametrization": "ntk", "dropout": 0.2}
CASES["muon"] |= {"dropout_schedule": "linear", "parametric_activation": True}
CASES["adaptive"] |= {"n_iter_no_change": 2}


class KilledError(Exception):
    pass


class Interrupt(Callback):
    """Ends a fit with an error after some steps, as a kill does."""

    def __init__(self, n_steps):
        self.left = n_steps

    def on_step_end(self, model, done, n_steps):
        self.left -= 1
        if self.left < 0:
            raise KilledError


def make(backend="numpy", watch=(), **settings):
    defaults = {"hidden_layer_sizes": (8, 8), "max_iter": 12, "batch_size": 32, "tol": 1e-3}
    defaults |= {"random_state": 0, "early_stopping": True, "n_iter_no_change": 5}
    defaults |= {"learning_rate_init": 0.03} | place_of(backend)
    return MLPClassifier(**(defaults | settings), callbacks=list(watch))


def interrupt(n_steps, folder, every="1 steps", **settings):
    with pytest.raises(KilledError):
        make(watch=[Checkpoint(folder, every=every), Interrupt(n_steps)], **settings).fit(X, Y)


def result(model) -> list:
    """Return all that two equal fits have in common."""
    tree = tuple(model.coefs_), tuple(model.intercepts_), tuple(getattr(model, "moments_", ()))
    arrays = [to_numpy(array).tobytes() for array in leaves(tree)]
    history = [record._replace(seconds=0.0) for record in model.history_]
    numbers = model.n_iter_, model.t_, model.best_loss_, model.best_validation_score_
    return [arrays, history, numbers, model.predict_proba(X).tobytes()]


def test_on_fit_resume_calls_on_fit_begin_by_default(tmp_path):
    class Begin(Callback):
        n_times = 0

        def on_fit_begin(self, model):
            self.n_times += 1

    interrupt(STEPS, tmp_path)
    watch = Begin()
    make(watch=[watch]).fit(X, Y, resume=tmp_path)
    assert watch.n_times == 1


@pytest.mark.parametrize("n_steps", [1, STEPS, STEPS + 1, 4 * STEPS + 3, 8 * STEPS + 2])
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_fit_matches_an_uninterrupted_one(backend_spec, case, n_steps, tmp_path):
    interrupt(n_steps, tmp_path, backend=backend_spec, **CASES[case])
    resumed = make(backend_spec, **CASES[case]).fit(X, Y, resume=tmp_path)
    assert result(resumed) == result(make(backend_spec, **CASES[case]).fit(X, Y))


def test_resumed_fit_without_random_state_keeps_its_seed(tmp_path):
    # Patience for all epochs: else 1 seed in 75 ends before the interruption.
    settings = {"random_state": None, "shuffle": True, "n_iter_no_change": 20}
    interrupt(4 * STEPS + 3, tmp_path, **settings)
    resumed = make(**settings).fit(X, Y, resume=tmp_path)
    newest = list(checkpoints.checkpoints(tmp_path).values())[-1]
    assert checkpoints.read_checkpoint(newest).metadata["seed"] == resumed._state.seed
    assert resumed.n_iter_ > 4


def test_a_fit_can_be_interrupted_and_resumed_many_times(tmp_path):
    settings = CASES["everything"]
    interrupt(3, tmp_path, every="2 steps", **settings)
    for _ in range(40):
        watch = [Checkpoint(tmp_path, every="2 steps"), Interrupt(5)]
        model = make(watch=watch, **settings)
        try:
            model.fit(X, Y, resume=tmp_path)
            break
        except KilledError:
            pass
    assert result(model) == result(make(**settings).fit(X, Y))


@pytest.mark.parametrize("at", ["2 epochs", "1 steps"])
def test_resumed_fit_with_machine_code_is_bitwise_identical(at, tmp_path, monkeypatch):
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 0)
    settings = {"hidden_layer_sizes": (32, 32), "learning_rate": "cosine", "precision": "float32"}
    whole = make(**settings).fit(X, Y)
    interrupt(5 * STEPS + 2, tmp_path, every=at, **settings)
    assert result(make(**settings).fit(X, Y, resume=tmp_path)) == result(whole)


def test_early_stopping_state_is_resumed_even_after_it_ended_the_fit(tmp_path):
    whole = make(watch=[Checkpoint(tmp_path / "whole")], learning_rate_init=0.1).fit(X, Y)
    assert whole.n_iter_ < 12  # Early stopping ended it some epochs after the best one.
    best = whole.validation_scores_.index(max(whole.validation_scores_))
    assert best + 2 < whole.n_iter_
    interrupt((best + 2) * STEPS + 1, tmp_path / "part", learning_rate_init=0.1)
    for folder, n_steps in (("part", 10**6), ("whole", 0)):
        model = make(learning_rate_init=0.1, watch=[Interrupt(n_steps)])
        assert result(model.fit(X, Y, resume=tmp_path / folder)) == result(whole)


@pytest.mark.libraries("torch", "jax", "array_api_strict")
def test_checkpoint_can_be_resumed_on_another_backend(backend_spec, tmp_path):
    settings = CASES["everything"] | {"precision": "float64"}
    whole = make(**settings).fit(X, Y)
    for number, (first, second) in enumerate([("numpy", backend_spec), (backend_spec, "numpy")]):
        folder = tmp_path / str(number)
        interrupt(3 * STEPS + 2, folder, backend=first, **settings)
        resumed = make(second, **settings).fit(X, Y, resume=folder)
        assert resumed.n_iter_ == whole.n_iter_
        for mine, theirs in zip(resumed.coefs_, whole.coefs_, strict=True):
            np.testing.assert_allclose(to_numpy(mine), theirs, rtol=1e-6, atol=1e-9)


def test_a_regressor_can_be_resumed(tmp_path):
    model = MLPRegressor(hidden_layer_sizes=(8,), max_iter=6, batch_size=32, random_state=0)
    model.set_params(learning_rate="cosine", callbacks=[Checkpoint(tmp_path), Interrupt(20)])
    with pytest.raises(KilledError):
        model.fit(X, X[:, 0])
    resumed = model.set_params(callbacks=None).fit(X, X[:, 0], resume=tmp_path).predict(X)
    np.testing.assert_array_equal(resumed, model.fit(X, X[:, 0]).predict(X))


def test_a_resumed_fit_counts_the_time_already_used(tmp_path):
    settings = {"max_time": 9.0, "max_iter": 10**6, "tol": 0.0, "n_iter_no_change": math.inf}
    interrupt(4, tmp_path, **settings)
    newest = list(checkpoints.checkpoints(tmp_path).values())[-1]
    content = json.loads((newest / "training.json").read_text())
    content["facts"] |= {"seconds": 8.5, "epoch_seconds": 1.5}
    digest = checkpoints._digest((newest / "training.safetensors").read_bytes(), content)
    (newest / "training.json").write_text(json.dumps(content | {"sha256": digest}))
    resumed = make(**settings).fit(X, Y, resume=newest.parent)
    seconds = [record.seconds for record in resumed.history_]
    assert seconds[0] > 1.5  # The part of the epoch before the kill counts.
    assert sum(seconds) < 5.0


def test_a_pickle_of_a_fit_in_progress_keeps_its_best_weights():
    contents = {}
    watch = Callback()
    watch.on_epoch_end = lambda model, record: contents.update(
        {record.epoch: pickle.dumps(copy.copy(model).set_params(callbacks=None))}
    )
    settings = {"learning_rate_init": 0.1, "n_iter_no_change": 100, "max_iter": 8}
    whole = make(watch=[watch], **settings).fit(X, Y)
    assert whole.validation_scores_.index(max(whole.validation_scores_)) < 6
    half = pickle.loads(contents[6])  # noqa: S301
    half.set_params(warm_start=True, max_iter=2).fit(X, Y)
    for mine, theirs in zip(half.coefs_, whole.coefs_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["training.json", "training.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty", "a list"])
def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(name, damage, tmp_path):
    interrupt(4 * STEPS, tmp_path)
    older, newest = list(checkpoints.checkpoints(tmp_path).values())[-2:]
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 4
    damaged = {"cut": content[:-9], "flipped": content, "a list": b"[]", "empty": b""}
    (newest / name).unlink()
    if damage != "missing":
        (newest / name).write_bytes(damaged[damage])
    said = rf"{newest.name} (is damaged|cannot be read).* continues from {older.name}"
    watch = [Checkpoint(tmp_path, keep_last=1, keep_best=0)]
    with pytest.warns(RuntimeWarning, match=said):
        resumed = make(watch=watch).fit(X, Y, resume=tmp_path)
    assert result(resumed) == result(make().fit(X, Y))
    assert names(tmp_path) == ["best", f"epoch-{resumed.n_iter_:04}"]


WRONG_FACTS = [
    ("epoch", None, "epoch is missing"),
    ("epoch", -1, "epoch is -1, which is not valid"),
    ("seed", 2**32, "seed is 4294967296, which is not valid"),
    ("plateau", [1.0], r"plateau is \[1\.0\], which is not valid"),
    ("position", [0, "x", 0], "position is .*, which is not valid"),
    ("rule_start", 10**9, "rule_start is above steps"),
    ("fit", {"alpha": 3}, "fit is .*, which is not valid"),
    ("speed", 3, "speed is unknown"),
    ("history", {}, r"history\.best_loss is missing"),
    ("history", {"records": [[1]]}, r"history\.records is \[\[1\]\], which is not valid"),
    ("history", {"scores": None}, "history contains only part of the validation results"),
    ("array", np.nan, r"array 'state\.params\.0\.W' must contain finite floating-point values"),
    ("array", 1, r"array 'state\.params\.0\.W' must contain finite floating-point values"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG_FACTS)
def test_a_checkpoint_with_invalid_values_is_damaged_even_if_its_digest_matches(
    name, value, message, tmp_path
):
    interrupt(STEPS + 1, tmp_path)
    newest = list(checkpoints.checkpoints(tmp_path).values())[-1]
    snapshot = checkpoints.read_checkpoint(newest)
    facts, arrays = snapshot.metadata, snapshot.arrays
    if name == "array":
        arrays["state.params.0.W"] = np.full_like(
            arrays["state.params.0.W"], value, dtype=np.asarray(value).dtype
        )
    elif value is None:
        del facts[name]
    else:
        is_part = name == "history" and value
        facts[name] = facts[name] | value if is_part else value
    for path in checkpoints.checkpoints(tmp_path).values():
        checkpoints.write_snapshot(path, checkpoints.Snapshot(arrays, facts))
    with pytest.raises(SnapshotError, match=rf"{newest.name} is damaged: {message}"):
        make().fit(X, Y, resume=tmp_path)


def test_checkpoint_files_must_have_the_size_in_their_headers(tmp_path):
    interrupt(STEPS, tmp_path)
    *older, path = checkpoints.checkpoints(tmp_path).values()
    for folder in older:
        shutil.rmtree(folder)
    content = (path / "training.safetensors").read_bytes()
    for name, length, message in (
        ("training.json", 2**40, "1099511627776 bytes, more than the 33554432 allowed"),
        ("training.safetensors", 2**40, f"1099511627776 bytes, more than the {len(content)} allo"),
    ):
        whole = (path / name).read_bytes()
        with (path / name).open("ab") as file:
            file.truncate(length)
        with bounded(), pytest.raises(SnapshotError, match=message):
            make().fit(X, Y, resume=tmp_path)
        (path / name).write_bytes(whole)
    (path / "training.safetensors").write_bytes((2**40).to_bytes(8, "little") + content[8:])
    with pytest.raises(SnapshotError, match=r"damaged: the header of training\.safetensors is too"):
        make().fit(X, Y, resume=tmp_path)
    (path / "training.json").write_bytes(b"[" + b"[]," * 600_000 + b"1]")
    with bounded(), pytest.raises(SnapshotError, match="1200001 values, more than the 1000000"):
        make().fit(X, Y, resume=tmp_path)


def test_resume_without_a_readable_checkpoint_is_an_error(tmp_path):
    interrupt(STEPS, tmp_path)
    for path in checkpoints.checkpoints(tmp_path).values():
        (path / "training.json").write_text("{}")
    before = names(tmp_path)
    with pytest.raises(SnapshotError, match=r"has no readable checkpoint: .* backup"):
        make(watch=[Checkpoint(tmp_path)]).fit(X, Y, resume=tmp_path)
    assert names(tmp_path) == before


def test_resuming_from_an_empty_folder_starts_at_the_first_epoch(tmp_path):
    with pytest.raises(TypeError, match=r"`resume` must be the folder of a Checkpoint, got True"):
        make().fit(X, Y, resume=True)
    with pytest.warns(UserWarning, match="which has no checkpoint: the fit starts at its first"):
        model = make().fit(X, Y, resume=tmp_path / "new")
    assert result(model) == result(make().fit(X, Y))


def test_resuming_with_other_settings_or_data_is_an_error(tmp_path):
    interrupt(STEPS, tmp_path)
    other_settings = [
        ({"alpha": 0.5}, "from a fit with alpha=0.0001, but this fit has alpha=0.5: resume with"),
        ({"batch_size": 31, "max_iter": 3}, "with max_iter=12, batch_size=32, and|batch_size=32, "),
        ({"hidden_layer_sizes": (8, 9)}, "hidden_layer_sizes"),
    ]
    for settings, said in other_settings:
        model = make(**settings)
        with pytest.raises(SnapshotError, match=said):
            model.fit(X, Y, resume=tmp_path)
        assert not hasattr(model, "coefs_")
    with pytest.raises(SnapshotError, match="y and sample_weight="):
        make().fit(X, np.roll(Y, 1), resume=tmp_path)
    with pytest.raises(SnapshotError, match="samples="):
        make().fit(X[:-20], Y[:-20], resume=tmp_path)


def test_resuming_with_a_larger_max_iter_suggests_warm_start(tmp_path):
    settings = {"early_stopping": False, "tol": 0.0}
    make(watch=[Checkpoint(tmp_path)], max_iter=3, **settings).fit(X, Y)
    model = make(max_iter=8, **settings)
    said = r"resume with max_iter=3, then type set_params\(warm_start=True, max_iter=5\) and fit"
    with pytest.raises(SnapshotError, match=said):
        model.fit(X, Y, resume=tmp_path)
    with pytest.raises(SnapshotError, match="resume with the same settings and data"):
        model.set_params(max_iter=2).fit(X, Y, resume=tmp_path)
    model.set_params(max_iter=3).fit(X, Y, resume=tmp_path)
    model.set_params(warm_start=True, max_iter=5).fit(X, Y)
    whole = make(max_iter=8, **settings).fit(X, Y)
    for mine, theirs in zip(
        model.coefs_, whole.coefs_, strict=True
    ):  # The optimizer state is kept.
        np.testing.assert_array_equal(mine, theirs)


def test_logs_of_a_resumed_fit_are_complete(tmp_path):
    def watch(folder):
        return [CSVLog(folder / "log.csv"), Checkpoint(folder / "kept")]

    make(watch=watch(tmp_path / "whole")).fit(X, Y)
    with pytest.raises(KilledError):
        make(watch=[*watch(tmp_path / "part"), Interrupt(3 * STEPS + 2)]).fit(X, Y)
    model = make(watch=watch(tmp_path / "part"))
    model.fit(X, Y, resume=tmp_path / "part" / "kept")

    def rows(name):
        lines = (tmp_path / name / "log.csv").read_text().splitlines()
        return [[field for i, field in enumerate(line.split(",")) if i != 5] for line in lines]

    assert rows("part") == rows("whole")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
def test_sigterm_writes_a_checkpoint_and_ends_with_143(tmp_path):
    class Terminate(Callback):
        def on_step_end(self, model, done, n_steps):
            if len(model.history_) == 2 and done == 3:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        make(watch=[Terminate(), Checkpoint(tmp_path, every="1 h")]).fit(X, Y)
    assert end.value.code == 143
    [(epoch, step)] = checkpoints.checkpoints(tmp_path)
    assert (epoch, step) >= (2, 3)
    assert "best" in names(tmp_path)
    assert result(make().fit(X, Y, resume=tmp_path)) == result(make().fit(X, Y))


@pytest.mark.matrix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fit_killed_before_any_file_access_can_be_resumed(tmp_path):
    done = processes.run(Path(__file__).with_name("killed_fits.py").read_text(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[2]) > 30
