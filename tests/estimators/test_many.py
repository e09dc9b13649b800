"""Many models fitted at once: each equals the model that its own `fit` gives."""

import os
import signal
import threading
import traceback
from itertools import chain
from unittest.mock import Mock

import numpy as np
import pytest
import sklearn
from helpers import problem, small
from sklearn.base import clone
from trainers import assert_close

from mlp_xp import MLPClassifier
from mlp_xp._utils.threads import usable_threads
from mlp_xp.augmentation import Mixup
from mlp_xp.callbacks import Callback
from mlp_xp.estimators import many
from mlp_xp.estimators.checks.processes import text_of
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.nn.hidden import Branch
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.optimizers import SGD, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop
from mlp_xp.optimizers.schedules import OneCycle

X, y = problem(62)  # Folds of 41 and 42 samples.
WEIGHTS = np.linspace(0.5, 2.0, len(y))
# A fit with this many steps waits for machine code, alone or with others.
LONG = 20_000


def tasks_of(models, weights=None, X=X, y=y):
    """Return tasks of three folds, in turn; with weights, each of five tasks has others."""
    rows = [np.flatnonzero(np.arange(len(y)) % 3 != i) for i in range(3)]
    rolled = [None if weights is None else np.roll(weights, i) for i in range(5)]
    return [
        FitTask(clone(model), X, y, rolled[i % 5], rows[i % 3]) for i, model in enumerate(models)
    ]


def alone(task):
    weights = None if task.sample_weight is None else task.sample_weight[task.rows]
    return clone(task.model).fit(task.X[task.rows], task.y[task.rows], weights)


def own_error(task):
    with pytest.raises(ValueError, match="non-finite") as caught:
        alone(task)
    return str(caught.value)


def weights_of(model):
    return [*model.coefs_, *model.intercepts_]


def check(tasks, *, same_bits=True, **settings):
    """Check that all tasks are fitted as by their own fits; return the number of programs."""
    expected, first = [alone(task) for task in tasks], []
    settings = {"n_jobs": 2, "on_epoch": lambda _, record: first.append(record)} | settings
    results = list(fit_many(tasks, **settings))
    assert sorted(result.number for result in results) == list(range(len(tasks)))
    assert [result.error for result in results] == [None] * len(tasks)
    rounding = 0 if same_bits else 1e-9
    for task, own in zip(tasks, expected, strict=True):
        model = task.model
        assert model.n_iter_ == own.n_iter_
        np.testing.assert_allclose(model.loss_curve_, own.loss_curve_, rtol=rounding)
        assert_close(weights_of(model), weights_of(own), rtol=1000 * rounding, atol=rounding)
        if not same_bits and model.solver != "lbfgs":
            for each in (model, own):
                each.partial_fit(task.X, task.y)
            np.testing.assert_allclose(model.loss_, own.loss_, rtol=1e-7)
    # The models of a program take their epochs together.
    return len({record.seconds for record in first if record.epoch == 1})


def test_many_tiny_models_match_separate_fits_without_machine_code():
    # Together, this many models would be worth the compilation of machine code.
    models = [small(random_state=i, max_iter=200, tol=1.0, n_iter_no_change=1) for i in range(40)]
    threads = set()
    note = lambda *_: threads.add(threading.current_thread())  # noqa: E731
    check(tasks_of(models), n_jobs=None, on_epoch=note)
    assert threads == {threading.main_thread()}


def test_distributed_networks_are_fitted_one_after_another(monkeypatch):
    workers = Mock(return_value=iter(()))
    monkeypatch.setattr(many, "work_in_threads", workers)
    models = [MLPClassifier((2000,), distributed=distributed) for distributed in ("mpi", None)]
    for model in models:
        list(fit_many(tasks_of([model] * 2), n_jobs=2))
    assert [call.kwargs["n_workers"] for call in workers.call_args_list] == [1, usable_threads()]


def test_long_arrays_in_settings_are_distinguished():
    assert text_of(np.eye(1, 2000, 900)) != text_of(np.eye(1, 2000, 901))


def solvers(*rules, **settings):
    return [{"solver": rule, **settings} for rule in rules]


