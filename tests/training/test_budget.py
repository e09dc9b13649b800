"""When a fit ends: `max_time`, a schedule that follows the clock, and Ctrl-C. No test sleeps."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import bounded, small

from mlp_xp import MLPRegressor
from mlp_xp._utils.signals import interruptible, interrupts
from mlp_xp.callbacks import Callback
from mlp_xp.estimators.fitting.validation_set import HeldOut
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.optimizers.schedules import Linear, LinearWarmup
from mlp_xp.training import trainer as training
from mlp_xp.training.loop import fit_loop
from mlp_xp.training.loop import time_budget as budget
from mlp_xp.training.loop.time_budget import Budget, Pace

MANY = 10**6
WARM_UP = {"batch_size": 60, "learning_rate": LinearWarmup(0.5, then=Linear())}


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0, perf_counter=lambda: clock.now)
    for module in (budget, fit_loop, training):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("mlp_xp.estimators.base.time", clock)
    return clock


@pytest.fixture
def takes(clock, monkeypatch):
    """Let steps, validations and what callbacks do take time by the fake clock."""

    def set_times(*, first=1.0, validation=0.0, prepare=0.0):
        seen = SimpleNamespace(steps=0, validations=0, start=clock.now)
        run_epoch, measure = training.Trainer.run_epoch, HeldOut.measure

        def timed_epoch(trainer, *args, **settings):
            inner, loop = trainer._step, trainer._loop

            def timed_step(*arguments):
                clock.now += 1.0 if seen.steps else first
                seen.steps += 1
                return inner(*arguments)

            trainer._step, trainer._loop = timed_step, None  # Run step by step, to count the steps.
            try:
                return run_epoch(trainer, *args, **settings)
            finally:
                trainer._step, trainer._loop = inner, loop

        def timed_measure(validation_):
            clock.now += validation
            seen.validations += 1
            return measure(validation_)

        def prepares(model):
            clock.now += prepare

        monkeypatch.setattr(training.Trainer, "run_epoch", timed_epoch)
        monkeypatch.setattr(HeldOut, "measure", timed_measure)
        seen.callbacks = [SimpleNamespace(on_fit_begin=prepares)] if prepare else None
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
        # The first step does not predict the others, and its time counts.
        pytest.param(10.5, {"first": 6.0}, 5, 0, 10.0, id="a first step that compiles"),
        pytest.param(10.0, {"prepare": 4.0}, 6, 0, 10.0, id="what comes before the first step"),
    ],
)
def test_a_fit_does_as_many_steps_and_validations_as_time_allows(
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


def test_time_is_left_for_calibration_and_for_the_score_of_a_search(
    problem, takes, clock, monkeypatch
):
    X, y = problem()
    conformal, settings = HeldOut.conformal, {"prediction_sets": "held_out"}

    def timed_conformal(*given):
        clock.now += 3.0
        return conformal(*given)

    monkeypatch.setattr(HeldOut, "conformal", timed_conformal)
    times = takes(validation=3.0)
    timed(22.0, **settings).fit(X, y, X_val=X, y_val=y)
    assert times.validations > 1
    assert clock.now - times.start <= 22.0
    before = clock.now
    model = timed(22.0, **settings)
    [result] = fit_many([FitTask(model, X, y, fit_params={"X_val": X, "y_val": y})])
    assert result.error is None
    assert clock.now - before <= 19.0


@pytest.mark.parametrize(
    ("seconds", "costs", "settings", "rates"),
    [
        # The last step of an epoch begins at 3 and at 7 of 8 seconds.
        pytest.param(8.0, {}, {}, [1 - 3 / 8, 1 - 7 / 8], id="linear"),
        # Trial validation, 10; then steps from 10 to 14 of the 18 before the last validation.
        pytest.param(28.0, {"validation": 10.0}, {}, [1 - 13 / 18], id="validation at the end"),
        # A warm-up is a share of the time.
        pytest.param(8.0, {}, WARM_UP, [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25], id="warm-up"),
        pytest.param(1000.0, {}, {"max_iter": 2}, [1 - 3 / 7, 0.0], id="fewer epochs"),
    ],
)
def test_learning_rate_schedule_follows_elapsed_time(
    problem, takes, seconds, costs, settings, rates
):
    X, y = problem()
    takes(**costs)
    held = {"X_val": X, "y_val": y} if costs else {}
    model = timed(seconds, learning_rate_init=1.0, **settings).fit(X, y, **held)
    assert [r.learning_rate for r in model.history_] == pytest.approx(rates, abs=1e-5)


def test_callbacks_can_set_the_length_and_stop_after_any_step(problem, takes):
    takes()
    for max_time, settings, stop, n_samples in (
        (1000.0, {"max_time": 10.0}, None, 2 * 60 + 32),
        (None, {"max_iter": 3}, None, 3 * 60),
        (1000.0, {}, (2, 4), 32),
    ):
        own = Callback()
        own.on_fit_begin = lambda model, settings=settings: model.set_params(**settings)
        own.on_step_end = lambda model, *at, stop=stop: at == stop
        assert timed(max_time, callbacks=[own]).fit(*problem()).t_ == n_samples, (settings, stop)


def test_fast_steps_run_in_groups_that_shrink_toward_the_end(clock):
    ours, groups = Budget(1.0), []
    while few := ours.next_steps(MANY):
        groups.append(few)
        clock.now += few * 0.0009765625
        ours.count(few)
    assert sum(groups) == 1024
    assert groups[:4] == [1, 1, 16, 16]
    assert groups[-9:] == [16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_a_slow_outlier_step_is_ignored(clock):
    ours = Budget(100.0)
    for seconds in (1.0, 1.0, 1.0, 1.0, 30.0):
        clock.now += seconds
        ours.count(1)
    ours.next_steps(1)
    assert ours.fraction(ahead=10) == pytest.approx(0.44)


def test_lbfgs_stops_between_iterations_when_time_is_up(problem, takes, clock):
    def second(model, record):
        clock.now += 1.0

    X, y = problem()
    takes(validation=1.0)
    settings = {"solver": "lbfgs", "max_iter": 1000, "tol": 0.0, "max_time": 7.5}
    own = SimpleNamespace(on_epoch_end=second)
    assert small(**settings, callbacks=[own]).fit(X, y).n_iter_ == 7
    # The time of a validation is not kept twice.
    assert small(**settings).fit(X, y, X_val=X, y_val=y).n_iter_ == 7


def test_warm_start_gets_the_full_time_budget_and_partial_fit_has_none(problem, takes):
    X, y = problem()
    times = takes()
    model = timed(8.0, warm_start=True, learning_rate_init=1.0).fit(X, y).fit(X, y)
    assert times.steps == 16
    rates = [record.learning_rate for record in model.history_]
    assert rates[:2] == pytest.approx(rates[2:], abs=1e-5)
    timed(2.0).partial_fit(X, y, classes=[0, 1, 2])
    assert times.steps == 16 + 4


@pytest.mark.matrix
@pytest.mark.parametrize("placement", ["resident", "streamed"])
def test_a_fit_ends_within_max_time_on_every_backend(problem, on, placement, clock):
    # The clock of this process, which stands still while others are at work on the machine.
    clock.perf_counter = time.process_time
    X, y = problem()
    settings = on | {"max_iter": 1, "learning_rate": "cosine", "placement": placement}
    # Against the clock, steps are compiled one by one.
    model = small(MLPRegressor, **settings, max_time=60.0)
    X = X.astype(np.float32)
    held = {"X_val": X[:20], "y_val": y[:20]}
    model.fit(X, y, **held)  # compiles
    with bounded(0.5):
        model.set_params(max_time=0.5, max_iter=MANY).fit(X, y, **held)
    assert 1 <= model.n_iter_ < MANY
    assert model.history_[-1].learning_rate < 5e-4


def test_time_estimate_ignores_compilation_and_forgets_slow_steps(clock):
    pace = Pace()
    assert pace.seconds_left() == float("inf")
    clock.now += 18.0  # The first step compiles.
    pace.update(0.01)
    assert pace.seconds_left() == pytest.approx(18.0 * 99)  # The only measurement so far.
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


def test_first_ctrl_c_sets_a_flag_and_the_second_raises():
    with interrupts() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_before_the_first_step_restores_the_signal_handler(monkeypatch):
    monkeypatch.setattr("mlp_xp.training.loop.multi_epoch.MultiEpoch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as _error:  # Its traceback keeps what is not closed.
        MLPRegressor().fit([[0.0], [1.0]], [0, 1])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_interrupts_only_waits_of_the_main_thread():
    started, over = threading.Event(), threading.Event()

    def wait():
        with interruptible():
            started.set()
            over.wait()

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(wait)
        started.wait()
        with interrupts() as pressed:
            signal.raise_signal(signal.SIGINT)
            assert pressed()
        over.set()
        waits.result()
    with interrupts(), interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_signal_handlers_of_other_threads_and_users_are_left_alone():
    def work():
        with interrupts() as pressed:
            return signal.getsignal(signal.SIGINT), pressed()

    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == (before, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # `ctrl_c` takes it back.
    with interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
