"""Many models fitted at once: each is the one that its own `fit` gives."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import sklearn
from helpers import problem, small
from sklearn.base import clone

from mlp_xp._utils.tree import leaves
from mlp_xp.estimators.many import FitTask, fit_many

# A fit that may take so many steps waits for machine code, one by one as in company.
LONG = 20_000


def folds(n, k=3):
    return [np.flatnonzero(np.arange(n) % k != i) for i in range(k)]


def tasks_of(models, X, y, weights=None):
    rows = folds(len(y))
    return [
        FitTask(clone(model), X, y, weights, rows[i % len(rows)]) for i, model in enumerate(models)
    ]


def alone(task):
    """Return the model that the task's own fit gives."""
    weights = None if task.sample_weight is None else task.sample_weight[task.rows]
    return clone(task.model).fit(task.X[task.rows], task.y[task.rows], weights)


def weights_of(model):
    return [np.asarray(leaf) for leaf in leaves((tuple(model.coefs_), tuple(model.intercepts_)))]


def check_bits(tasks, **settings):
    expected = [alone(task) for task in tasks]
    results = list(fit_many(tasks, **settings))
    assert sorted(result.number for result in results) == list(range(len(tasks)))
    assert [result.error for result in results] == [None] * len(tasks)
    for task, own in zip(tasks, expected, strict=True):
        model = task.model
        assert model.n_iter_ == own.n_iter_
        assert model.loss_curve_ == own.loss_curve_
        for mine, theirs in zip(weights_of(model), weights_of(own), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("max_iter", [4, LONG], ids=["short", "machine code"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_in_threads_have_the_bits_of_their_own_fits(monkeypatch, max_iter):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # As each model in company.
    X, y = problem()
    settings = {"max_iter": max_iter, "n_iter_no_change": 3, "tol": 0.01}
    models = [
        small(random_state=1, **settings),
        small(random_state=2, alpha=0.1, learning_rate_init=0.01, **settings),
        small(solver="sgd", momentum=0.5, early_stopping=True, **settings),
        small(dropout=0.3, beta_1=0.8, **settings),
    ]
    check_bits(tasks_of(models, X, y, np.linspace(0.5, 2.0, len(y))), n_jobs=2)


def test_a_fit_that_fails_costs_the_others_nothing():
    X, y = problem()
    models = [
        small(),
        small(solver="sgd", learning_rate_init=1e200),
        small(hidden_layer_sizes=0),
        small(),
    ]
    tasks = tasks_of(models, X, y)
    results = {result.number: result for result in fit_many(tasks, n_jobs=2)}
    assert "non-finite" in str(results[1].error)
    assert "hidden_layer_sizes" in str(results[2].error)
    assert results[0].error is None is results[3].error
    assert tasks[0].model.n_iter_ == tasks[3].model.n_iter_ == 5


def test_epochs_are_reported():
    X, y = problem()
    seen = []
    tasks = tasks_of([small(max_iter=3), small(max_iter=2)], X, y)
    list(fit_many(tasks, on_epoch=lambda number, record: seen.append((number, record.epoch))))
    assert sorted(seen) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def test_closing_ends_the_fits_that_are_left():
    X, y = problem()
    endless = small(max_iter=10**6)
    fits = fit_many(tasks_of([small(max_iter=1), endless, endless], X, y), n_jobs=2)
    assert next(fits).number == 0
    fits.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("mlp_xp-model")]


def test_ctrl_c_keeps_what_is_finished():
    X, y = problem()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    tasks = tasks_of([small(max_iter=1), small(max_iter=10**6)], X, y)
    timer.start()
    assert [result.number for result in fit_many(tasks, n_jobs=2)] == [0]


def test_settings_of_scikit_learn_hold_in_every_thread():
    X, y = problem()
    with sklearn.config_context(skip_parameter_validation=True):
        [result] = fit_many(tasks_of([small(alpha=-1e-9)], X, y))
    assert result.error is None
    [result] = fit_many(tasks_of([small(alpha=-1e-9)], X, y))
    assert "alpha" in str(result.error)
