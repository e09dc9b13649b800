"""The same arithmetic as scikit-learn's: same start, same steps, same losses."""

import inspect
import warnings

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_wine, make_moons, make_multilabel_classification
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from trainers import assert_close

import mlp_xp as ours

RNG = np.random.default_rng(0)
X = RNG.standard_normal((47, 6))
WEIGHTS = RNG.uniform(0.1, 3.0, 47)
TARGETS = {
    "binary": (X[:, 0] > 0).astype(int),
    "strings": np.where(X[:, 0] > 0, "yes", "no"),
    "multiclass": np.digitize(X[:, 0], [-0.5, 0.5]),
    "multilabel": make_multilabel_classification(47, n_classes=4, random_state=0)[1],
    "real": X[:, 0] * X[:, 1],
    "several": X[:, :3] ** 2,
    "counts": RNG.poisson(np.exp(0.5 * X[:, 0])),
}
KINDS = list(TARGETS)
REAL = ("real", "several", "counts")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def both(kind, **settings):
    if kind in REAL:
        settings["loss"] = "poisson" if kind == "counts" else "squared_error"
    name = "MLPRegressor" if kind in REAL else "MLPClassifier"
    defaults = {"hidden_layer_sizes": (7, 5), "random_state": 3, "shuffle": False}
    return [getattr(library, name)(**(defaults | settings)) for library in (ours, theirs)]


def assert_same_weights(mine, their, tolerance=1e-7):
    assert_close(mine.coefs_ + mine.intercepts_, their.coefs_ + their.intercepts_, atol=tolerance)


def partial_fits(pair, kind, weights=None):
    y = TARGETS[kind]
    classes = np.arange(4) if kind == "multilabel" else np.unique(y)
    first = {} if kind in REAL else {"classes": classes}
    for model in pair:
        for _ in range(3):
            model.partial_fit(X, y, sample_weight=weights, **first)


RULES = [
    *({"solver": "sgd"}, {"solver": "sgd", "momentum": 0.0}, {"solver": "adam"}),
    {"solver": "sgd", "momentum": 0.8, "nesterovs_momentum": False},
    {"solver": "adam", "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-6},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("settings", RULES, ids=str)
@pytest.mark.parametrize(("batch_size", "alpha"), [(10, 1e-4), (1, 0.0), (47, 1.0), ("auto", 0.05)])
def test_partial_fit_updates_weights_as_in_scikit_learn(kind, weights, settings, batch_size, alpha):
    settings = settings | {"batch_size": batch_size, "alpha": alpha, "learning_rate_init": 0.01}
    for activation in ("identity", "logistic", "tanh", "relu"):
        pair = both(kind, activation=activation, **settings)
        partial_fits(pair, kind, weights)
        assert_same_weights(*pair)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "adam", "max_iter": 30},
        {"solver": "adam", "max_iter": 30, "learning_rate": "invscaling"},
        {"solver": "adam", "max_iter": 60, "learning_rate": "adaptive", "tol": 0.05},
        {"solver": "sgd", "max_iter": 30, "learning_rate": "invscaling"},
        {"solver": "sgd", "max_iter": 60, "learning_rate": "adaptive", "tol": 0.05},
        {"solver": "adam", "max_iter": 400, "tol": 0.01, "n_iter_no_change": 3},
    ],
    ids=str,
)
def test_a_whole_fit_matches_scikit_learn(kind, settings):
    pair = both(kind, batch_size=10, **settings)
    mine, their = (model.fit(X, TARGETS[kind], sample_weight=WEIGHTS) for model in pair)
    for name in ("n_iter_", "t_", "out_activation_", "n_layers_", "n_outputs_", "n_features_in_"):
        assert getattr(mine, name) == getattr(their, name), name
    assert_same_weights(mine, their, 1e-6)
    for name in ("loss_", "best_loss_", "loss_curve_"):
        np.testing.assert_allclose(getattr(mine, name), getattr(their, name), rtol=1e-6)
    found, expected = mine.predict(X), their.predict(X)
    if kind in REAL:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(mine.classes_, their.classes_)
        np.testing.assert_allclose(mine.predict_proba(X), their.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(mine.predict_log_proba(X), their.predict_log_proba(X), atol=1e-4)
    for weights in (None, WEIGHTS):
        score, expected = (model.score(X, TARGETS[kind], weights) for model in (mine, their))
        assert score == pytest.approx(expected)


@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs", "tol": 1e-6}], ids=str)
def test_the_loss_of_several_outputs_is_reported_as_a_mean(settings):
    """A fit, its validation and `evaluate` report alike, and `tol` is compared with the mean."""
    y = TARGETS["several"]
    mine, _ = both("several", max_iter=100, alpha=0.0, **settings)
    mine.fit(X, y, X_val=X, y_val=y)
    expected = 0.5 * np.mean((mine.predict(X) - y) ** 2)
    assert mine.evaluate(X, y)["loss"] == pytest.approx(expected)
    assert mine.validation_loss_curve_[-1] == pytest.approx(expected)
    if settings:
        assert mine.loss_ == mine.loss_curve_[-1] == pytest.approx(expected)


def test_scikit_learn_example_gives_as_many_convergence_warnings():
    """The settings of scikit-learn's plot_mlp_training_curves, some of which converge in time."""
    X, y = make_moons(noise=0.3, random_state=0)
    X = MinMaxScaler().fit_transform(X)
    settings = [
        {"learning_rate": rate, "momentum": momentum, "nesterovs_momentum": ahead}
        for rate in ("constant", "invscaling")
        for momentum, ahead in ((0, True), (0.9, False), (1.0, True))
    ]
    ends = []
    for library in (ours, theirs):
        shared = {"solver": "sgd", "learning_rate_init": 0.2, "max_iter": 80, "random_state": 0}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for each in settings:
                model = library.MLPClassifier(**shared, **each).fit(X, y)
                ends.append((model.n_iter_, len(caught)))
    assert ends[:6] == ends[6:]
    assert 0 < ends[-1][1] < 6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "several"])
