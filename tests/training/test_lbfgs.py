"""L-BFGS: the minimum of convex problems, blocks, weights, the penalty, and stopping."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import peak, problem, tolerance
from sklearn.exceptions import ConvergenceWarning
from trainers import assert_close, host, make_trainer

from mlp_xp import MLPRegressor
from mlp_xp._utils.tree import leaves
from mlp_xp.backends import get_backend
from mlp_xp.nn.losses import SoftmaxCrossEntropy, SquaredError
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import SGD
from mlp_xp.optimizers.schedules import Constant
from mlp_xp.training import lbfgs
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.lbfgs import minimize

N, FEATURES, OUTPUTS = 57, 4, 2
LINEAR = Network((FEATURES, OUTPUTS))
DEEP = Network((FEATURES, 5, 5, OUTPUTS), "tanh", "layer", residual=True)
# SciPy stops where the loss falls by less than 2.2e-9 of itself at an iteration; near a minimum the
# weights are off by about the root of what the loss is off by.
LOSS, WEIGHTS = 1e-7, 1e-3


def real_values(n=N):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((n, FEATURES)) + 0.5
    y = x @ rng.standard_normal((FEATURES, OUTPUTS)) + rng.standard_normal((n, OUTPUTS))
    return x, y + 3.0


def trainer_for(backend, network=LINEAR, **settings):
    rules = {"network": network, "loss": SquaredError(), "alpha": 0.0}
    return make_trainer(backend, **(rules | settings))


def solve(trainer, x, y, weights=None, after_iteration=lambda params, loss: False, **settings):
    data = put_data(trainer.backend, x, y, trainer.dtype)
    defaults = {"max_iter": 200, "max_fun": 1000, "tol": 1e-8}
    settings = defaults | settings | {"after_iteration": after_iteration}
    return minimize(trainer, data, weights, **settings)


def learned(trainer):
    return host(trainer.backend, trainer.learned)


def objective(backend, x, y, **settings):
    """Return the function that is minimized, and where it starts."""
    trainer = trainer_for(backend, **settings)
    function = lbfgs._Objective(trainer, put_data(backend, x, y, "float64"), None)
    start = function.ravel(trainer.learned)
    return function, start + 0.3 * np.random.default_rng(6).standard_normal(start.shape)


def assert_alike(found, expected):
    atol = tolerance("float64", N) * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


PROBLEMS = [(0.0, None, "float64"), (0.0, None, "float32"), (20.0, None, "float64")]
PROBLEMS += [(20.0, np.random.default_rng(1).random(N), "float64")]


@pytest.mark.parametrize(("alpha", "weights", "dtype"), PROBLEMS)
@pytest.mark.parametrize("rows", [8192, 10])  # One block, or several.
def test_lbfgs_finds_the_ridge_regression_solution(
    backend, monkeypatch, rows, alpha, weights, dtype
):
    """Centering removes the biases, which have no penalty. Without one, it is least squares."""
    monkeypatch.setattr(lbfgs, "BLOCK", rows)
    (x, y), w = real_values(), np.ones(N) if weights is None else weights
    x_mean, y_mean = np.average(x, axis=0, weights=w), np.average(y, axis=0, weights=w)
    centered = (x - x_mean) * w[:, None]
    gram = centered.T @ (x - x_mean) + alpha * np.eye(FEATURES)
    W = np.linalg.solve(gram, centered.T @ (y - y_mean))
    squares = np.sum(w[:, None] * (y - y_mean - (x - x_mean) @ W) ** 2) / OUTPUTS
    # In float32 the sizes of the steps are rounded.
    tol, times = (1e-8, 1) if dtype == "float64" else (1e-3, 10)
    trainer = trainer_for(backend, alpha=alpha, dtype=dtype)
    data = x.astype(dtype), y.astype(dtype)
    n_iter, loss = solve(trainer, *data, weights, tol=tol)
    found = learned(trainer)
    assert {array.dtype.name for array in found} == {dtype}
    assert_close(found, (W, y_mean - x_mean @ W), atol=times * WEIGHTS)
    assert loss == pytest.approx(0.5 * (squares + alpha * np.sum(W**2)) / w.sum(), rel=times * LOSS)
    assert 1 < n_iter < 100
    assert solve(trainer, *data, weights, tol=1e-2)[0] == 0  # It starts at the minimum found.
    assert_close(learned(trainer), found)


@pytest.mark.parametrize("rows", [8192, 19, 10])  # A short block at the end, and none.
@pytest.mark.parametrize("placement", ["resident", "streamed"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("network", [LINEAR, DEEP], ids=["linear", "deep"])
def test_lbfgs_gradient_matches_a_full_batch_sgd_step(
    backend, monkeypatch, network, weighted, placement, rows
):
    """The gradient of the full batch is what one step of plain SGD takes, whatever the blocks."""
    monkeypatch.setattr(lbfgs, "BLOCK", rows)
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (N, FEATURES), dtype=np.uint8)
    labels = rng.integers(0, OUTPUTS, N).astype(np.int32)
    weights = np.maximum(rng.random(N) - 0.2, 0.0) if weighted else None
    rules = {"optimizer": SGD(momentum=0.0), "schedule": Constant(), "learning_rate": 1.0}
    trainer = trainer_for(backend, network, x=x, loss=SoftmaxCrossEntropy(), alpha=2.0, **rules)
    data = put_data(backend, x, labels, "float64", placement)
    function = lbfgs._Objective(trainer, data, weights)
    before = function.ravel(trainer.learned)
    value, slope = function(before)
    record = trainer.run_epoch(data, plan_epoch(N, N, weights=weights), n_epochs=1)
    assert_alike(record.loss, value)
    assert_alike(before - function.ravel(trainer.learned), slope)


@pytest.mark.filterwarnings("ignore:lbfgs failed")
def test_lbfgs_does_not_change_arrays_that_are_not_trained():
    X, y = problem(N)
    found = []
    for alpha in 0.0, 100.0:
        settings = {"solver": "lbfgs", "numeric_embedding": "ple", "alpha": alpha, "max_iter": 3}
        model = MLPRegressor(hidden_layer_sizes=(4,), random_state=0, **settings).fit(X, y)
        found.append(model.other_weights_[0].start)
    np.testing.assert_array_equal(*found)


def test_lbfgs_stops_when_a_callback_asks(backend):
    """There is no warning, since SciPy did not fail."""
    x, y = real_values()
    seen = []

    def after_iteration(params, loss):
        seen.append((params(), loss))
        return len(seen) == 2

    trainer = trainer_for(backend, DEEP)
    n_iter, loss = solve(trainer, x, y, after_iteration=after_iteration)
    assert (n_iter, len(seen)) == (2, 2)
    params, last = seen[-1]
    assert loss == last < seen[0][1]
    assert {type(leaf) for leaf in leaves(params)} == {np.ndarray}
    assert_close(learned(trainer), leaves(params))


@pytest.mark.parametrize("settings", [{"max_iter": 3}, {"max_fun": 3}])
def test_lbfgs_warns_if_it_did_not_converge(backend, settings):
    x, y = real_values()
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge after"):
        n_iter, _ = solve(trainer_for(backend, DEEP), x, y, **settings)
    assert 1 <= n_iter <= 3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_epoch_numbers_continue_when_the_solver_changes():
    """Epochs with the same number would share their sample order and their checkpoint."""
    x, y = real_values()
    settings = {"warm_start": True, "learning_rate": "cosine", "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=4, **settings)
    for solver in ("adam", "lbfgs", "adam"):
        model.set_params(solver=solver).fit(x, y)
    assert [record.epoch for record in model.history_] == list(range(1, 13))


def test_equal_objectives_share_memory_only_within_a_thread():
    given = get_backend("numpy"), *real_values()
    here, again = (objective(*given)[0]._evaluate for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(objective, *given).result()[0]._evaluate
    assert here is again
    assert here is not there


def test_lbfgs_evaluation_copies_no_weights_and_reuses_memory():
    backend = get_backend("numpy")
    x, y = real_values(4000)
    function, point = objective(backend, x, y, network=DEEP)
    assert all(np.shares_memory(leaf, point) for leaf in leaves(function.unravel(point)))
    first = function(point)
    kept = first[1].copy()
    assert peak(lambda: function(point + 1.0)) < x.nbytes  # Activations alone would be more.
    np.testing.assert_array_equal(first[1], kept)
