"""Models that have ended leave the program of those that train on, and take no time there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers import problem, small
from sklearn.base import clone

from mlp_xp._utils.tree import leaves
from mlp_xp.backends import get_backend
from mlp_xp.estimators import many
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.training import stack

EPOCHS = [1, 2, 2, 3, 5, 8, 8, 8]
LIVE = [8, 7, 5, 4, 4, 3, 3, 3]  # Models that train, epoch after epoch.
# Where a size costs a compilation, half of the places are empty before the others are given up.
PLACES = {"torch": LIVE, "jax": [8, 8, 8, 4, 4, 4, 4, 4]}


@pytest.mark.libraries("torch", "jax")
def test_models_that_have_ended_leave_their_program(backend_spec, monkeypatch):
    name, _, device = backend_spec.partition(":")
    backend = get_backend(name, device or None)
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
    X, y = problem()
    settings = {"backend": name, "device": device or None, "learning_rate": "cosine"}
    models = [small(random_state=i, max_iter=n, **settings) for i, n in enumerate(EPOCHS)]
    own = [clone(model).fit(X, y) for model in models]
    results = list(fit_many([FitTask(model, X, y) for model in models], n_jobs=1))
    assert [result.error for result in results] == [None] * len(EPOCHS)
    assert sizes == list(zip(PLACES[name], LIVE, strict=True))
    for model, expected in zip(models, own, strict=True):
        assert model.n_iter_ == expected.n_iter_
        np.testing.assert_allclose(model.coefs_[0], expected.coefs_[0], rtol=1e-6, atol=1e-9)


@pytest.mark.libraries("torch", "jax")
def test_fits_go_on_after_as_many_epochs_as_none_of_them_can_end_before(backend_spec, monkeypatch):
    name, _, device = backend_spec.partition(":")
    X, y = problem()
    settings = {"backend": name, "device": device or None, "learning_rate_init": 0.3}

    def fits():
        models = [
            small(random_state=i, max_iter=n, n_iter_no_change=3, **settings)
            for i, n in enumerate([12, 12, 30])
        ]
        assert [r.error for r in fit_many([FitTask(m, X, y) for m in models])] == [None] * 3
        return models

    rounds = []
    train = stack.ModelStack.run

    def run(self, requests, size, n_epochs, is_stopped):
        rounds.append((len(requests), n_epochs, min(request.n_epochs for request in requests)))
        train(self, requests, size, n_epochs, is_stopped)

    monkeypatch.setattr(stack.ModelStack, "run", run)
    monkeypatch.setattr(stack, "_MOST_SECONDS", 0.0)
    one_by_one = fits()
    assert {n_epochs for _, n_epochs, _ in rounds} == {1}
    n_rounds = len(rounds)
    rounds.clear()
    monkeypatch.setattr(stack, "_MOST_SECONDS", 1e9)
    together = fits()
    assert rounds[0][1] == 1  # How long an epoch takes is not known yet.
    # Three epochs without progress are fine.
    assert max(n_epochs for _, n_epochs, _ in rounds) == 4
    assert all(n_epochs <= least for _, n_epochs, least in rounds)
    assert len(rounds) < n_rounds
    for model, expected in zip(together, one_by_one, strict=True):
        assert model.n_iter_ == expected.n_iter_
        assert model.loss_curve_ == expected.loss_curve_
        np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])


@pytest.mark.libraries("torch", "jax")
def test_a_program_begins_with_one_epoch_as_it_may_be_a_long_one(backend_spec, monkeypatch):
    name, _, device = backend_spec.partition(":")
    X, y = problem()
    first_rounds = {}
    train = stack.ModelStack.run

    def run(self, requests, size, n_epochs, is_stopped):
        first_rounds.setdefault(requests[0].trainer.rules.network.sizes, n_epochs)
        train(self, requests, size, n_epochs, is_stopped)

    monkeypatch.setattr(stack.ModelStack, "run", run)
    monkeypatch.setattr(stack, "_MOST_SECONDS", 1e9)
    monkeypatch.setattr(many, "_most_models", lambda *_: 1)  # One after the other.
    settings = {"backend": name, "device": device or None, "max_iter": 6}
    models = [small(hidden_layer_sizes=(n,), n_iter_no_change=5, **settings) for n in (4, 7)]
    assert [r.error for r in fit_many([FitTask(m, X, y) for m in models], n_jobs=1)] == [None] * 2
    assert list(first_rounds.values()) == [1, 1]


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
def test_models_of_a_program_compile_that_and_nothing_else(backend_spec, compiled):
    name, _, device = backend_spec.partition(":")
    X, y = problem()

    def fit():
        models = [
            small(random_state=i, max_iter=3, backend=name, device=device or None) for i in range(3)
        ]
        results = list(fit_many([FitTask(model, X, y) for model in models], n_jobs=1))
        assert [result.error for result in results] == [None] * 3

    assert compiled(fit) == ["jit(run)"]


@pytest.mark.libraries("jax")
def test_steps_one_by_one_compile_no_program_that_grows_with_their_number(backend_spec, compiled):
    name, _, device = backend_spec.partition(":")
    X, y = problem()
    streamed = small(placement="streamed", backend=name, device=device or None, batch_size=5)
    names = compiled(lambda: streamed.fit(X, y))
    assert "jit(step)" in names
    assert "jit(unstack)" not in names


@pytest.mark.libraries("torch", "jax")
def test_an_epoch_of_a_program_copies_what_its_steps_take_and_no_more(backend_spec, monkeypatch):
    name, _, device = backend_spec.partition(":")
    backend = type(get_backend(name, device or None))
    X, y = problem()
    shapes = []
    for method in ("put", "put_copy"):
        transfer = getattr(backend, method)

        def recorded(self, array, dtype=None, transfer=transfer):
            shapes.append(np.shape(array))
            return transfer(self, array, dtype)

        monkeypatch.setattr(backend, method, recorded)
    settings = {"backend": name, "device": device or None, "dropout": 0.5, "batch_size": 15}
    copied = []
    for n_epochs in (2, 3):
        shapes.clear()
        models = [small(random_state=i, max_iter=n_epochs, **settings) for i in range(2)]
        # Of one thread: two would train a model each on JAX.
        results = fit_many([FitTask(model, X, y) for model in models], n_jobs=1)
        assert [result.error for result in results] == [None] * 2
        copied.append(Counter(shapes))
    n_steps = len(X) // 15
    of_an_epoch = copied[1] - copied[0]
    assert (n_steps, 2, 15) in of_an_epoch  # The rows.
    assert {shape[:2] for shape in of_an_epoch} == {(n_steps, 2)}
