"""`max_time`: a fit that ends in time, and a schedule that follows the clock. No test sleeps."""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import bounded, small
from trainers import BATCH, CLASSES, FEATURES, N, byte_data, learned, make_trainer

from mlp_xp import MLPRegressor
from mlp_xp.backends import BackendError, get_backend
from mlp_xp.callbacks import Callback
from mlp_xp.estimators.held_out import HeldOut
from mlp_xp.nn.network import Network
from mlp_xp.optimizers.schedules import Constant, Linear, LinearWarmup
from mlp_xp.saving import load_model, save_model
from mlp_xp.training import fit_loop
from mlp_xp.training import time_budget as budget
from mlp_xp.training import trainer as training
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch
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
        seen = SimpleNamespace(steps=0, validations=0, clock=clock, start=clock.now)
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
        seen.callbacks = [Prepares()]
        return seen

    return set_times


def timed(seconds, **settings):
    return small(max_time=seconds, max_iter=MANY, learning_rate="linear", **settings)


@pytest.mark.parametrize(("seconds", "steps"), [(10.0, 10), (10.9, 10), (9.75, 9), (0.5, 1)])
def test_a_fit_does_the_steps_that_fit(problem, seconds, steps, takes):
    times = takes()
    model = timed(seconds).fit(*problem())  # four steps an epoch
    assert times.steps == steps
    assert sum(record.n_samples for record in model.history_) == model.t_
    assert [record.n_samples for record in model.history_][: steps // 4] == [60] * (steps // 4)
    assert len(model.history_) == model.n_iter_ == -(-steps // 4)


def test_a_callback_sets_the_time_before_the_first_step(problem, takes):
    class Shortens(Callback):
        def on_fit_begin(self, model):
            model.max_time = 10.0

    times = takes()
    timed(1000.0, callbacks=[Shortens()]).fit(*problem())
    assert times.steps == 10


def test_a_callback_sets_the_number_of_epochs_before_the_first_step(problem):
    class Shortens(Callback):
        def on_fit_begin(self, model):
            model.max_iter = 3

    assert small(max_iter=50, callbacks=[Shortens()]).fit(*problem()).n_iter_ == 3


def test_the_last_epoch_is_a_record_like_any_other(problem, takes):
    takes()
    last = timed(10.0).fit(*problem()).history_[-1]
    assert (last.epoch, last.n_samples) == (3, 32)
    assert 0.0 < last.loss < 10.0


def test_a_validation_after_each_epoch_ends_in_time_too(problem, takes):
    X, y = problem()
    times = takes(validation=3.0)
    timed(20.0).fit(X, y, X_val=X, y_val=y)
    # One to know how long it takes, 3; an epoch and its validation, 7; again; and nothing fits.
    assert times.steps == 8
    assert times.validations == 3
    assert times.clock.now - times.start == 17.0


def test_a_part_of_an_epoch_is_validated(problem, takes):
    X, y = problem()
    times = takes(validation=3.0)
    model = timed(22.0).fit(X, y, X_val=X, y_val=y)
    assert times.clock.now - times.start == 22.0
    assert model.history_[-1].n_samples == 32
    assert model.history_[-1].validation_score is not None


def test_a_first_step_that_compiles_is_no_measure_and_no_excuse(problem, takes):
    times = takes(first=6.0)
    timed(10.5).fit(*problem())
    assert times.steps == 5
    assert times.clock.now - times.start == 10.0


def test_what_comes_before_the_first_step_counts(problem, takes):
    times = takes(prepare=4.0)
    timed(10.0, callbacks=times.callbacks).fit(*problem())
    assert times.steps == 6


def test_the_schedule_follows_the_time(problem, takes):
    takes()
    rates = [r.learning_rate for r in timed(8.0, learning_rate_init=1.0).fit(*problem()).history_]
    # The last step of an epoch begins at 3 and at 7 of 8 seconds.
    assert rates == pytest.approx([1 - 3 / 8, 1 - 7 / 8], abs=1e-5)


def test_the_schedule_ends_with_the_last_step_not_with_what_follows_it(problem, takes):
    X, y = problem()
    takes(validation=10.0)
    model = timed(28.0, learning_rate_init=1.0).fit(X, y, X_val=X, y_val=y)
    # Trial validation, 10; then steps from 10 to 14 of the 18 before the last validation.
    assert model.history_[0].learning_rate == pytest.approx(1 - 13 / 18, abs=1e-5)


def test_a_warm_up_is_a_share_of_the_time(problem, takes):
    takes()
    schedule = LinearWarmup(0.5, then=Linear())
    model = timed(8.0, batch_size=60, learning_rate_init=1.0)
    rates = [
        r.learning_rate for r in model.set_params(learning_rate=schedule).fit(*problem()).history_
    ]
    assert rates == pytest.approx([0, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 4, 1 / 2, 1 / 4], abs=1e-5)


def test_the_epochs_decide_where_they_are_fewer(problem, takes):
    times = takes()
    model = timed(1000.0, learning_rate_init=1.0).set_params(max_iter=2).fit(*problem())
    assert times.steps == 8
    assert model.history_[-1].learning_rate == 0.0
    assert model.history_[0].learning_rate == pytest.approx(1 - 3 / 7, abs=1e-5)


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
    for seconds in (1.0, 1.0, 1.0, 30.0, 1.0):
        clock.now += seconds
        ours.count(1)
    assert ours.fraction(ahead=10) == pytest.approx(0.44)


def test_lbfgs_ends_behind_an_iteration(problem, clock):
    class Takes(Callback):
        def on_epoch_end(self, model, record):
            clock.now += 1.0

    X, y = problem()
    model = small(solver="lbfgs", max_iter=1000, tol=0.0, max_time=7.5, callbacks=[Takes()])
    assert model.fit(X, y).n_iter_ == 7


def test_lbfgs_with_a_validation_keeps_no_time_for_it_twice(problem, takes):
    X, y = problem()
    takes(validation=1.0)
    model = small(solver="lbfgs", max_iter=1000, tol=0.0, max_time=7.5)
    assert model.fit(X, y, X_val=X, y_val=y).n_iter_ == 7


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


def test_it_is_saved_and_pickled(problem, tmp_path, takes):
    takes()
    model = timed(10.0).fit(*problem())
    save_model(model, tmp_path)
    for copy in (load_model(tmp_path), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert copy.max_time == 10.0
        assert copy.history_ == model.history_


def test_a_callback_ends_a_timed_fit_at_any_step(problem, takes):
    takes()

    class Stops(Callback):
        def on_step_end(self, model, done, n_steps):
            return (done, n_steps) == (2, 4)

    assert timed(1000.0, callbacks=[Stops()]).fit(*problem()).t_ == 32


@pytest.mark.parametrize("placement", ["resident", "streamed"])
def test_a_real_fit_ends_in_its_time_on_every_backend(problem, backend, placement, set_clock):
    # That of this process, which stands still while others are at work on the machine.
    set_clock(time.process_time)
    X, y = problem()
    model = MLPRegressor(
        hidden_layer_sizes=(8,),
        max_iter=1,
        learning_rate="cosine",
        n_iter_no_change=float("inf"),
        batch_size=32,
        backend=backend.name,
        placement=placement,
        max_time=60.0,  # Against the clock, steps are compiled one by one.
    )
    data = X.astype(np.float32), y
    held = {"X_val": data[0][:20], "y_val": y[:20]}
    model.fit(*data, **held)  # compiles
    with bounded(1.5):
        model.set_params(max_time=0.5, max_iter=MANY).fit(*data, **held)
    assert 1 < model.n_iter_ < MANY
    assert model.history_[-1].learning_rate < 5e-4
    epochs = [record.epoch for record in model.history_]
    assert all(b == a + 1 for a, b in itertools.pairwise(epochs))


@pytest.mark.parametrize("seconds", [0, -1.0, "60", float("inf")])
def test_a_time_must_be_above_0(problem, seconds):
    with pytest.raises(ValueError, match="'max_time' parameter of MLPClassifier must be a float"):
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
    for done in range(100_000):
        clock.now += 1e-4
        pace.update(done / 100_000)
    assert len(pace._marks) < 50
    assert pace.seconds_left() == pytest.approx(0.0, abs=1e-3)


class TwoSteps(Budget):
    """A time in which two steps fit between two readings of the clock."""

    def next_steps(self, most):
        return min(most, 2)


@pytest.mark.parametrize("name", ["jax", "numpy", "cupy"])
def test_the_steps_until_the_clock_is_read_are_one_call(name):
    pytest.importorskip(name)
    try:
        backend = get_backend(name)
    except BackendError as error:
        pytest.skip(str(error))
    x, y = byte_data()
    plan = plan_epoch(N, BATCH, seed=7, pad=backend.fixed_shapes)
    heard, results = [], []

    def note(done, n_steps):
        heard.append(done)
        return False

    for given, loop in ((None, True), (TwoSteps(1000.0), True), (TwoSteps(1000.0), False)):
        network = Network((FEATURES, 9, CLASSES), dropout=0.3)
        # Another schedule would follow the clock.
        trainer = make_trainer(backend, network=network, schedule=Constant())
        if not loop:
            trainer._loop = None
        data = place(backend, x, y, "float64")
        for _ in range(2):
            options = {"after_step": note, "step_by_step": False, "budget": given}
            record = trainer.run_epoch(data, plan, n_epochs=2, **options)
        results.append((record.loss, *learned(trainer)))
    whole, many = ([6], [2, 4, 6]) if backend.fixed_shapes else ([5, 6], [2, 4, 5, 6])
    assert heard == whole * 2 + many * 2 + [1, 2, 3, 4, 5, 6] * 2
    for one, other, reference in zip(*results, strict=True):
        np.testing.assert_array_equal(other, one)
        np.testing.assert_allclose(other, reference, rtol=1e-10)