TOGETHER = {  # Settings in which the models of one program may differ.
    "adam": [
        {"random_state": 1},
        {"alpha": 0.1, "learning_rate_init": 0.01, "max_iter": 7},
        {"alpha": 0.0, "learning_rate": "cosine"},
        {"class_weight": "balanced", "early_stopping": True},
        {"tol": 1.0, "n_iter_no_change": 1, "early_stopping": True},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-4},
    ],
    "sgd": [
        {"solver": "sgd", "momentum": momentum, "dropout": dropout, "label_smoothing": smoothing}
        for momentum, dropout, smoothing in [(0.3, 0.2, 0.1), (0.9, 0.2, 0.3), (0.9, 0.6, 0.1)]
    ],
    "adamw": [
        *solvers(AdamW(weight_decay=0.5), AdamW(weight_decay=0.1, beta_1=0.5)),
        *solvers(AdamW(weight_decay=0.1), learning_rate=OneCycle()),
    ],
}
APART = [  # Pairs that need separate programs.
    [
        {"solver": "sgd", "learning_rate": rate, "tol": 1.0, "n_iter_no_change": 1}
        for rate in ("adaptive", "constant")
    ],
    [{"solver": "sgd", "momentum": 0.0, "alpha": alpha} for alpha in (0.1, 1.0)],
    solvers(AdamW(weight_decay=0.5), AdamW(beta_1=0.5)),
    solvers(Lion(beta_1=0.5), Lion(beta_2=0.5)),
    solvers(Lion(weight_decay=0.2), Lion(weight_decay=0.3)),
    solvers(RMSprop(rho=0.5), RMSprop(rho=0.7)),
    solvers(RMSprop(rho=0.5, momentum=0.3), RMSprop(rho=0.5, momentum=0.6)),
    solvers(BetaLasso(momentum=0.3), BetaLasso(momentum=0.6)),
    solvers(
        *(Muon(momentum=0.8, weight_decay=0.1), Muon(beta_1=0.8, weight_decay=0.3)),
        hidden_layer_sizes=(8, 8),
    ),
    solvers(
        ByKind(SGD(0.3), AdamW(beta_1=0.8), head_rate=0.8),
        ByKind(SGD(0.7), AdamW(beta_1=0.9), head_rate=0.9),
    ),
    [{"dropout": 0.3, "input_dropout": 0.1}, {"dropout": (0.6,), "input_dropout": 0.2}],
    [{"hidden_layer_sizes": (4, Branch((8, 4))), "dropout": rate} for rate in ((0.1, 0.3), 0.2)],
    [
        {"dropout": rate, "dropout_schedule": "linear", "weight_decay_schedule": "flat_cos"}
        | {"solver": AdamW(weight_decay=rate), "parametric_activation": True}
        | {"numeric_embedding": "ple", "learn_input_scale": True, "parametrization": "ntk"}
        for rate in (0.2, 0.4)
    ],
    [{"batch_size": 200, "alpha": alpha} for alpha in (0.1, 1.0)],
    [{"input_scaling": "standardize", "beta_1": beta} for beta in (0.5, 0.9)],
    [{"input_scaling": "zca", "loss": SoftmaxCrossEntropy(weight)} for weight in (0.1, 0.2)],
    [{"ema_decay": decay, "max_grad_norm": 0.1} for decay in (0.8, 0.9)],
    [{"normalization": "batch", "solver": "sgd", "momentum": momentum} for momentum in (0.8, 0.9)],
    [
        {"hidden_layer_sizes": (4, 4), "residual": True, "early_stopping": stops}
        for stops in (True, False)
    ],
]
ALONE = [  # Models that cannot share a program.
    *({"solver": "lbfgs"}, {"max_time": 60.0}, {"augmentation": [Mixup(0.2)]}),
    *({"placement": "streamed"}, {"warm_start": True}, {"callbacks": [Callback()]}),
]


