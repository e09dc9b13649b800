"""Targets that are standardized for the training, and outputs brought back to their unit."""

import numpy as np
import pytest
from helpers import pickled_and_saved, problem, small
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPEnsembleRegressor, MLPRegressor
from mlp_xp.callbacks import Checkpoint
from mlp_xp.model_selection import GridSearchCV as OurSearch
from mlp_xp.nn.losses import Gaussian, Quantile

X, _ = problem()
Y = X[:, :2] * (3e4, 0.01) + (2e5, -7.0)
WEIGHTS = np.linspace(0, 2, len(X))
LEVELS = (0.05, 0.5, 0.95)
LOSSES = ("squared_error", "absolute_error", "huber", "quantile", Gaussian(), Quantile(LEVELS))
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=str)


def regressor(loss="squared_error", **settings):
    return small(MLPRegressor, loss=loss, target_scaling="standardize", **settings)


def predictions(model, X=X):
    """Return all that a regressor predicts, (samples, outputs, kinds)."""
    found = [model.predict(X)]
    if isinstance(model.loss, Gaussian):
        found += [model.predict(X, return_std=True)[1], model.predict(X, quantiles=0.9)]
    if isinstance(model.loss, Quantile):
        found += list(np.moveaxis(model.predict(X, quantiles=LEVELS), -1, 0))
    return np.stack(found, axis=-1)


def test_predictions_are_clipped_to_the_range_of_the_training_targets():
    model, lowest = regressor(clip_predictions=True).fit(X, Y), Y.min(axis=0)
    far = model.predict(1e3 * X)
    np.testing.assert_allclose(np.clip(far, lowest, Y.max(axis=0)), far, rtol=1e-12)
    assert np.sum(np.isclose(far, lowest, rtol=1e-12)) > 1
    free = model.set_params(clip_predictions=False, warm_start=True, max_iter=1).fit(X, Y)
    assert np.all(free.predict(1e3 * X).min(axis=0) < lowest)
    with pytest.raises(
        ValueError, match=r"`clip_predictions` must be False with loss=.*, got True"
    ):
        regressor("gaussian", clip_predictions=True).fit(X, Y)


@each_loss
def test_target_scaling_matches_standardizing_the_targets_beforehand(loss, tmp_path):
    fit, held = np.arange(40), np.arange(40, 60)
    scaler = StandardScaler().fit(Y[fit], sample_weight=WEIGHTS[fit])
    plain = small(MLPRegressor, loss=loss, early_stopping=True)
    scaled = regressor(
        loss, early_stopping=True, callbacks=[Checkpoint(tmp_path / "kept", every=2)]
    )
    for model, y in ((plain, scaler.transform(Y)), (scaled, Y)):
        model.fit(X[fit], y[fit], WEIGHTS[fit], X_val=X[held], y_val=y[held])
    expected = predictions(plain) * scaler.scale_[:, None] + scaler.mean_[:, None]
    if isinstance(loss, Gaussian):
        expected[..., 1] = predictions(plain)[..., 1] * scaler.scale_
    np.testing.assert_allclose(predictions(scaled), expected, rtol=1e-9)
    np.testing.assert_allclose(scaled.loss_curve_, plain.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(scaled.validation_scores_, plain.validation_scores_, rtol=1e-9)
    assert scaled.score(X, Y) == pytest.approx(plain.score(X, scaler.transform(Y)))
    # A model that comes back, and a fit that is resumed, have the same mean and deviation.
    resumed = regressor(loss, early_stopping=True)
    given = {"X_val": X[held], "y_val": Y[held], "resume": tmp_path / "kept"}
    resumed.fit(X[fit], Y[fit], WEIGHTS[fit], **given)
    for copy in (*pickled_and_saved(scaled, tmp_path), resumed):
        np.testing.assert_array_equal(predictions(copy), predictions(scaled))


def test_target_scaling_ignores_held_out_samples():
    fit, held = train_test_split(np.arange(60), test_size=0.25, random_state=0)
    model = regressor(early_stopping=True, validation_fraction=0.25, random_state=0).fit(X, Y)
    given = regressor(early_stopping=True, random_state=0)
    given.fit(X[fit], Y[fit], X_val=X[held], y_val=Y[held])
    np.testing.assert_allclose(model.predict(X), given.predict(X), rtol=1e-9)


def test_continued_fits_keep_the_first_mean_and_standard_deviation():
    model = regressor().partial_fit(X, Y)
    once = model.predict(X)
    np.testing.assert_allclose(model.partial_fit(X, Y + 1e6).predict(X), once, rtol=0.5)
    again = regressor(warm_start=True).fit(X, Y).fit(X, Y)
    assert again.score(X, Y) > regressor().fit(X, Y).score(X, Y)
    with pytest.raises(ValueError, match="target_scaling='standardize', but the settings now say"):
        again.set_params(target_scaling=None).fit(X, Y)


def test_target_scaling_works_in_searches_and_ensembles(on):
    data, y = X.astype("float32"), Y[:, 0]
    grid = {"alpha": [0.1, 1.0], "target_scaling": ["standardize", None]}
    model = regressor(max_iter=10, precision="float32", **on)
    found, expected = (
        kind(model, grid, cv=3, refit=False).fit(data, y).cv_results_["mean_test_score"]
        for kind in (OurSearch, GridSearchCV)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    ensemble = MLPEnsembleRegressor(
        regressor("gaussian", **on), 3, bootstrap=True, random_state=0
    ).fit(data, y)
    each = [member.predict(data) for member in ensemble.estimators_]
    np.testing.assert_allclose(ensemble.predict(data), np.mean(each, axis=0), rtol=1e-5)


REFUSED = [
    ({"loss": "poisson"}, r"None for 'exp' outputs.*got 'standardize'.*any number.*Type"),
    ({"output_activation": "softplus"}, "None for 'softplus' outputs"),
]


def test_unsupported_target_scaling_is_an_error():
    for settings, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            regressor(**settings).fit(X, np.abs(Y))
    cured = {"target_scaling": None}, {"loss": "squared_error", "output_activation": "identity"}
    for settings, _ in REFUSED:
        for cure in cured:
            regressor(**settings).set_params(**cure).fit(X, np.abs(Y[:, 1]))
    with pytest.raises(ValueError, match=r"output 1 of y to variance 1 in float64.*Rescale y"):
        regressor().fit(X, Y * (1.0, 1e300))
    with pytest.raises(ValueError, match=r"output 0 of y to variance 1 in float64.*Rescale y"):
        regressor().fit(X, Y * (1e-300, 1.0))
    with pytest.raises(ValueError, match=r"output 1 of y in float32.*precision='float64'"):
        regressor().fit(X.astype(np.float32), np.add(Y, (0.0, 1e10)))
    regressor(precision="float64").fit(X.astype(np.float32), np.add(Y, (0.0, 1e10)))
    # A constant is shifted, not scaled.
    np.testing.assert_allclose(regressor().fit(X, 0 * Y + 1e9).predict(X), 1e9, atol=10)
