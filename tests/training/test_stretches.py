"""Epochs of a small fit, many in one call: the same bits as one by one, with less around them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.backends._numpy.compiled_step import CompiledLoop
from mlp_xp.callbacks import Callback
from mlp_xp.optimizers.schedules import Cosine
from mlp_xp.training.finite import NonFiniteError
from mlp_xp.training.stretches import Stretches

X, Y = load_iris(return_X_y=True)
WEIGHTS = np.random.default_rng(0).random(len(X))
LONG = 100_000  # Epochs of a training that would wait for machine code.
FIELDS = "loss_curve_", "validation_scores_", "validation_loss_curve_", "best_validation_score_"


class Watching(Callback):
    """Has every epoch run by itself."""

    def on_epoch_end(self, model, record):
        return None


@pytest.fixture
def lengths(monkeypatch):
    """Return a list that gets the epochs of each call."""
    run, found = Stretches.run, []

    def counting(self, *arguments):
        trained = list(run(self, *arguments))
        found.append(len(trained))
        return trained

    monkeypatch.setattr(Stretches, "run", counting)
    return found


def results(model, y=Y, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y, **given)
    curves = {name: getattr(model, name, None) for name in FIELDS}
    rates = [record.learning_rate for record in model.history_]
    return [model.n_iter_, model.t_, curves, rates], [*model.coefs_, *model.intercepts_]


BATCHES = {"batch_size": 32, "max_iter": 25}  # The last has 22 rows.
CASES = {
    "iris": {},
    "held out": {"early_stopping": True},
    "machine code": {"max_iter": LONG, "tol": 1e-3, "early_stopping": True},
    "float32, machine code": {"precision": "float32", "max_iter": LONG, "tol": 1e-2},
    "by a metric": {"early_stopping": True, "scoring": "neg_log_loss"},
    "by the loss": {"early_stopping": True, "scoring": "loss", "n_iter_no_change": 3},
    "dropout": {"dropout": 0.3, "max_iter": 30, "early_stopping": True},
    "batch normalization": {"normalization": "batch", "early_stopping": True},
    "average": {"ema_decay": 0.9, "early_stopping": True, "learning_rate_init": 0.01},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 1e-2, "max_iter": 80},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "max_iter": 25},
    "schedule": {"learning_rate": Cosine(), "n_iter_no_change": np.inf, "max_iter": 50},
    "batches": BATCHES,
    "batches, machine code": BATCHES | {"max_iter": LONG, "tol": 1e-2},
    "batches of one size, float32, machine code": BATCHES
    | {"batch_size": 50, "precision": "float32", "max_iter": LONG, "tol": 1e-1},
    "batches, weighted": BATCHES,
    "batches, weighted, machine code": BATCHES | {"max_iter": LONG, "tol": 1e-1},
    "batches, dropout": BATCHES | {"dropout": 0.3, "ema_decay": 0.9},
    "batches, batch normalization": BATCHES | {"normalization": "batch", "shuffle": False},
    "batches, adaptive": BATCHES | {"solver": "sgd", "learning_rate": "adaptive", "tol": 1e-2},
    "batches, invscaling": BATCHES | {"solver": "sgd", "learning_rate": "invscaling"},
    "batches, standardized, AdamW": BATCHES
    | {"input_scaling": "standardize", "solver": "adamw", "learning_rate": Cosine()},
    "no patience": {"n_iter_no_change": 1, "tol": 0.1},
    "own activation": {"activation": [lambda x, *, xp: (x * 2, lambda dy: dy * 2)], "max_iter": 9},
}


@pytest.mark.parametrize("name", CASES)
def test_epochs_at_once_are_those_one_by_one(name, lengths):
    settings = {"hidden_layer_sizes": (20,), "random_state": 0, **CASES[name]}
    given = {"sample_weight": WEIGHTS} if name == "held out" or "weighted" in name else {}
    mine, weights = results(MLPClassifier(**settings), **given)
    assert sum(lengths) == mine[0]
    assert len(lengths) < mine[0]
    lengths.clear()
    expected, arrays = results(MLPClassifier(**settings, callbacks=[Watching()]), **given)
    assert not lengths
    assert str(mine) == str(expected)  # Their types too.
    for array, other in zip(weights, arrays, strict=True):
        np.testing.assert_array_equal(array, other)


def test_a_call_prepares_its_program_once(lengths, monkeypatch):
    prepare, prepared = CompiledLoop._prepare, []

    def counting(self, *arguments):
        prepared.append(self)
        return prepare(self, *arguments)

    monkeypatch.setattr(CompiledLoop, "_prepare", counting)
    results(MLPClassifier((8,), max_iter=40, random_state=0))
    assert len(prepared) == len(lengths) > 1


def test_a_regressor_of_several_outputs_and_validation_data(lengths):
    settings = {"hidden_layer_sizes": (20, 10), "random_state": 0, "max_iter": 40}
    given = {"X_val": X[::3], "y_val": X[::3, :2]}
    mine, weights = results(MLPRegressor(**settings), X[:, :2], **given)
    expected, arrays = results(MLPRegressor(**settings, callbacks=[Watching()]), X[:, :2], **given)
    assert lengths
    assert mine == expected
    for array, other in zip(weights, arrays, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("more", [{}, {"early_stopping": True}, {"batch_size": 40}])
def test_what_diverges_among_epochs_at_once_ends_as_one_by_one(more):
    # Each step makes the weights some millions of times as large.
    settings = {"solver": "sgd", "learning_rate_init": 30.0, "random_state": 0, "alpha": 1e8}
    settings |= {"n_iter_no_change": 50, **more}
    ends = []
    for callbacks in (None, [Watching()]):
        model = MLPClassifier(**settings, callbacks=callbacks)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                model.fit(X, Y)
                error = str(caught[0].message)
            except NonFiniteError as raised:
                error = str(raised), raised.epoch, raised.step, raised.layer, raised.cause
        n_steps = -(-len(X) // settings["batch_size"]) if "batch_size" in settings else 1
        assert model.n_iter_ * n_steps > 10
        assert model.n_iter_ < 50
        ends.append([error, model.n_iter_, str(model.loss_curve_), model.coefs_[0].tolist()])
    assert ends[0] == ends[1]


def test_fits_in_turns_do_not_write_to_each_other():
    models = [MLPClassifier((8,), random_state=seed, max_iter=12) for seed in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        first = [model.fit(X, Y).coefs_[0].copy() for model in models]
        for model, before in zip(models, first, strict=True):
            np.testing.assert_array_equal(model.coefs_[0], before)
            again = MLPClassifier((8,), random_state=model.random_state, max_iter=12).fit(X, Y)
            np.testing.assert_array_equal(again.coefs_[0], before)


@pytest.mark.parametrize("batch_size", [len(X), 20])
@pytest.mark.parametrize("what", ["activation", "loss"])
def test_a_function_of_the_user_may_change_between_fits(what, batch_size):
    scale = 1.0

    def activation(x, *, xp):
        return x * scale, lambda dy: dy * scale

    def loss(outputs, targets, *, xp):
        error = outputs - targets
        return scale * xp.sum(error * error, axis=-1), lambda d: 2 * scale * error * d[..., None]

    settings = {"activation": activation, "loss": loss}
    settings = {what: settings[what], "max_iter": 2, "learning_rate": "cosine", "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=(5,), batch_size=batch_size, **settings)
    first = model.fit(X, Y).loss_
    scale = 3.0
    assert model.fit(X, Y).loss_ > 2 * first
