"""Regressors that predict quantiles, or a mean and a standard deviation."""

import numpy as np
import pytest
from helpers import pickled_and_saved, problem, small
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss
from trainers import assert_close

from mlp_xp import MLPEnsembleRegressor, MLPRegressor
from mlp_xp.augmentation import Flip
from mlp_xp.callbacks import Checkpoint
from mlp_xp.nn.losses import Gaussian, Quantile, Through

X, _ = problem()
POSITIVE = np.exp(0.5 * X[:, :2])
LEVELS = (0.05, 0.5, 0.95)
# Losses with levels to ask for; the last two have no median.
LOSSES = {
    Quantile(LEVELS): LEVELS,
    Gaussian(): 0.3,
    Through(Quantile((0.1, 0.9)), "exp"): (0.1, 0.9),
    Quantile((0.7, 0.9)): (0.7, 0.9),
}
each_loss = pytest.mark.parametrize(("loss", "levels"), LOSSES.items(), ids=map(repr, LOSSES))


def regressor(loss, **settings):
    return small(MLPRegressor, loss=loss, **settings)


def noisy(n, seed=0, scale=1.0):
    """Return samples whose noise depends on the input, and its standard deviation."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3, 3, (n, 1))
    std = scale * (0.1 + 0.4 * np.abs(np.sin(X[:, 0])))
    return X, scale * np.sin(2 * X[:, 0]) + std * rng.standard_normal(n), std


@pytest.mark.parametrize("loss", [Quantile(LEVELS), "gaussian"])
def test_nine_in_ten_targets_fall_within_their_interval(loss):
    X, y, std = noisy(4000, seed=1)
    settings = {"batch_size": 50, "max_iter": 60, "learning_rate": "cosine", "random_state": 0}
    model = MLPRegressor(loss, (40, 40), learning_rate_init=0.005, **settings)
    low, high = model.fit(*noisy(1500)[:2]).predict(X, quantiles=(0.05, 0.95)).T
    assert np.mean((low < y) & (y < high)) == pytest.approx(0.9, abs=0.03)
    assert np.corrcoef(high - low, std)[0, 1] > 0.85
    assert model.score(X, y) > 0.7


def test_quantiles_never_cross():
    model = regressor(Quantile((0.01, 0.2, 0.21, 0.5, 0.99))).fit(*noisy(500)[:2])
    X = np.linspace(-1e3, 1e3, 999)[:, None]
    assert np.all(np.diff(model.predict(X, quantiles=model.loss.quantile), axis=1) >= 0)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("loss", [Quantile(LEVELS), "gaussian"])
def test_initial_interval_matches_the_scale_of_the_targets(loss, scale):
    X, y, _ = noisy(500, scale=scale)
    model = MLPRegressor(loss, (), max_iter=1, learning_rate="cosine", learning_rate_init=1e-12)
    low, high = model.fit(X, y).predict(0 * X[:1], quantiles=(0.05, 0.95))[0]
    assert (low + high) / 2 == pytest.approx(y.mean(), abs=scale)
    assert (high - low) == pytest.approx(2 * norm.ppf(0.95) * y.std(), rel=0.3)
    # Samples of weight 0 change nothing, and a constant has some spread.
    weights = (np.arange(len(y)) < 100) * 1.0
    shifted = np.where(weights > 0, y, y + 1e3 * scale)
    same = [model.fit(X, t, weights).intercepts_[-1] for t in (y, shifted)]
    np.testing.assert_allclose(*same, rtol=1e-6)
    assert np.isfinite(model.fit(X, 0 * y).predict(X, quantiles=0.95)).all()


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_noise_free_targets_give_finite_standard_deviations(solver):
    X, _, _ = noisy(200)
    settings = {"learning_rate_init": 0.01, "batch_size": 20, "random_state": 0, "max_iter": 120}
    settings |= {"max_grad_norm": 1.0} if solver == "sgd" else {}
    model = MLPRegressor("gaussian", (20,), solver=solver, **settings).fit(X, X[:, 0])
    mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    assert model.score(X, X[:, 0]) > 0.9


def pinball(y, predictions, weights=None, levels=LEVELS):
    """Return scikit-learn's pinball loss, averaged over quantiles along the last axis."""
    each = zip(np.moveaxis(predictions, -1, 0), levels, strict=True)
    losses = [mean_pinball_loss(y, p, sample_weight=weights, alpha=q) for p, q in each]
    return pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("y", [X[:, 0], X[:, :2]], ids=["one", "several"])
