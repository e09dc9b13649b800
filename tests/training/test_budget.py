"""`max_time`: a fit that ends in time, and a schedule that follows the clock. No test sleeps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import bounded, small

from mlp_xp import MLPRegressor
from mlp_xp.callbacks import Callback
from mlp_xp.estimators.held_out import HeldOut
from mlp_xp.optimizers.schedules import Linear, LinearWarmup
from mlp_xp.training import fit_loop
from mlp_xp.training import time_budget as budget
from mlp_xp.training import trainer as training
from mlp_xp.training.time_budget import Budget, Pace

MANY = 10**6


@pytest.fixture
def set_clock(monkeypatch) -> Callable[[Callable[[], float]], None]:
    """Return the function that replaces the clock of fits."""

    def replace(clock: Callable[[], float]) -> None:
        fake = SimpleNamespace(perf_counter=clock)
        for module in (budget, fit_loop, training):
            monkeypatch.setattr(module, "time", fake)
        monkeypatch.setattr("mlp_xp.estimators.base.time", fake)

    return replace


@pytest.fixture
def clock(set_clock) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    set_clock(lambda: clock.now)
    return clock


@pytest.fixture
def takes(clock, monkeypatch):
    """Let steps, validations and what callbacks do take time by the fake clock."""

    def set_times(*, step=1.0, first=None, validation=0.0, prepare=0.0) -> SimpleNamespace:
        seen = SimpleNamespace(steps=0, validations=0, start=clock.now)
        run_epoch, measure = training.Trainer.run_epoch, HeldOut.measure

        def timed_epoch(trainer, *args, **settings):
            inner, loop = trainer._step, trainer._loop

            def timed_step(*arguments):
                clock.now += step if seen.steps or first is None else first
                seen.steps += 1
                return inner(*arguments)

            trainer._step, trainer._loop = timed_step, None  # One by one, to count them.
            try:
                return run_epoch(trainer, *args, **settings)
            finally:
                trainer._step, trainer._loop = inner, loop

        def timed_measure(validation_):
            clock.now += validation
            seen.validations += 1
            return measure(validation_)

        class Prepares(Callback):
            def on_fit_begin(self, model):
                clock.now += prepare

        monkeypatch.setattr(training.Trainer, "run_epoch", timed_epoch)
        monkeypatch.setattr(HeldOut, "measure", timed_measure)
        seen.callbacks = [Prepares()] if prepare else None
        return seen

    return set_times


def timed(seconds, **settings):
    return small(**{"max_iter": MANY, "max_time": seconds, "learning_rate": "linear"} | settings)


@pytest.mark.parametrize(
    ("seconds", "costs", "n_steps", "n_validations", "used"),
    [
        pytest.param(10.0, {}, 10, 0, 10.0, id="all of it"),
        pytest.param(10.9, {}, 10, 0, 10.0, id="a step does not fit"),
        pytest.param(9.75, {}, 9, 0, 9.0, id="two epochs and a step"),
        pytest.param(0.5, {}, 1, 0, 1.0, id="less than a step"),
        # One validation to know how long it takes, 3; an epoch and another, 7; again; nothing fits.
        pytest.param(20.0, {"validation": 3.0}, 8, 3, 17.0, id="validations"),
        pytest.param(22.0, {"validation": 3.0}, 10, 4, 22.0, id="a part is validated"),
        # It is no measure for the others, and no excuse.
        pytest.param(10.5, {"first": 6.0}, 5, 0, 10.0, id="a first step that compiles"),
        pytest.param(10.0, {"prepare": 4.0}, 6, 0, 10.0, id="what comes before the first step"),
    ],
)
def test_a_fit_does_the_steps_and_validations_that_fit(
    problem, takes, clock, seconds, costs, n_steps, n_validations, used
):
    X, y = problem()  # Four steps an epoch.
    times = takes(**costs)
    held = {"X_val": X, "y_val": y} if n_validations else {}
    model = timed(seconds, callbacks=times.callbacks).fit(X, y, **held)
    assert (times.steps, times.validations) == (n_steps, n_validations)
    assert clock.now - times.start == used
    whole, part = divmod(n_steps, 4)
    records = model.history_
    assert [r.n_samples for r in records] == [60] * whole + [16 * part] * bool(part)
    assert [r.epoch for r in records] == list(range(1, model.n_iter_ + 1))
    assert sum(r.n_samples for r in records) == model.t_
    assert all(0.0 < r.loss < 10.0 for r in records)
    assert all((r.validation_score is not None) == bool(held) for r in records)


@pytest.mark.parametrize(
    ("seconds", "costs", "settings", "rates"),
    [
        # The last step of an epoch begins at 3 and at 7 of 8 seconds.
        pytest.param(8.0, {}, {}, [1 - 3 / 8, 1 - 7 / 8], id="linear"),
        # Trial validation, 10; then steps from 10 to 14 of the 18 before the last validation.
        pytest.param(28.0, {"validation": 10.0}, {}, [1 - 13 / 18], id="validation at the end"),
        pytest.param(
            8.0,
            {},
            {"batch_size": 60, "learning_rate": LinearWarmup(0.5, then=Linear())},
            [0, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 4, 1 / 2, 1 / 4],
            id="a warm-up is a share of the time",
        ),
        pytest.param(1000.0, {}, {"max_iter": 2}, [1 - 3 / 7, 0.0], id="fewer epochs"),
    ],
)
def test_the_schedule_follows_the_time(problem, takes, seconds, costs, settings, rates):
    X, y = problem()
    takes(**costs)
    held = {"X_val": X, "y_val": y} if costs else {}
    model = timed(seconds, learning_rate_init=1.0, **settings).fit(X, y, **held)
    assert [r.learning_rate for r in model.history_] == pytest.approx(rates, abs=1e-5)


def test_a_callback_sets_the_length_before_the_first_step_and_ends_it_after_any(problem, takes):
    class Sets(Callback):
        def __init__(self, **settings):
            self.settings = settings

        def on_fit_begin(self, model):
            model.set_params(**self.settings)

    class Stops(Callback):
        def on_step_end(self, model, done, n_steps):
            return (done, n_steps) == (2, 4)

    takes()
    for max_time, callback, n_samples in (
        (1000.0, Sets(max_time=10.0), 2 * 60 + 32),
        (None, Sets(max_iter=3), 3 * 60),
        (1000.0, Stops(), 32),
    ):
        model = timed(max_time, callbacks=[callback]).fit(*problem())
        assert model.t_ == n_samples, callback


def test_without_a_time_nothing_changes(problem, takes):
    X, y = problem()
    takes()
    model, plain = (small(learning_rate="linear", max_time=t).fit(X, y) for t in (1e9, None))
    np.testing.assert_allclose(model.coefs_[0], plain.coefs_[0], rtol=1e-3)
    assert model.n_iter_ == plain.n_iter_ == 5


def test_quick_steps_are_done_in_groups_that_shrink_towards_the_end(clock):
    ours, groups = Budget(1.0), []
    while few := ours.next_steps(MANY):
        groups.append(few)
        clock.now += few * 0.0009765625
        ours.count(few)
    assert sum(groups) == 1024
    assert groups[:4] == [1, 1, 16, 16]
    assert groups[-9:] == [16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_a_disturbed_step_is_forgotten(clock):
    ours = Budget(100.0)
    for seconds in (1.0, 1.0, 1.0, 1.0, 30.0):
        clock.now += seconds
        ours.count(1)
    assert ours.fraction(ahead=10) == pytest.approx(0.44)


def test_lbfgs_ends_behind_an_iteration(problem, takes, clock):
    class Takes(Callback):
        def on_epoch_end(self, model, record):
            clock.now += 1.0

    X, y = problem()
    takes(validation=1.0)
    settings = {"solver": "lbfgs", "max_iter": 1000, "tol": 0.0, "max_time": 7.5}
    assert small(**settings, callbacks=[Takes()]).fit(X, y).n_iter_ == 7
    # The time of a validation is not kept twice.
    assert small(**settings).fit(X, y, X_val=X, y_val=y).n_iter_ == 7


def test_partial_fit_pays_no_heed(problem, takes):
    X, y = problem()
    times = takes()
    model = timed(2.0)
    for _ in range(2):
        model.partial_fit(X, y, classes=[0, 1, 2])
    assert times.steps == 8


def test_a_warm_start_has_the_time_again(problem, takes):
    X, y = problem()
    times = takes()
    model = timed(8.0, warm_start=True, learning_rate_init=1.0).fit(X, y).fit(X, y)
    assert times.steps == 16
    rates = [record.learning_rate for record in model.history_]
    assert rates[:2] == pytest.approx(rates[2:], abs=1e-5)
    assert model.n_iter_ == 2


@pytest.mark.matrix
@pytest.mark.parametrize("placement", ["resident", "streamed"])
def test_a_real_fit_ends_in_its_time_on_every_backend(problem, where, placement, set_clock):
    # That of this process, which stands still while others are at work on the machine.
    set_clock(time.process_time)
    X, y = problem()
    settings = {"hidden_layer_sizes": (8,), "max_iter": 1, "learning_rate": "cosine"}
    settings |= {"n_iter_no_change": float("inf"), "batch_size": 32, "placement": placement}
    # Against the clock, steps are compiled one by one.
    model = MLPRegressor(**settings, **where, max_time=60.0)
    data = X.astype(np.float32), y
    held = {"X_val": data[0][:20], "y_val": y[:20]}
    model.fit(*data, **held)  # compiles
    with bounded(1.5):
        model.set_params(max_time=0.5, max_iter=MANY).fit(*data, **held)
    assert 1 < model.n_iter_ < MANY
    assert model.history_[-1].learning_rate < 5e-4
    epochs = [record.epoch for record in model.history_]
    assert all(b == a + 1 for a, b in itertools.pairwise(epochs))


def test_a_time_must_be_above_0(problem):
    for seconds in (0, -1.0, "60", float("inf")):
        with pytest.raises(ValueError, match="'max_time' parameter of MLPClassifier must be a fl"):
            small(max_time=seconds).fit(*problem())


def test_the_pace_leaves_out_the_first_step_and_forgets_what_was_slow(clock):
    pace = Pace()
    assert pace.seconds_left() == float("inf")
    clock.now += 18.0  # It compiles.
    pace.update(0.01)
    assert pace.seconds_left() == pytest.approx(18.0 * 99)  # There is no other measure.
    for done in range(2, 21):
        clock.now += 1.0
        pace.update(done / 100)
        assert pace.seconds_left() == pytest.approx(100 - done)
    clock.now += 60.0  # The first validation, which compiles too.
    pace.update(0.2)
    assert pace.seconds_left() > 200
    for done in range(21, 50):
        clock.now += 1.0
        pace.update(done / 100)
    assert pace.seconds_left() == pytest.approx(51.0)


def test_the_pace_keeps_few_numbers(clock):
    pace = Pace()
    for done in range(10_000):
        clock.now += 1e-4
        pace.update(done / 10_000)
    assert len(pace._marks) < 50
    assert pace.seconds_left() == pytest.approx(0.0, abs=1e-3)
