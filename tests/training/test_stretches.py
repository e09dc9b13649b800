"""Epochs of a small fit, many in one call: the same bits as one by one, with less around them."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_iris
from trainers import assert_close

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.backends._numpy.compiled_step import CompiledLoop
from mlp_xp.optimizers.schedules import Cosine
from mlp_xp.training.finite import NonFiniteError
from mlp_xp.training.stretches import Stretches

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
WEIGHTS = np.random.default_rng(0).random(len(X))
LONG = 100_000  # Epochs of a training that would wait for machine code.
FIELDS = "loss_curve_", "validation_scores_", "validation_loss_curve_", "best_validation_score_"


# Has every epoch run by itself.
WATCHING = SimpleNamespace(on_epoch_end=lambda model, record: None)


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
    model.fit(X, y, **given)
    curves = {name: getattr(model, name, None) for name in FIELDS}
    rates = [record.learning_rate for record in model.history_]
    return [model.n_iter_, model.t_, curves, rates], [*model.coefs_, *model.intercepts_]


BATCHES = {"batch_size": 32, "max_iter": 25}  # The last has 22 rows.
SGD = {"solver": "sgd"}
ADAPTIVE = SGD | {"learning_rate": "adaptive", "tol": 1e-2}
CASES = {
    "iris": {},
    "held out": {"early_stopping": True},
    "several outputs": {"hidden_layer_sizes": (20, 10), "max_iter": 40},
    "by a metric": {"early_stopping": True, "scoring": "neg_log_loss", "max_iter": 12},
    "by the loss": {"early_stopping": True, "scoring": "loss", "n_iter_no_change": 3},
    "dropout": {"dropout": 0.3, "max_iter": 30, "early_stopping": True},
    "batch normalization": {"normalization": "batch", "early_stopping": True},
    "average": {"ema_decay": 0.9, "early_stopping": True, "learning_rate_init": 0.01},
    "adaptive": ADAPTIVE | {"max_iter": 80},
    "invscaling": SGD | {"learning_rate": "invscaling", "max_iter": 25},
    "schedule": {"learning_rate": Cosine(), "n_iter_no_change": np.inf, "max_iter": 50},
    "batches": BATCHES,
    "batches, weighted": BATCHES,
    "batches, dropout": BATCHES | {"dropout": 0.3, "ema_decay": 0.9},
    "batches, batch normalization": BATCHES | {"normalization": "batch", "shuffle": False},
    "batches, adaptive": BATCHES | ADAPTIVE,
    "batches, invscaling": BATCHES | SGD | {"learning_rate": "invscaling"},
    "batches, standardized, AdamW": BATCHES
    | {"input_scaling": "standardize", "solver": "adamw", "learning_rate": Cosine()},
    "no patience": {"n_iter_no_change": 1, "tol": 0.1},
    "own activation": {"activation": [lambda x, *, xp: (x * 2, lambda dy: dy * 2)], "max_iter": 9},
}
CODE = {
    "machine code": {"max_iter": LONG, "tol": 1e-3, "early_stopping": True},
    "float32": {"precision": "float32", "max_iter": LONG, "tol": 1e-2},
    "batches, machine code": BATCHES | {"max_iter": LONG, "tol": 1e-2},
    "batches, weighted, machine code": BATCHES | {"max_iter": LONG, "tol": 1e-1},
    "batches of one size, float32": {"batch_size": 50, "precision": "float32"}
    | {"max_iter": LONG, "tol": 1e-1},
}


@pytest.mark.parametrize("name", [*CASES, *CODE])
def test_epochs_at_once_are_those_one_by_one(name, lengths, monkeypatch):
    prepare, prepared = CompiledLoop._prepare, []
    monkeypatch.setattr(
        CompiledLoop, "_prepare", lambda *args: prepared.append(1) or prepare(*args)
    )
    settings = {"hidden_layer_sizes": (20,), "random_state": 0, **(CASES | CODE)[name]}
    given = {"sample_weight": WEIGHTS} if name == "held out" or "weighted" in name else {}
    estimator, y = MLPClassifier, Y
    if name == "several outputs":
        estimator, y, given = MLPRegressor, X[:, :2], {"X_val": X[::3], "y_val": X[::3, :2]}
    mine, weights = results(estimator(**settings), y, **given)
    assert sum(lengths) == mine[0]
    assert len(lengths) < mine[0]
    if name == "iris":  # Once a call.
        assert len(prepared) == len(lengths) > 1
    lengths.clear()
    expected, arrays = results(estimator(**settings, callbacks=[WATCHING]), y, **given)
    assert not lengths
    assert str(mine) == str(expected)  # Their types too.
    assert_close(weights, arrays)


@pytest.mark.parametrize("more", [{}, {"early_stopping": True}, {"batch_size": 40}])
def test_what_diverges_among_epochs_at_once_ends_as_one_by_one(more):
    # Each step makes the weights some millions of times as large.
    settings = SGD | {"learning_rate_init": 30.0, "random_state": 0, "alpha": 1e8}
    settings |= {"n_iter_no_change": 50, **more}
    ends = []
    for callbacks in (None, [WATCHING]):
        model = MLPClassifier(**settings, callbacks=callbacks)
        stops = "early_stopping" in more
        with pytest.warns(RuntimeWarning) if stops else pytest.raises(NonFiniteError) as caught:
            model.fit(X, Y)
        error = str(caught[0].message) if stops else (str(caught.value), vars(caught.value))
        n_steps = -(-len(X) // settings.get("batch_size", len(X)))
        assert 10 / n_steps < model.n_iter_ < 50
        ends.append([error, model.n_iter_, str(model.loss_curve_), model.coefs_[0].tolist()])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("batch_size", [len(X), 20])
@pytest.mark.parametrize("what", ["activation", "loss"])
def test_a_function_of_the_user_may_change_between_fits(what, batch_size):
    scale = 1.0

    def activation(x, *, xp):
        return x * scale, lambda dy: dy * scale

    def loss(outputs, targets, *, xp):
        error = outputs - targets
        return scale * xp.sum(error * error, axis=-1), lambda d: 2 * scale * error * d[..., None]

    own = {"activation": activation, "loss": loss}[what]
    settings = {"max_iter": 2, "learning_rate": "cosine", "random_state": 0, what: own}
    model = MLPRegressor(hidden_layer_sizes=(5,), batch_size=batch_size, **settings)
    first = model.fit(X, Y).loss_
    scale = 3.0
    assert model.fit(X, Y).loss_ > 2 * first