def test_predict_returns_median_quantiles_or_standard_deviation(y):
    weights = np.linspace(0, 2, len(X))
    model = regressor(Quantile(LEVELS)).fit(X, y, weights)
    assert model.n_outputs_ == (6 if y.ndim == 2 else 3)
    assert model.out_activation_ == "quantiles"
    whole = model.predict(X, quantiles=LEVELS)
    assert whole.shape == (*y.shape, 3)
    np.testing.assert_array_equal(model.predict(X), whole[..., 1])
    np.testing.assert_array_equal(model.predict(X, quantiles=0.95), whole[..., 2])
    np.testing.assert_array_equal(model.predict(X, quantiles=[0.95, 0.05]), whole[..., [2, 0]])
    assert model.evaluate(X, y, weights)["loss"] == pinball(y, whole, weights)

    model = regressor(Gaussian()).fit(X, y, weights)
    assert model.out_activation_ == "gaussian"
    mean, std = model.predict(X, return_std=True)
    assert mean.shape == std.shape == y.shape
    np.testing.assert_array_equal(model.predict(X), mean)
    expected = np.stack([norm.ppf(q, mean, std) for q in (0.3, 0.8)], axis=-1)
    np.testing.assert_allclose(model.predict(X, quantiles=[0.3, 0.8]), expected, rtol=1e-9)
    densities = norm.logpdf(y, mean, std).reshape(len(X), -1).mean(axis=1)
    expected = -np.average(densities, weights=weights)
    assert model.evaluate(X, y, weights)["loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("levels", "parts"), [((0.1, 0.6), (0.2, 0.8)), ((0.7, 0.9), (1, 0)), ((0.1, 0.2), (0, 1))]
)
def test_predict_returns_or_interpolates_the_median(levels, parts):
    model = regressor(Quantile(levels)).fit(X, X[:, 0])
    expected = model.predict(X, quantiles=levels) @ np.asarray(parts)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)


@each_loss
def test_interval_models_can_be_saved_resumed_and_continued(loss, levels, tmp_path):
    y = POSITIVE
    model = regressor(loss, early_stopping=True, validation_fraction=0.3).fit(X, y)
    expected = model.predict(X, quantiles=levels)
    assert model.validation_scores_[-1] == -model.validation_loss_curve_[-1]
    made = MLPRegressor.from_weights(model.coefs_, model.intercepts_, loss=loss)
    for copy in (*pickled_and_saved(model, tmp_path), made):
        np.testing.assert_array_equal(copy.predict(X, quantiles=levels), expected)
        assert copy.loss == loss
    assert len(regressor(loss, warm_start=True).fit(X, y).fit(X, y).loss_curve_) == 10
    assert regressor(loss).partial_fit(X, y).partial_fit(X, y).predict(X).shape == y.shape
    # A fit that is resumed ends as one that was not interrupted.
    whole, first, again = (regressor(loss, max_iter=4) for _ in range(3))
    first.set_params(callbacks=[Checkpoint(tmp_path / "kept", every=3)]).fit(X, y)
    again.fit(X, y, resume=tmp_path / "kept")
    np.testing.assert_allclose(again.predict(X), whole.fit(X, y).predict(X), rtol=1e-9)


@each_loss
def test_every_backend_predicts_the_same_intervals(on, backend, loss, levels):
    y, data = POSITIVE[:, 0], backend.put(X.astype("float32"))
    expected = regressor(loss).fit(X, y).predict(X, quantiles=levels)
    model = regressor(loss, precision="float32", **on).fit(data, y)
    found = model.predict(data, quantiles=levels)
    assert backend.owns(found)
    assert_close([found], [expected], rtol=1e-3, atol=1e-3)