def test_lbfgs_follows_the_same_path_as_scikit_learn(kind):
    # For several outputs scikit-learn's loss and gradient do not belong together; see the next.
    pair = both(kind, solver="lbfgs", max_iter=15, activation="tanh")
    mine, their = (model.fit(X, TARGETS[kind], sample_weight=WEIGHTS) for model in pair)
    assert mine.n_iter_ == their.n_iter_
    assert mine.loss_ == pytest.approx(their.loss_, rel=1e-7)
    assert_same_weights(mine, their, 1e-5)


def test_lbfgs_makes_progress_with_very_many_outputs():
    """Scikit-learn takes no step: its loss, a mean, falls by less than its gradient promises."""
    y = np.tanh(X @ RNG.standard_normal((6, 1500)))
    mine, their = both("several", solver="lbfgs", max_iter=20)
    assert their.fit(X, y).n_iter_ == 0
    assert mine.fit(X, y).loss_ < 0.6 * their.loss_


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_log_loss_is_clipped_as_in_scikit_learn(kind, solver):
    """On unscaled wine data, most predictions are at first certain, and many are wrong."""
    data, y = load_wine(return_X_y=True)
    y = {"binary": y == 1, "multiclass": y, "multilabel": np.eye(3, dtype=int)[y]}[kind]
    settings = {"learning_rate_init": 1e-5} if solver == "sgd" else {"max_iter": 3, "tol": 1e3}
    pair = both(kind, solver=solver, hidden_layer_sizes=(100,), **settings)
    mine, their = (model.fit(data, y) for model in pair)
    assert mine.n_iter_ == their.n_iter_
    # scikit-learn computes log(1 - p), which loses digits for p near 1.
    rel = 1e-4 if kind == "multilabel" else 1e-6
    assert mine.loss_ == pytest.approx(their.loss_, rel=rel)
    if solver == "sgd":
        np.testing.assert_allclose(mine.loss_curve_, their.loss_curve_, rtol=rel)
        assert mine.loss_curve_[0] > 10


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "real"])
def test_early_stopping_follows_scikit_learns_rule(kind):
    """Both use the same held-out samples: ours is given the samples that scikit-learn chose."""
    settings = {"max_iter": 300, "batch_size": 10, "tol": 0.01, "n_iter_no_change": 4}
    mine, their = both(kind, early_stopping=True, **settings)
    y = TARGETS[kind]
    their.fit(X, y)
    # scikit-learn splits with the generator that drew the weights.
    state = np.random.RandomState(3)
    for fan_in, fan_out in zip((6, 7, 5), (7, 5, their.n_outputs_), strict=True):
        state.uniform(size=(fan_in + 1) * fan_out)
    X_fit, X_val, y_fit, y_val = train_test_split(
        X, y, random_state=state, test_size=0.1, stratify=y if kind == "binary" else None
    )
    mine.fit(X_fit, y_fit, X_val=X_val, y_val=y_val)
    assert mine.n_iter_ == their.n_iter_
    np.testing.assert_allclose(mine.validation_scores_, their.validation_scores_, atol=1e-6)
    assert mine.best_validation_score_ == pytest.approx(their.best_validation_score_)
    assert mine.best_loss_ is their.best_loss_ is None
    assert_same_weights(mine, their, 1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "lbfgs", "early_stopping": True},
        {"shuffle": False},
        {"solver": "sgd", "batch_size": 10},
        {"early_stopping": True, "warm_start": True},
        {"early_stopping": True, "shuffle": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "real"])
def test_random_generator_ends_in_the_same_state_as_in_scikit_learn(kind, settings, monkeypatch):
    left = []
    for number in range(2):
        for generator in (None, np.random.RandomState(7)):
            given = {"shuffle": True, "random_state": generator, "max_iter": 3}
            model = both(kind, **given | settings)[number]
            monkeypatch.setattr(np.random.mtrand, "_rand", np.random.RandomState(7))
            model.fit(X, TARGETS[kind]).fit(X, TARGETS[kind])
            if settings.keys() <= {"solver", "batch_size"}:
                model.partial_fit(X, TARGETS[kind])
            used = generator or np.random.mtrand._rand
            left.append(used.randint(2**31, size=3).tolist())
    assert left == [left[0]] * 4


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_every_scikit_learn_parameter_has_the_same_default_and_position(name):
    kinds = [getattr(library, name) for library in (ours, theirs)]
    mine, their = (inspect.signature(kind).parameters for kind in kinds)
    for parameter in their.values():
        assert mine[parameter.name].default == parameter.default
        assert mine[parameter.name].kind == parameter.kind
    assert [p for p in mine if p in their] == list(their)
    for method in ("fit", "partial_fit", "predict", "score"):
        mine, their = (list(inspect.signature(getattr(k, method)).parameters) for k in kinds)
        assert mine[: len(their)] == their


@pytest.mark.parametrize("kind", ["multiclass", "real"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_every_fitted_attribute_of_scikit_learn_exists(kind, solver):
    mine, their = (each.fit(X, TARGETS[kind]) for each in both(kind, solver=solver, max_iter=3))
    for attribute in (n for n in vars(their) if n.endswith("_") and not n.startswith("_")):
        a, b = getattr(mine, attribute), getattr(their, attribute)
        is_count = isinstance(a, int) or attribute == "best_validation_score_"
        assert type(a) is type(b) or is_count, attribute
    assert {type(loss) for loss in (mine.loss_, mine.best_loss_, *mine.loss_curve_)} == {np.float64}
