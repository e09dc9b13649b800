"""Settings of the optimizer: rules, schedules, clipping, averages and warm starts."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers import problem, small
from sklearn.base import clone

from mlp_xp import MLPClassifier
from mlp_xp.callbacks import Callback
from mlp_xp.estimators.config import resolve_config
from mlp_xp.estimators.targets import ClassTargets
from mlp_xp.nn.losses import SoftmaxFocal
from mlp_xp.optimizers import SGD, Adam, AdamW, ByKind, Muon
from mlp_xp.optimizers.schedules import InvScaling, OneCycle

X, y = problem()
TARGETS = ClassTargets(np.arange(3), "softmax")


@pytest.mark.parametrize("solver", ["rmsprop", "lion", "muon", "adamw", "beta_lasso"])
def test_every_solver_by_name_learns(solver):
    X, y = problem(200)
    rate = {"lion": 1e-3}.get(solver, 1e-2)
    settings = {"hidden_layer_sizes": (8, 8), "max_iter": 40, "learning_rate_init": rate}
    assert small(solver=solver, **settings).fit(X, y).score(X, y) > 0.9


def test_solver_and_schedule_objects():
    model = small(solver=AdamW(weight_decay=0.5), learning_rate=OneCycle())
    model.fit(X, y)
    rates = [record.learning_rate for record in model.history_]
    assert max(rates) <= model.learning_rate_init
    assert rates[-1] < rates[1]
    assert clone(model).get_params()["solver"] == AdamW(weight_decay=0.5)


def test_each_kind_of_parameter_has_its_own_rule():
    rule = ByKind(Muon(), AdamW(), SGD(momentum=0.0), vector_rate=0.0, head_rate=5.0)
    start, model = (
        small(solver=rule, learning_rate_init=rate, max_iter=20).fit(X, y)
        for rate in (1e-300, 0.01)
    )
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]
    for weights, before in zip(model.coefs_, start.coefs_, strict=True):
        assert np.abs(weights - before).max() > 0.01
    for bias, before in zip(model.intercepts_, start.intercepts_, strict=True):
        np.testing.assert_array_equal(bias, before)


def rates(**settings):
    return [r.learning_rate for r in small(**settings).fit(X, y).history_]


def test_a_schedule_counts_for_adam_too():
    for schedule in ("cosine", InvScaling()):
        found = rates(learning_rate=schedule)
        assert found == sorted(found, reverse=True)
        assert found[-1] < found[0]
    for schedule in ("invscaling", "adaptive"):  # Scikit-learn has them for SGD alone.
        settings = {"learning_rate": schedule, "tol": 10.0, "n_iter_no_change": 2}
        for solver in ("adam", "lion", AdamW()):
            assert len(set(rates(solver=solver, **settings))) == 1, (schedule, solver)
        assert len(set(rates(solver=SGD(), **settings))) > 1, schedule


def test_gradients_are_clipped():
    settings = {"solver": "sgd", "momentum": 0.0, "batch_size": 60, "alpha": 0.0}
    start = small(**settings | {"max_iter": 1, "learning_rate_init": 1e-300}).fit(X, y)
    model = small(**settings | {"max_iter": 1}, max_grad_norm=1e-3).fit(X, y)
    pairs = zip(model.coefs_ + model.intercepts_, start.coefs_ + start.intercepts_, strict=True)
    moved = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))
    assert moved == pytest.approx(1e-3 * model.learning_rate_init, rel=1e-6)


def test_ema_predicts_with_an_average_of_the_weights():
    settings = {"max_iter": 3, "batch_size": 60}
    weights = []

    class Watch(Callback):
        def on_epoch_end(self, model, record):
            weights.append(model.coefs_[0].copy())

    small(**settings, callbacks=[Watch()]).fit(X, y)
    start = small(**settings | {"learning_rate_init": 1e-300}).fit(X, y).coefs_[0]
    average = start
    for step, W in enumerate(weights):
        keep = min(0.5, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * W
    model = small(**settings, ema_decay=0.5).fit(X, y)
    assert model.loss_curve_ == small(**settings).fit(X, y).loss_curve_
    np.testing.assert_allclose(model.coefs_[0], average, rtol=1e-10)


def test_lbfgs_rejects_losses_that_change_from_call_to_call():
    settings = {"dropout": 0.1, "input_dropout": 0.1, "normalization": "batch"}
    settings |= {"ema_decay": 0.9, "max_grad_norm": 1.0}
    for name, value in settings.items():
        with pytest.raises(ValueError, match=rf"{name} is .*'lbfgs' needs a loss"):
            MLPClassifier(solver="lbfgs", **{name: value}).fit(X, y)


def test_a_warm_start_keeps_the_optimizer_state():
    once = small(**{"max_iter": 6}).fit(X, y)
    twice = small(**{"max_iter": 3}, warm_start=True).fit(X, y)
    twice = pickle.loads(pickle.dumps(twice)).fit(X, y)  # noqa: S301
    np.testing.assert_allclose(twice.loss_curve_, once.loss_curve_, rtol=1e-12)
    assert (twice.n_iter_, once.n_iter_) == (3, 6)


def test_settings_changed_between_calls_count():
    model = small().partial_fit(X, y, classes=[0, 1, 2])
    before = [W.copy() for W in model.coefs_]
    model.set_params(learning_rate_init=1e-12).partial_fit(X, y)
    np.testing.assert_allclose(model.coefs_[0], before[0], atol=1e-9)
    model.set_params(solver="sgd", alpha=10.0, learning_rate_init=0.1).partial_fit(X, y)
    assert np.abs(model.coefs_[0]).sum() < 0.7 * np.abs(before[0]).sum()
    with pytest.warns(UserWarning, match=r"now \(4,\).*there, of \[8\].*warm_start=False"):
        model.set_params(hidden_layer_sizes=(4,)).partial_fit(X, y)
    assert [W.shape for W in model.coefs_] == [(6, 8), (8, 3)]


def test_another_rule_starts_anew():
    """Neither the optimizer state nor the step count of one rule applies to another."""
    settings = {"max_iter": 20, "batch_size": 60, "alpha": 0.0}
    for first, then in (("rmsprop", "lion"), ("sgd", "adam")):
        model = small(**settings, solver=first, warm_start=True).fit(X, y)
        fresh = small(**settings, solver=then, warm_start=True)
        fresh.classes_ = model.classes_
        for name in ("coefs_", "intercepts_"):
            setattr(fresh, name, [array.copy() for array in getattr(model, name)])
        for each in (model, fresh):
            each.set_params(solver=then, max_iter=1).fit(X, y)
        np.testing.assert_allclose(model.coefs_[0], fresh.coefs_[0], atol=1e-12)


WITH_A_NUMBER = {
    "beta_1": lambda number: {"beta_1": number},
    "power_t": lambda number: {"power_t": number, "solver": "sgd", "learning_rate": "invscaling"},
    "dropout": lambda number: {"dropout": [number], "input_dropout": number},
    "loss": lambda number: {"loss": SoftmaxFocal(gamma=number)},
    "Adam": lambda number: {"solver": Adam(beta_1=number, beta_2=number)},
    "ByKind": lambda number: {"solver": ByKind(vector=AdamW(weight_decay=number))},
    "schedule": lambda number: {"learning_rate": OneCycle(number)},
}


@pytest.mark.parametrize("name", WITH_A_NUMBER)
def test_numbers_of_numpy_are_those_of_python(name):
    """They are equal to them, so one would get what was compiled or computed for the other."""
    numbers = np.float32(0.3), float(np.float32(0.3))
    models = [small(precision="float64", **WITH_A_NUMBER[name](number)) for number in numbers]
    rules = [resolve_config(model.get_params(), 6, TARGETS).rules for model in models]
    assert repr(rules[0]) == repr(rules[1])
    assert "float32" not in repr(rules)
    np.testing.assert_array_equal(*(clone(model).fit(X, y).coefs_[0] for model in models))


@dataclass(frozen=True)
class Halved(OneCycle):
    """A schedule with a field that its constructor does not take."""

    extra: float = field(default=np.float64(0.5), init=False)


def test_fields_that_no_constructor_takes_are_kept():
    schedule = Halved(np.float32(0.3))
    params = small(learning_rate=schedule).fit(X, y).get_params()
    found = resolve_config(params, 6, TARGETS)
    assert type(found.rules.schedule.rise) is float
    assert found.rules.schedule == schedule


@pytest.mark.parametrize(
    "settings",
    [
        {"max_iter": np.uint8(3)},
        {"max_iter": np.int16(30), "learning_rate": "cosine", "n_iter_no_change": np.inf},
        {"max_iter": np.int8(100), "n_iter_no_change": np.int8(2), "tol": np.float16(1.0)},
        {"max_iter": np.int8(100), "max_time": np.float16(100.0)},
        {"batch_size": np.int8(100)},
        {"solver": "lbfgs", "max_iter": np.int8(99), "max_fun": np.int8(99), "tol": 0.1},
        {"max_iter": np.uint8(3), "early_stopping": np.True_, "verbose": np.int8(0)},
    ],
)
def test_a_fit_takes_small_integers_of_numpy(settings):
    X, y = problem(300)
    plain = {name: getattr(value, "item", lambda v=value: v)() for name, value in settings.items()}
    model, expected = small(**settings).fit(X, y), small(**plain).fit(X, y)
    assert model.n_iter_ == expected.n_iter_
    np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])