def test_ensemble_standard_deviation_combines_noise_and_disagreement():
    y = X[:, :2]
    model = MLPEnsembleRegressor(regressor("gaussian"), 3, random_state=0).fit(X, y)
    each = [member.predict(X, return_std=True) for member in model.estimators_]
    means, stds = np.stack(each, axis=1)
    mean, std = model.predict(X, return_std=True)
    total = np.sqrt(np.var(means, axis=0) + np.mean(np.square(stds), axis=0))
    found = model.predict(X, quantiles=0.9)
    expected = np.mean(means, axis=0), total, norm.ppf(0.9, mean, std)
    assert_close((mean, std, found), expected, rtol=1e-9, atol=1e-12)
    model = MLPEnsembleRegressor(regressor(Quantile(LEVELS)), 3, random_state=0).fit(X, y)
    each = np.stack([member.predict(X, quantiles=LEVELS) for member in model.estimators_])
    found = model.predict(X, quantiles=LEVELS), model.predict(X, return_std=True)[1]
    assert_close(found, (each.mean(axis=0), each[..., 1].std(axis=0)), rtol=1e-7)


@each_loss
def test_tta_averages_distributions_over_views(loss, levels):
    y, view = POSITIVE[:, 0], Flip((1, 2, 3))
    model = regressor(loss).fit(X, y)
    flipped = X.reshape(-1, 2, 3)[:, :, ::-1].reshape(-1, 6)
    expected = (model.predict(X, quantiles=levels) + model.predict(flipped, quantiles=levels)) / 2
    np.testing.assert_allclose(model.predict(X, quantiles=levels, tta=view), expected, rtol=1e-9)
    # The loss of averaged predictions, which are taken back to raw outputs for it.
    model.tta = view
    if isinstance(loss, Quantile):
        assert model.evaluate(X, y)["loss"] == pinball(y, expected, levels=levels)
    if isinstance(loss, Gaussian):
        density = norm.logpdf(y, *model.predict(X, return_std=True))
        assert model.evaluate(X, y)["loss"] == pytest.approx(-density.mean(), rel=1e-9)


CALIBRATED = ("squared_error", "quantile", "poisson", *LOSSES)


@pytest.mark.parametrize("loss", CALIBRATED, ids=repr)
def test_calibrated_quantiles_reach_their_coverage(on, backend, loss, tmp_path):
    X, y, _ = noisy(3000)
    y = np.exp(0.3 * y)
    levels = getattr(loss, "levels", ()) or (0.05, 0.95)
    model = regressor(loss, precision="float32", max_iter=30, **on).fit(X[:100], y[:100])
    plain = model.predict(X)
    data = backend.put(X.astype("float32"))
    assert model.calibrate_intervals(data[100:1100, :], y[100:1100]) is model
    np.testing.assert_array_equal(model.predict(X), plain)
    found = model.predict(data, quantiles=levels)
    assert type(found) is np.ndarray  # Like the training data.
    expected = model.predict(X, quantiles=levels)
    with backend.scope():
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    shares = np.mean(y[1100:, None] < expected[1100:], axis=0)
    np.testing.assert_allclose(shares, levels, atol=0.04)
    assert np.all(np.diff(expected, axis=1) >= 0)
    if loss == "squared_error":
        errors = y[100:1100] - plain[100:1100]
        low = np.quantile(errors, 0.05, method="weibull")
        np.testing.assert_allclose(expected[:, 0], plain + low, rtol=1e-4)
    for copy in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(copy.predict(X, quantiles=levels), expected)
    with pytest.raises(ValueError, match=r"at least 9999 samples for the quantile|was fitted"):
        model.predict(X, quantiles=0.0001)
    again = model.partial_fit(X[:100], y[:100])  # The next fit forgets it.
    if isinstance(loss, str):
        with pytest.raises(ValueError, match=r"which has no quantiles|network was fitted"):
            again.predict(X, quantiles=levels)
    else:
        assert np.any(again.predict(X, quantiles=levels) != expected)


