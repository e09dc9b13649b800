"""Losses and class weights of estimators: named, given as objects, and of your own."""

import numpy as np
import pytest
from helpers import problem, small

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.nn import losses

X, y = problem()
LONGER = {"max_iter": 60}


def test_class_weights_match_sample_weights():
    rare = (X[:, 0] > 1.2).astype(int)
    balanced = np.where(rare, 30 / rare.sum(), 30 / (1 - rare).sum())
    for weight, each in (({0: 1.0, 1: 7.0}, np.where(rare, 7.0, 1.0)), ("balanced", balanced)):
        by_class = small(class_weight=weight).fit(X, rare).loss_curve_
        by_sample = small().fit(X, rare, sample_weight=each).loss_curve_
        np.testing.assert_allclose(by_class, by_sample, rtol=1e-12)


def test_class_weight_as_a_dict_is_checked():
    model = small(class_weight={2: 5.0}).partial_fit(X, y, classes=[0, 1, 2])
    model.partial_fit(X[y != 2], y[y != 2])  # A chunk without the class that is named.
    for given, message in (
        ({0: -1.0}, "Negative values"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, "non-zero|is 0 for all"),
        ({7: 2.0}, r"class_weight has \[7\], which are not among the classes \[0, 1, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            small(class_weight=given).fit(X, y)
    with pytest.raises(ValueError, match="for multilabel targets, got a dict"):
        small(class_weight={0: 2.0}).fit(X, np.eye(3, dtype=int)[y])


def test_label_smoothing_and_focal_loss_match_the_loss_objects():
    plain, binary = small().fit(X, y).loss_, small().fit(X, y > 0).loss_
    for targets, settings, loss in (
        (y, {"label_smoothing": 0.2}, losses.SoftmaxCrossEntropy(0.2)),
        (y > 0, {"label_smoothing": 0.2}, losses.BinaryCrossEntropy(0.2)),
        (y, {"loss": "focal"}, losses.SoftmaxFocal()),
        (y > 0, {"loss": "focal"}, losses.BinaryFocal()),
    ):
        named, given = small(**settings).fit(X, targets), small(loss=loss).fit(X, targets)
        assert named.loss_curve_ == given.loss_curve_
        assert named.loss_ not in (plain, binary)
    binary = small(max_iter=300, label_smoothing=0.4).fit(X, y > 0)
    assert binary.predict_proba(X).max() < 0.95
    with pytest.raises(ValueError, match="only loss='log_loss' supports it"):
        MLPClassifier(label_smoothing=0.1, loss="focal").fit(X, y)


def test_regression_losses_estimate_mean_or_median():
    X, y = np.ones((500, 1)), np.random.default_rng(0).exponential(size=500)
    settings = {"hidden_layer_sizes": (), "max_iter": 300, "alpha": 0.0, "batch_size": 500}
    settings |= {"learning_rate_init": 0.1, "learning_rate": "cosine"}

    def estimate(loss):
        return small(MLPRegressor, **settings, loss=loss).fit(X, y).predict(X[:1])[0]

    for loss in ("squared_error", "poisson", losses.Huber(delta=1e3)):
        assert estimate(loss) == pytest.approx(y.mean(), abs=0.001)
    assert estimate("absolute_error") == pytest.approx(np.median(y), abs=0.01)
    assert estimate("quantile") == pytest.approx(np.median(y), abs=0.01)
    assert estimate(losses.Quantile(0.9)) == pytest.approx(np.quantile(y, 0.9), abs=0.03)
    assert np.median(y) < estimate("huber") < y.mean()


def test_output_activation_can_be_chosen():
    target = 1 / (1 + np.exp(-X[:, 0]))
    model = small(MLPRegressor, max_iter=100, output_activation="logistic").fit(X, target)
    assert model.out_activation_ == "logistic"
    assert 0 <= model.predict(100 * X).min() < 0.1 < 0.9 < model.predict(100 * X).max() <= 1
    model = small(MLPRegressor, loss=losses.Through(losses.SquaredError(), "softplus")).fit(
        X, X[:, 0] ** 2
    )
    assert model.out_activation_ == "softplus"
    assert model.predict(X).min() > 0
    one_against_rest = small(output_activation="logistic").fit(X, y)
    assert one_against_rest.out_activation_ == "logistic"
    np.testing.assert_allclose(one_against_rest.predict_proba(X).sum(axis=1), 1.0)
    two = small(output_activation="softmax").fit(X, y > 0)
    assert two.n_outputs_ == 2
    assert two.logits(X).shape == (60,)
    np.testing.assert_array_equal(two.logits(X) > 0, two.predict(X))


def squared(outputs, targets, *, xp):
    error = outputs - targets
    return 0.5 * xp.sum(error * error, axis=-1), lambda dlosses: error * dlosses[..., None]


def twice_the_gradient(outputs, targets, *, xp):
    losses, pullback = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: 2.0 * pullback(dlosses)


def forgets_the_weights(outputs, targets, *, xp):
    losses, _ = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: outputs - targets


def test_a_custom_loss_matches_the_built_in_one(backend):
    X_here = backend.put(X)
    # JAX fills the last batch with samples of weight 0, which this loss would count.
    for n, weights in ((60, None), (60, np.linspace(0.0, 2.0, 60)), (50, None)):
        mine, named = (
            small(MLPRegressor, loss=loss).fit(X_here[:n, :], X[:n, 0], weights)
            for loss in (squared, losses.SquaredError())
        )
        np.testing.assert_allclose(mine.loss_curve_, named.loss_curve_, rtol=1e-10)
    for loss, message in (
        (twice_the_gradient, "finite difference"),
        (forgets_the_weights, r"loss forgets_the_weights .*multiplied by its arg"),
    ):
        with pytest.raises(ValueError, match=message):
            small(MLPRegressor, loss=loss).fit(X_here, X[:, 0])
    with pytest.raises(ValueError, match="finite difference"):
        small(loss=forgets_the_weights).fit(X_here, y > 0)


CURES = [
    (losses.SoftmaxCrossEntropy(), "'softmax' out.* results in 'logistic' .*: set .*='softmax'"),
    (losses.Custom(squared, "softmax"), "set output_activation='softmax'"),
    (losses.SquaredError(), r"'identity' .* use 'log_loss', or e.g. Through\(SquaredError"),
    (losses.Poisson(), "'exp' outputs, but output_activation='auto' results in 'logistic' for"),
    (losses.Through(losses.SquaredError(), "tanh"), "'tanh'.* with output_activation='logistic'"),
    (losses.Custom(squared), r"pass the function itself, or Custom\(\.\.\., 'logistic'\)"),
]
SEVERAL = (X[:, :3] > 0).astype(int)


@pytest.mark.parametrize(
    ("loss", "targets", "output", "cure"),
    [
        *((loss, y > 0, "auto", cure) for loss, cure in CURES),
        (losses.BinaryCrossEntropy(), y > 0, "softmax", "set output_activation='logistic'"),
        (losses.SoftmaxFocal(), SEVERAL, "auto", "'logistic' for multilabel targets: use 'log_l"),
        (losses.BinaryFocal(), y, "auto", "multiclass targets: set output_activation='logistic'"),
    ],
)
def test_a_loss_with_incompatible_outputs_is_rejected(loss, targets, output, cure):
    with pytest.raises(ValueError, match=cure):
        small(loss=loss, output_activation=output).fit(X, targets)


@pytest.mark.parametrize(
    ("loss", "output", "targets"),
    [
        (losses.SoftmaxCrossEntropy(), "softmax", (y > 0).astype(int)),
        (losses.BinaryCrossEntropy(), "logistic", y),
        (losses.Through(losses.SquaredError(), "logistic"), "auto", (y > 0).astype(int)),
        (losses.Through(losses.SquaredError(), "logistic"), "logistic", y),
        (losses.BinaryCrossEntropy(), "auto", SEVERAL),
    ],
)
def test_classification_losses_learn_with_compatible_outputs(loss, output, targets):
    model = small(**LONGER, learning_rate_init=0.01, loss=loss, output_activation=output)
    assert np.mean(model.fit(X, targets).predict(X) == targets) > 0.8


def test_a_regressor_with_a_classification_loss_estimates_probabilities():
    columns = np.eye(3)[y]
    model = small(MLPRegressor, **LONGER, loss=losses.SoftmaxCrossEntropy()).fit(X, columns)
    assert model.out_activation_ == "softmax"
    np.testing.assert_allclose(model.predict(X).sum(axis=1), 1.0)
    one = small(MLPRegressor, **LONGER, loss=losses.BinaryCrossEntropy()).fit(X, columns[:, 0])
    assert one.out_activation_ == "logistic"
    for loss, targets, message in (
        (losses.SoftmaxCrossEntropy(), y, "y must have several columns, .* to 1, got values from"),
        (losses.SoftmaxFocal(), 2 * columns, "rows that sum to 1"),
        (losses.BinaryCrossEntropy(), y, "y must be from 0 to 1, .* from 0 to 2 .* MLPClassifier"),
        (losses.BinaryFocal(), -columns, "from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            small(MLPRegressor, loss=loss).fit(X, targets)
    with pytest.raises(ValueError, match="y_val must be from 0 to 1"):
        one.fit(X, columns[:, 0], X_val=X, y_val=y)


@pytest.mark.parametrize("loss", ["absolute_error", losses.Quantile(0.5)])
def test_a_warm_start_can_change_the_loss(loss):
    y = X[:, :3] @ np.asarray([1.0, 2.0, 3.0])
    model = MLPRegressor(hidden_layer_sizes=20, learning_rate_init=0.01, random_state=0)
    model.set_params(warm_start=True, max_iter=100, n_iter_no_change=50).fit(X, y)
    n_epochs = len(model.loss_curve_)
    curve = model.set_params(loss=loss, n_iter_no_change=10).fit(X, y).loss_curve_[n_epochs:]
    assert len(curve) > 11  # The best of the loss before says nothing of this one.
    assert model.best_loss_ == min(curve)
    assert curve[-1] < curve[0] / 1.5


MEANINGS = [
    ({"loss": "squared_error"}, {"loss": "poisson"}, "'identity', but the settings now say 'exp'"),
    ({"loss": "gaussian"}, {"loss": losses.Quantile((0.1, 0.9))}, "'gaussian', .* 'quantiles'"),
    ({"precision": "auto"}, {"precision": "float32"}, "precision"),
    ({"input_scaling": None}, {"input_scaling": "zca"}, "input_scaling"),
    ({"output_activation": "auto"}, {"output_activation": "logistic"}, "out_activation_"),
]


@pytest.mark.parametrize(("first", "second", "message"), MEANINGS)
def test_warm_start_rejects_settings_it_cannot_change(first, second, message):
    kind, targets = (MLPRegressor, np.abs(X[:, 0])) if "loss" in first else (MLPClassifier, y)
    model = small(kind, **first, warm_start=True).fit(X, targets)
    predictions = model.predict(X)
    with pytest.raises(ValueError, match=f"{message}.*warm_start=False"):
        model.set_params(**second).fit(X, targets)
    np.testing.assert_array_equal(model.set_params(**first).predict(X), predictions)


def test_poisson_loss_rejects_negative_targets(backend):
    model = small(MLPRegressor, loss="poisson")
    counts = y.astype(float)
    with pytest.raises(ValueError, match=r"y must be at least 0 for the Poisson loss, got -3"):
        model.fit(backend.put(X), backend.put(np.where(y == 0, -3.0, counts)))
    with pytest.raises(ValueError, match=r"y_val must be at least 0 for the Poisson loss, got -1"):
        model.fit(backend.put(X), backend.put(counts), X_val=backend.put(X), y_val=-counts / 2)
    assert not hasattr(model, "coefs_")
