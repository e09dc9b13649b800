"""Models that have ended leave the program of those that train on, and take no time there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers import problem, small
from sklearn.base import clone

from mlp_xp._utils.tree import leaves
from mlp_xp.estimators import many
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.training import stack

pytestmark = pytest.mark.libraries("torch", "jax")

X, Y = problem()
EPOCHS = [1, 2, 2, 3, 5, 8, 8, 8]
LIVE = [8, 7, 5, 4, 4, 3, 3, 3]  # Models that train, epoch after epoch.
# Where a size costs a compilation, half of the places are empty before the others are given up.
PLACES = {"torch": LIVE, "jax": [8, 8, 8, 4, 4, 4, 4, 4]}


def fit_together(models):
    """Fit models in one thread: of two threads JAX would train a model in each."""
    results = list(fit_many([FitTask(model, X, Y) for model in models], n_jobs=1))
    assert [result.error for result in results] == [None] * len(models)
    return models


@pytest.fixture
def rounds(monkeypatch):
    """Return a list that gets the requests and epochs of each run of a program."""
    found, train = [], stack.ModelStack.run

    def run(self, requests, size, n_epochs, is_stopped):
        found.append((requests, n_epochs))
        train(self, requests, size, n_epochs, is_stopped)

    monkeypatch.setattr(stack.ModelStack, "run", run)
    return found


def test_models_that_have_ended_leave_their_program(backend, where, monkeypatch):
    compiled = type(backend).loop_of_models
    sizes = []

    def loop_of_models(self, body):
        run = compiled(self, body)

        def recorded(start, stops, state, *arguments):
            ended = stops == start
            before = [self.get(leaf)[ended].copy() for leaf in leaves(state)]
            new = run(start, stops, state, *arguments)
            for leaf, expected in zip(leaves(new), before, strict=True):
                np.testing.assert_array_equal(self.get(leaf)[ended], expected)
                assert len(leaf) == len(stops)
            sizes.append((len(stops), np.count_nonzero(~ended)))
            return new

        return recorded

    monkeypatch.setattr(type(backend), "loop_of_models", loop_of_models)
    settings = where | {"learning_rate": "cosine"}
    models = [small(random_state=i, max_iter=n, **settings) for i, n in enumerate(EPOCHS)]
    own = [clone(model).fit(X, Y) for model in models]
    fit_together(models)
    assert sizes == list(zip(PLACES[backend.name], LIVE, strict=True))
    for model, expected in zip(models, own, strict=True):
        assert model.n_iter_ == expected.n_iter_
        np.testing.assert_allclose(model.coefs_[0], expected.coefs_[0], rtol=1e-6, atol=1e-9)


def test_fits_go_on_after_as_many_epochs_as_none_of_them_can_end_before(where, rounds, monkeypatch):
    def fits(most_seconds):
        monkeypatch.setattr(stack, "_MOST_SECONDS", most_seconds)
        rounds.clear()
        settings = where | {"learning_rate_init": 0.3, "n_iter_no_change": 3}
        models = [small(random_state=i, max_iter=n, **settings) for i, n in enumerate([12, 12, 30])]
        fit_together(models)
        return models, [n_epochs for _, n_epochs in rounds]

    one_by_one, each = fits(0.0)
    assert set(each) == {1}
    together, several = fits(1e9)
    assert several[0] == 1  # How long an epoch takes is not known yet.
    assert max(several) == 4  # Three epochs without progress are fine.
    assert len(several) < len(each)
    for requests, n_epochs in rounds:
        assert n_epochs <= min(request.n_epochs for request in requests)
    for model, expected in zip(together, one_by_one, strict=True):
        assert model.n_iter_ == expected.n_iter_
        assert model.loss_curve_ == expected.loss_curve_
        np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])


def test_a_program_begins_with_one_epoch_as_it_may_be_a_long_one(where, rounds, monkeypatch):
    monkeypatch.setattr(stack, "_MOST_SECONDS", 1e9)
    monkeypatch.setattr(many, "_most_models", lambda *_: 1)  # One after the other.
    settings = where | {"max_iter": 6, "n_iter_no_change": 5}
    fit_together([small(hidden_layer_sizes=(n,), **settings) for n in (4, 7)])
    first = {}
    for requests, n_epochs in rounds:
        first.setdefault(requests[0].trainer.rules.network.sizes, n_epochs)
    assert list(first.values()) == [1, 1]


@pytest.fixture
def compiled(caplog):
    """Return a function that returns the names of what JAX compiles while it calls another."""

    def names(function):
        import jax

        jax.clear_caches()
        caplog.clear()
        jax.config.update("jax_log_compiles", True)  # Its context is that of one thread.
        try:
            function()
        finally:
            jax.config.update("jax_log_compiles", False)
        return [m.split()[4] for m in caplog.messages if m.startswith("Finished XLA compilation")]

    return names


@pytest.mark.libraries("jax")
def test_models_of_a_program_compile_that_and_nothing_else(where, compiled):
    models = [small(random_state=i, max_iter=3, **where) for i in range(3)]
    assert compiled(lambda: fit_together(models)) == ["jit(run)"]


@pytest.mark.libraries("jax")
def test_steps_one_by_one_compile_no_program_that_grows_with_their_number(where, compiled):
    streamed = small(placement="streamed", batch_size=5, **where)
    names = compiled(lambda: streamed.fit(X, Y))
    assert "jit(step)" in names
    assert "jit(unstack)" not in names


def test_an_epoch_of_a_program_copies_what_its_steps_take_and_no_more(backend, where, monkeypatch):
    shapes = []
    for method in ("put", "put_copy"):
        transfer = getattr(type(backend), method)

        def recorded(self, array, dtype=None, transfer=transfer):
            shapes.append(np.shape(array))
            return transfer(self, array, dtype)

        monkeypatch.setattr(type(backend), method, recorded)
    copied = []
    for n_epochs in (2, 3):
        shapes.clear()
        settings = where | {"max_iter": n_epochs, "dropout": 0.5, "batch_size": 15}
        fit_together([small(random_state=i, **settings) for i in range(2)])
        copied.append(Counter(shapes))
    of_an_epoch = copied[1] - copied[0]
    assert (len(X) // 15, 2, 15) in of_an_epoch  # The rows.
    assert {shape[:2] for shape in of_an_epoch} == {(len(X) // 15, 2)}