def test_an_interval_requires_calibration_and_then_covers():
    X, y, _ = noisy(3000)
    model = regressor(Quantile(LEVELS), max_iter=30).fit(X[:100], y[:100])
    with pytest.raises(ValueError, match=r"or call MLPRegressor.calibrate_intervals\(X, y\)"):
        model.predict(X, interval=0.9)
    model.calibrate_intervals(X[100:1100], y[100:1100])
    found = model.predict(X, interval=0.9)
    np.testing.assert_array_equal(found, model.predict(X, quantiles=(0.05, 0.95)))
    low, high = found[1100:].T
    assert np.mean((low <= y[1100:]) & (y[1100:] <= high)) == pytest.approx(0.9, abs=0.04)
    with pytest.raises(ValueError, match=r"`interval` must be above 0 and below 1, got 90"):
        model.predict(X, interval=90)
    for other in ({"return_std": True}, {"quantiles": 0.5}):
        with pytest.raises(ValueError, match="cannot be combined: call predict once for each"):
            model.predict(X, interval=0.9, **other)


def test_several_outputs_are_calibrated_separately():
    y = X[:, :2]
    for loss in ("squared_error", "gaussian", Quantile(LEVELS)):
        model = regressor(loss).fit(X, y).calibrate_intervals(X, y)
        found = model.predict(X, quantiles=LEVELS)
        assert found.shape == (60, 2, 3)
        shares = np.mean(y[..., None] < found, axis=0)
        np.testing.assert_allclose(shares, [LEVELS] * 2, atol=0.02)
    with pytest.raises(ValueError, match=r"at least 19 samples for the quantile 0.05, got 18"):
        model.calibrate_intervals(X[:18], y[:18])
    model = regressor("squared_error").fit(X, y)
    for changed in (("activation", "tanh"), ("out_activation_", "logistic")):
        setattr(model.calibrate_intervals(X, y), *changed)
        with pytest.raises(ValueError, match=r"or call MLPRegressor.calibrate_intervals\(X, y\)"):
            model.predict(X, quantiles=0.5)


WRONG_QUESTIONS = [
    ("squared_error", {"return_std": True}, r"has no standard deviation: fit with loss=Gaussian"),
    ("squared_error", {"quantiles": [0.1, 0.9]}, r"fit with loss=Quantile\(\(0.1, 0.9\)\)"),
    (Quantile(LEVELS), {"quantiles": 0.1}, r"among \(.* network was fitted, got 0.1"),
    ("gaussian", {"quantiles": 1.0}, r"`quantiles` must be above 0 .* got \(1.0,\)"),
    ("gaussian", {"quantiles": []}, r"`quantiles` must be one or more numbers, got \[\]"),
    ("gaussian", {"quantiles": 0.5, "return_std": True}, "call predict once for each"),
]


@pytest.mark.parametrize(("loss", "asked", "message"), WRONG_QUESTIONS)
def test_errors_say_which_loss_intervals_need(loss, asked, message):
    with pytest.raises(ValueError, match=message):
        regressor(loss).fit(X, X[:, 0]).predict(X, **asked)


def test_ensemble_and_from_weights_errors_say_which_loss_intervals_need():
    loss, asked, message = WRONG_QUESTIONS[-1]
    with pytest.raises(ValueError, match=message):
        MLPEnsembleRegressor(regressor(loss), 2).fit(X, X[:, 0]).predict(X, **asked)
    with pytest.raises(ValueError, match="3 outputs for each target, but the last layer has 1"):
        MLPRegressor.from_weights([np.ones((2, 1))], [np.ones(1)], loss=Quantile(LEVELS))
    with pytest.raises(ValueError, match="The loss of Through must be"):
        regressor("gaussian", output_activation="exp").fit(X, X[:, 0])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_quantile_levels_in_arrays_or_float32_are_rounded_to_short_decimals(kind):
    array, one = np.asarray(LEVELS, dtype=kind), np.asarray(0.9, dtype=kind)
    for given, meant in ((array, LEVELS), (list(array), LEVELS), (one[()], 0.9), (one, 0.9)):
        loss = Quantile(given)
        assert loss == Quantile(meant)
        assert repr(loss) == f"Quantile(quantile={meant})"
        model = regressor(loss).fit(X, X[:, 0])
        found, expected = (model.predict(X, quantiles=levels) for levels in (given, meant))
        np.testing.assert_array_equal(found, expected)