@pytest.mark.parametrize("max_iter", [5, LONG], ids=["short", "machine code"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_trained_in_threads_match_separate_fits_bitwise(monkeypatch, max_iter):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # Models fitted together have one thread each.
    ends = {"max_iter": max_iter, "n_iter_no_change": 3, "tol": 0.01} if max_iter == LONG else {}
    plain = {"solver": "sgd", "momentum": 0.5, "early_stopping": True}
    models = [small(**settings | ends) for settings in (*chain(*TOGETHER.values()), plain)]
    check(tasks_of(models, WEIGHTS))


def test_models_that_share_a_compiled_step_match_separate_fits(on):
    for name, together in TOGETHER.items():
        models = [small(**settings, **on) for settings in together]
        # On NumPy each model has its own program; up to two threads share JAX's programs.
        n_programs = {"numpy": len(models), "jax": min(2, usable_threads())}
        expected = n_programs.get(on["backend"], 1)
        assert check(tasks_of(models, WEIGHTS), same_bits=False) == expected, name


@pytest.mark.libraries("numpy", "torch", "array_api_strict")
@pytest.mark.filterwarnings("ignore:Got `batch_size`:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("part", range(5))
def test_models_with_different_compiled_steps_match_separate_fits(on, part):
    pairs = APART[part::5]
    alone = [settings | {"alpha": alpha} for settings in ALONE[part::5] for alpha in (0.1, 1.0)]
    models = [small(**settings, **on) for settings in [*chain(*pairs), *alone]]
    n_programs = len(models) if on["backend"] == "numpy" else len(pairs) + len(alone)
    assert check(tasks_of(models), same_bits=False) == n_programs


class Halved(MLPClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X[::2], y[::2])


@pytest.mark.libraries("numpy", "torch")
def test_a_subclass_that_overrides_fit_is_fitted_separately(on):
    tasks = tasks_of([small(Halved, **on) for _ in range(2)])
    list(fit_many(tasks))
    for task in tasks:
        own = small(**on).fit(X[task.rows][::2], y[task.rows][::2])
        assert_close(weights_of(task.model), weights_of(own), rtol=1e-9, atol=1e-12)


@pytest.mark.libraries("numpy", "torch")
def test_failed_fit_does_not_affect_other_fits(on):
    changes = ({}, {"learning_rate_init": 1e200}, {"hidden_layer_sizes": 0}, {})
    tasks = tasks_of([small(solver="sgd", **on, **change) for change in changes])
    errors = {result.number: result.error for result in fit_many(tasks, n_jobs=2)}
    assert "output layer" in str(errors[1]) == own_error(tasks[1])
    # A search prints all of it.
    assert "".join(traceback.format_exception(errors[1])).count("Traceback") == 1
    assert "hidden_layer_sizes" in str(errors[2])
    for number in (0, 3):
        assert errors[number] is None
        own = alone(tasks[number])
        assert tasks[number].model.n_iter_ == own.n_iter_ == 5
        assert_close(weights_of(tasks[number].model), weights_of(own), rtol=1e-9, atol=1e-12)


@pytest.mark.libraries("torch")
def test_log_explains_why_a_fit_is_not_stacked(backend_spec, caplog):
    changes = ({}, {"callbacks": [Callback()]}, {"max_time": 60.0}, {"augmentation": [Mixup()]})
    tasks = tasks_of([small(backend="torch", **change) for change in changes])
    tasks.append(tasks[0]._replace(model=Halved(**tasks[0].model.get_params())))
    with caplog.at_level("INFO", "mlp_xp.estimators.many"):
        assert [result.error for result in fit_many(tasks)] == [None] * 5
    assert sorted(record.getMessage() for record in caplog.records) == [
        "Fit 1 is not part of a stack: it has callbacks.",
        "Fit 2 is not part of a stack: max_time is set.",
        "Fit 3 is not part of a stack: augmentation is set.",
        "Fit 4 is not part of a stack: its class overrides fit.",
    ]


@pytest.mark.libraries("numpy", "torch")
def test_random_state_restarts_when_a_diverging_fit_is_repeated(on):
    settings = {"solver": "sgd", "learning_rate_init": 1e3, "max_iter": 60, **on}
    states = map(np.random.RandomState, range(3))
    tasks = tasks_of([small(random_state=state, **settings) for state in states])
    errors = [own_error(task) for task in tasks]
    assert len(set(errors)) == 3  # The messages name different steps.
    found = {result.number: str(result.error) for result in fit_many(tasks)}
    assert [found[number] for number in range(3)] == errors


def test_max_iter_can_be_a_small_numpy_integer():
    models = [small(max_iter=np.uint8(200)), small(max_iter=np.int16(2)), small(max_iter="2")]
    found = {result.number: result.error for result in fit_many(tasks_of(models))}
    assert (found[0], found[1]) == (None, None)
    assert "'max_iter' parameter" in str(found[2])


@pytest.mark.libraries("torch", "array_api_strict")
def test_working_memory_limits_the_number_of_stacked_models(on):
    models = [small(max_iter=2, alpha=alpha, **on) for alpha in range(6)]
    for megabytes, n_programs in ((0.1, 2), (1024, 1)):
        with sklearn.config_context(working_memory=megabytes):
            assert check(tasks_of(models), same_bits=False, n_jobs=None) == n_programs


def test_targets_shared_by_all_models_are_converted_once(monkeypatch):
    monkeypatch.setattr(many, "to_numpy", looked := Mock(wraps=many.to_numpy))
    tasks = tasks_of([small(max_iter=1, random_state=seed) for seed in range(6)])
    assert [result.error for result in fit_many(tasks)] == [None] * len(tasks)
    assert looked.call_count == 1


def test_each_models_epochs_are_reported():
    seen, tasks = [], tasks_of([small(max_iter=3), small(max_iter=2)])
    list(fit_many(tasks, on_epoch=lambda number, record: seen.append((number, record.epoch))))
    assert sorted(seen) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def test_closing_the_iterator_ends_the_remaining_fits():
    endless = small(max_iter=10**6)
    fits = fit_many(tasks_of([small(max_iter=1), endless, endless]), n_jobs=2)
    assert next(fits).number == 0
    fits.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("mlp_xp-model")]


@pytest.mark.libraries("torch")
def test_ctrl_c_also_ends_fits_with_different_compiled_steps(on):
    endless, epochs = {"max_iter": 10**6, **on}, []
    tasks = tasks_of([small(**endless), small(max_time=5.0, **endless)])

    def press_once(*epoch):
        epochs.append(epoch)
        if len(epochs) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    assert list(fit_many(tasks, on_epoch=press_once)) == []
    assert {number for number, _ in epochs} == {0}


def test_scikit_learn_config_applies_in_every_thread():
    with sklearn.config_context(skip_parameter_validation=True):
        [result] = fit_many(tasks_of([small(alpha=-1e-9)]))
    assert result.error is None
    [result] = fit_many(tasks_of([small(alpha=-1e-9)]))
    assert "alpha" in str(result.error)
