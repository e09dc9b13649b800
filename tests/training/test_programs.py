"""Programs of many models: which sizes are compiled, and how many epochs a call takes."""

import numpy as np
import pytest
from helpers import problem, small
from sklearn.base import clone

from mlp_xp._utils.tree import leaves
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.training.stack import run_fits as stack

stacks = pytest.mark.libraries("torch", "jax")
X, Y = problem()
EPOCHS = [1, 2, 2, 3, 5, 8, 8, 8]
LIVE = [8, 7, 5, 4, 4, 3, 3, 3]  # Models that train, epoch after epoch.
# Where a size costs a compilation, half of the places are empty before the others are given up.
PLACES = {"torch": LIVE, "jax": [8, 8, 8, 4, 4, 4, 4, 4]}


def fit_together(models):
    """Fit models in one thread: of two threads JAX would train a model in each."""
    results = list(fit_many([FitTask(model, X, Y) for model in models], n_jobs=1))
    assert [result.error for result in results] == [None] * len(models)


@stacks
def test_finished_models_leave_the_stack(backend, on, monkeypatch):
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
    settings = on | {"learning_rate": "cosine"}
    models = [small(random_state=i, max_iter=n, **settings) for i, n in enumerate(EPOCHS)]
    own = [clone(model).fit(X, Y) for model in models]
    fit_together(models)
    assert sizes == list(zip(PLACES[backend.name], LIVE, strict=True))
    for model, expected in zip(models, own, strict=True):
        assert model.n_iter_ == expected.n_iter_
        np.testing.assert_allclose(model.coefs_[0], expected.coefs_[0], rtol=1e-6, atol=1e-9)


@stacks
def test_stack_trains_until_the_first_fit_can_end(on, monkeypatch):
    rounds, train = [], stack.ModelStack.train

    def counting(self, requests, size, n_epochs):
        assert n_epochs <= min(request.n_epochs for request in requests)
        rounds.append(n_epochs)
        return train(self, requests, size, n_epochs)

    monkeypatch.setattr(stack.ModelStack, "train", counting)

    def fits(most_seconds):
        monkeypatch.setattr(stack, "_MOST_SECONDS", most_seconds)
        rounds.clear()
        settings = on | {"learning_rate_init": 0.3, "n_iter_no_change": 3}
        models = [small(random_state=i, max_iter=n, **settings) for i, n in enumerate([12, 12, 30])]
        fit_together(models)
        return models, list(rounds)

    one_by_one, each = fits(0.0)
    assert set(each) == {1}
    together, several = fits(1e9)
    assert several[0] == 1  # How long an epoch takes is not known yet.
    assert max(several) == 4  # Three epochs without progress are fine.
    assert len(several) < len(each)
    for model, expected in zip(together, one_by_one, strict=True):
        assert model.loss_curve_ == expected.loss_curve_
        np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])


@pytest.mark.libraries("jax")
def test_jax_compiles_only_one_loop_and_one_step(on, compiled):
    fit_together([small(random_state=i, max_iter=3, **on) for i in range(3)])
    assert compiled() == ["jit(run)"]
    small(placement="streamed", batch_size=5, **on).fit(X, Y)
    names = compiled()
    assert "jit(step)" in names
    assert "jit(unstack)" not in names  # Its size would grow with the number of steps.
