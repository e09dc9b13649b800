"""`mlp-xp train --max-time`: a command that ends in time."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from running import DRAWN, FILES, history_of

from mlp_xp import MLP
from mlp_xp.cli import deadline, settings
from mlp_xp.cli.deadline import Deadline
from mlp_xp.datasets import LOADERS, load_digits
from mlp_xp.saving import load_model


@pytest.mark.matrix
def test_a_command_ends_in_time(mlp_xp, recipe, monkeypatch):
    # The clock of this process stands still while others are at work on the machine.
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    options = ["--epochs", 10**6, "--max-time", 8, "--out", "run"]
    began = time.process_time()
    done = mlp_xp("train", "--recipe", recipe, *options)
    assert time.process_time() - began < 10.0
    assert done.status == 0
    assert re.search(r"epoch 2  loss .* 0:0\d left", done.out)
    assert re.search(r" images/s, \d\.\d s in all$", done.out.strip())
    model = load_model("run")
    assert 1 < model.n_iter_ < 10**6
    assert model.max_time == 8
    assert model.history_[-1].learning_rate < 1e-3


def test_the_test_is_timed_on_training_images(mlp_xp, recipe, undrawn, monkeypatch):
    seen = []

    class Watched(MLP):
        def _outputs(self, X, method, **settings):
            seen.append(X)
            return super()._outputs(X, method, **settings)

    digits = load_digits()
    monkeypatch.setitem(LOADERS, "digits", lambda: digits)
    monkeypatch.setitem(settings.ESTIMATORS, "classification", Watched)
    done = mlp_xp("train", "--recipe", recipe, "--max-time", 1000, "--out", "run")
    assert done.status == 0
    assert re.search(r"epoch 3  loss .* 0:00 left", done.out)  # It is that of the epochs.
    assert [X is digits.x_test for X in seen] == [False, False, True]
    assert all(np.shares_memory(X, digits.x_train) for X in seen[:2])


def test_with_too_little_time_a_tenth_is_for_the_training(mlp_xp, recipe):
    done = mlp_xp("train", "--recipe", recipe, "--max-time", "0.01", "--out", "run")
    assert done.status == 0
    assert re.search(
        r"note: max_time of 0.01 s is short: [\d.]+ s have passed before the training, and the "
        r"test takes 0.0 s, so no pictures are drawn, the command ends about [\d.]+ s late",
        done.err,
    )
    assert {path.name for path in Path("run").iterdir()} == FILES - DRAWN
    assert int(history_of(Path("run"))[0]["n_samples"]) > 0
    assert "test accuracy" in done.out


class Clock:
    """A clock that predictions advance."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Model:
    """An estimator whose predictions take 0.01 s an image and view."""

    max_time = 60.0

    def __init__(self, clock: Clock, views: int) -> None:
        self.clock = clock
        self.tta = None if views == 1 else ["flip"]
        self._views = views

    def predict(self, x, tta="as set"):
        self.clock.now += 0.01 * len(x) * (1 if tta is None else self._views)
        return x[:, 0]


@pytest.mark.parametrize(
    ("passed", "views", "has_views", "has_pictures", "seconds"),
    [
        # Of 60 s. 400 images take 5 s with a quarter added, two views twice that, pictures 2.6 s.
        (10.0, 1, True, True, 50.0 - 1.5 - 5.0 - 2.6),
        (10.0, 2, True, True, 50.0 - 1.5 - 10.0 - 2.6),
        (36.0, 2, False, True, 24.0 - 1.5 - 5.0 - 2.6),
        (41.0, 2, False, False, 19.0 - 1.5 - 5.0),
        (50.0, 2, False, False, 6.0 + 6.0),  # 6 s for the training, after 6 s of predictions
        (61.0, 2, False, False, 6.0),
    ],
)
def test_a_deadline_reserves_the_time_of_test_and_pictures(
    passed, views, has_views, has_pictures, seconds, monkeypatch, capsys
):
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    model = Model(clock, views)
    watch = Deadline(160.0 - passed, np.zeros((100, 2)), 400)
    watch.on_fit_begin(model)
    assert (watch.has_views, watch.has_pictures) == (has_views, has_pictures)
    assert model.max_time == pytest.approx(seconds)
    note = capsys.readouterr().err
    assert ("views" in note, "pictures" in note) == (not has_views, not has_pictures)
    assert ("late" in note) == (passed >= 50.0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is unknown")
def test_the_start_time_of_the_process_is_known():
    code = (
        "import time; from mlp_xp.cli.process import start_time; "
        "print(start_time(), time.perf_counter(), start_time(is_process=False))"
    )
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start, began, asked = map(float, done.stdout.split())
    assert before - 0.05 < start < began < asked < time.perf_counter()
