"""Many networks in one that share their weights: TabM."""

import numpy as np
import pytest
from gradient import check_gradient
from helpers import pickled_and_saved, problem, small
from sklearn.base import clone

from mlp_xp import MLPRegressor
from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends import to_numpy
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.settings.config import check_params
from mlp_xp.model_selection import GridSearchCV
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.gradient_check import check_loss
from mlp_xp.nn.losses import EachMember, Gaussian, SoftmaxCrossEntropy, SquaredError, mean_loss
from mlp_xp.nn.network import Network, forward, init_params

X, y = problem(80)
VALUES = 3.0 * X[:, :2] + 5.0
TABM = {"n_members": 3, "hidden_layer_sizes": (8, 8), "learning_rate_init": 0.02, "max_iter": 30}


def network_of(**settings):
    network = Network((6, 8, 8, 3 * 2), "tanh", n_members=3, **settings)
    shift, start = np.random.default_rng(1), init_params(network, 0)
    return network, map_leaves(lambda p: p + 0.1 * shift.normal(size=p.shape), start)


@pytest.mark.parametrize("residual", [False, True])
def test_member_outputs_and_gradients_match_separate_scaled_networks(residual, backend):
    network, params = network_of(residual=residual)
    xp, given = backend.xp, np.random.default_rng(0).normal(size=(80, 6))

    def run(tree):
        logits, pullback, _ = forward(network, *tree, Context(xp), xp=xp)
        dx, grads = pullback(backend.put(given), need_dx=True)
        return xp.sum(logits * backend.put(given)), (grads, dx)

    check_gradient(backend, run, (params, X), np.random.default_rng(2))
    with backend.scope():
        there = map_leaves(backend.put, (params, X))
        logits = to_numpy(forward(network, *there, Context(xp), xp=xp)[0])
    first, *others = params if not residual else (params[0], *params[1], params[2])
    for m in range(3):
        h = X
        for layer in (first, others[0]):
            z = np.tanh((h * layer.r[m]) @ layer.W * layer.s[m] + layer.b[m])
            h = h + z if residual and layer is not first else z
        expected = h @ others[1].W[m] + others[1].b[m]
        np.testing.assert_allclose(logits[:, 2 * m : 2 * m + 2], expected, atol=1e-12)


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), SquaredError(), Gaussian()])
def test_the_loss_is_the_mean_of_the_members_losses(loss, backend):
    rng, n = np.random.default_rng(0), 2 * loss.outputs_per_target
    logits = rng.normal(size=(5, 3 * n))
    targets = rng.integers(0, 2, 5) if loss.output == "softmax" else rng.normal(size=(5, 2))
    with backend.scope():
        z, t = backend.put(logits), backend.put(targets)
        check_loss(EachMember(loss, 3), z, t, xp=backend.xp)
        parts = [z[:, m * n : (m + 1) * n] for m in range(3)]
        each = [float(mean_loss(loss, part, t, xp=backend.xp)[0]) for part in parts]
        found = float(mean_loss(EachMember(loss, 3), z, t, xp=backend.xp)[0])
        points = (loss.point(loss.activate(p, xp=backend.xp), xp=backend.xp) for p in parts)
        outputs = list(map(to_numpy, points))
        mixed = EachMember(loss, 3).activate(z, xp=backend.xp)
        spread = to_numpy(EachMember(loss, 3).spread(z, xp=backend.xp))
    assert found == pytest.approx(np.mean(each))
    assert EachMember(loss, 3).reported(6.0, 3 * n) == loss.reported(6.0, n)
    np.testing.assert_allclose(to_numpy(mixed)[:, :2], np.mean(outputs, axis=0))
    np.testing.assert_allclose(spread, np.std(outputs, axis=0), atol=1e-12)


def test_members_train_identically_on_every_backend_from_random_signs(backend):
    start = small(**TABM | {"max_iter": 1, "learning_rate_init": 1e-9}).fit(X, y).other_weights_
    assert set(np.unique(np.round(start[0].r, 6))) == {-1.0, 1.0}
    assert all(np.allclose(array, 1.0) for array in (start[0].s, start[1].r, start[1].s))
    settings = TABM | {"dropout": 0.1, "normalization": "layer", "residual": True}
    model = small(**settings).fit(backend.put(X), y)
    expected = small(**settings).fit(X, y)
    np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-9)
    assert expected.score(X, y) > 0.9
    std = to_numpy(model.member_std(backend.put(X)))
    assert std.shape == to_numpy(model.predict_proba(backend.put(X))).shape == (80, 3)
    assert std.mean() > 0.01
    log_p = np.log(expected.predict_proba(X))
    np.testing.assert_allclose(expected.logits(X), log_p, atol=1e-12)


def test_members_can_be_pickled_saved_and_trained_further(tmp_path):
    model = small(**TABM, early_stopping=True, calibration="temperature", warm_start=True)
    expected = model.fit(X, y).predict_proba(X)
    for copy in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(copy.predict_proba(X), expected)
    loss = model.loss_
    assert model.fit(X, y).loss_ < loss
    assert model.partial_fit(X, y).n_iter_ == 31
    with pytest.raises(ValueError, match="has n_members=3, but the settings now say 4"):
        model.set_params(n_members=4).fit(X, y)
    search = GridSearchCV(small(**TABM), {"alpha": [1e-4, 1e-2]}, cv=2).fit(X, y)
    own = clone(search.estimator).set_params(**search.best_params_).fit(X, y)
    np.testing.assert_array_equal(search.predict_proba(X), own.predict_proba(X))


@pytest.mark.parametrize("loss", ["squared_error", "gaussian", "quantile"])
def test_member_predictions_and_spread_are_in_the_unit_of_y(loss):
    settings = TABM | {"loss": loss, "max_iter": 60}
    model = small(MLPRegressor, **settings, target_scaling="standardize").fit(X, VALUES)
    assert model.score(X, VALUES) > 0.5
    larger = clone(model).fit(X, 100.0 * VALUES)
    np.testing.assert_allclose(larger.member_std(X), 100.0 * model.member_std(X), rtol=1e-4)
    held_out = small(MLPRegressor, **settings).fit(X, VALUES, X_val=X, y_val=VALUES)
    loss = held_out.evaluate(X, VALUES)["loss"]
    assert held_out.validation_loss_curve_[-1] == pytest.approx(loss)
    assert fitted_state(held_out).network.sizes[-1] % 6 == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layer_sizes": ()}, "`hidden_layer_sizes` must be one or more integers"),
        ({"normalization": "batch"}, "`normalization` must be 'layer' or None with n_members=3"),
    ],
)
def test_settings_that_members_do_not_support_are_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**TABM | settings).fit(X, y)
    with pytest.raises(ValueError, match="`dropout` must be 0 with n_members=3"):
        check_params(small(**TABM, distributed="mpi", dropout=0.5).get_params())
    with pytest.raises(ValueError, match="`n_members` must be above 1"):
        small().fit(X, y).member_std(X)
    with pytest.raises(ValueError, match="fit the estimator, or set n_members=1"):
        MLPRegressor.from_weights([X[:6], X[:6]], [X[0], X[0]], n_members=3)
    with pytest.raises(ValueError, match="must be 1 for hidden_activations, got 3"):
        small(**TABM).fit(X, y).hidden_activations(X)
