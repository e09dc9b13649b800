"""Every function and search returns what scikit-learn's returns for the same estimator."""

import numpy as np
import pandas as pd
import pytest
from same_results import GRID, X, assert_same_results, network, y
from scipy import sparse
from scipy.stats import loguniform
from sklearn import model_selection as theirs
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mlp_xp import MLPRegressor
from mlp_xp import model_selection as ours
from mlp_xp.augmentation import Mixup
from mlp_xp.optimizers import Muon
from mlp_xp.optimizers.schedules import OneCycle


def piped(**params):
    return make_pipeline(StandardScaler(), PCA(3), network(**params))


WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, size=len(y))
PIPED_GRID = {"mlpclassifier__learning_rate_init": [0.01, 0.1], "pca__n_components": [2, 3]}
KINDS = pytest.mark.parametrize(
    ("estimator", "grid"), [(network(), GRID), (piped(), PIPED_GRID)], ids=["alone", "pipeline"]
)


def assert_same_search(found, expected) -> None:
    """Check that two fitted searches agree in everything that a user can read."""
    assert vars(found).keys() == vars(expected).keys()
    assert_same_results(found.cv_results_, expected.cv_results_)
    for name in ("best_index_", "best_params_", "best_score_", "n_splits_", "n_features_in_"):
        assert getattr(found, name) == getattr(expected, name), name
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


def call_both(name, *args, **settings):
    """Return the results of a function of both libraries, or their searches."""
    return [getattr(module, name)(*args, **settings) for module in (ours, theirs)]


def check_search(estimator, grid, name="GridSearchCV", cv=2, **settings):
    searches = call_both(name, estimator, grid, cv=cv, **settings)
    assert_same_search(*(search.fit(X, y) for search in searches))


@KINDS
def test_grid_search_matches_scikit_learn(estimator, grid):
    scoring = ["accuracy", "neg_log_loss"]
    settings = {"return_train_score": True, "scoring": scoring, "refit": "neg_log_loss"}
    check_search(estimator, grid, cv=3, **settings)


@KINDS
def test_randomized_search_matches_scikit_learn(estimator, grid):
    drawn = grid | {next(iter(grid)): loguniform(0.001, 0.1)}
    check_search(estimator, drawn, "RandomizedSearchCV", n_iter=4, random_state=0)


@KINDS
@pytest.mark.parametrize("resource", ["n_samples", "max_iter"])
@pytest.mark.parametrize("name", ["HalvingGridSearchCV", "HalvingRandomSearchCV"])
def test_successive_halving_matches_scikit_learn(estimator, grid, resource, name):
    settings = {"n_candidates": 4} if name == "HalvingRandomSearchCV" else {}
    if resource == "max_iter":
        prefix = "mlpclassifier__" if grid is PIPED_GRID else ""
        settings |= {"resource": f"{prefix}max_iter", "max_resources": 4}
    check_search(estimator, grid, name, random_state=0, factor=2, **settings)


@KINDS
def test_cross_validation_matches_scikit_learn(estimator, grid):
    settings = {"return_train_score": True, "return_estimator": True}
    found, expected = call_both("cross_validate", estimator, X, y, cv=3, **settings)
    for pair in zip(found.pop("estimator"), expected.pop("estimator"), strict=True):
        assert vars(pair[0]).keys() == vars(pair[1]).keys()
        np.testing.assert_array_equal(*(model.predict_proba(X) for model in pair))
    assert_same_results(found, expected)
    np.testing.assert_array_equal(*call_both("cross_val_score", estimator, X, y, cv=3))
    for method in ("predict", "predict_proba"):
        predictions = call_both("cross_val_predict", estimator, X, y, cv=3, method=method)
        np.testing.assert_array_equal(*predictions)


@KINDS
def test_learning_and_validation_curves_match_scikit_learn(estimator, grid):
    name = next(iter(grid))
    for curve, settings in (
        ("learning_curve", {"train_sizes": [0.3, 1.0], "shuffle": True, "random_state": 0}),
        ("validation_curve", {"param_name": name, "param_range": grid[name]}),
    ):
        results = call_both(curve, estimator, X, y, cv=3, **settings)
        for pair in zip(*results, strict=True):
            np.testing.assert_array_equal(*pair)


def test_regression_search_with_early_stopping_matches_scikit_learn():
    model = MLPRegressor(hidden_layer_sizes=5, early_stopping=True, max_iter=60, batch_size=16)
    grid = {"random_state": range(2), "n_iter_no_change": [2, 4], "learning_rate_init": [0.1]}
    searches = call_both("GridSearchCV", model, grid, cv=2, refit=False)
    assert_same_results(*(search.fit(X[:, :3], X[:, 3]).cv_results_ for search in searches))


@pytest.mark.parametrize(
    "data", [pd.DataFrame(X, columns=list("abcd")), X.tolist(), sparse.csr_array(X)], ids=type
)
def test_searches_accept_other_data_types(data):
    searches = call_both("GridSearchCV", network(), GRID, cv=2, refit=False)
    labels = ["abc"[i] for i in y]
    assert_same_results(*(search.fit(data, labels).cv_results_ for search in searches))


@pytest.mark.parametrize(("estimator", "name"), [(network(), ""), (piped(), "mlpclassifier__")])
def test_sample_weights_match_scikit_learn(estimator, name):
    params = {f"{name}sample_weight": WEIGHTS}
    assert_same_results(*call_both("cross_validate", estimator, X, y, cv=2, params=params))
    scoring = {"cv": 2, "scoring": "neg_log_loss"}
    unweighted = ours.cross_val_score(estimator, X, y, **scoring)
    assert np.all(unweighted != ours.cross_val_score(estimator, X, y, **scoring, params=params))


def score(module, **settings):
    return module.cross_val_score(network(), X, y, error_score="raise", **settings)


ERRORS = {
    "sample_weight": lambda module: score(module, params={"sample_weight": [1.0]}),
    "'groups' parameter should not": lambda module: score(module, cv=theirs.LeaveOneGroupOut()),
    "n_jobs == 0 in Parallel has no meaning": lambda module: score(module, n_jobs=0),
    **{
        message: lambda module, grid=grid: module.GridSearchCV(network(), grid, cv=2).fit(X, y)
        for message, grid in {"Invalid parameter": {"no": [1]}, "'alpha'": {"alpha": [-1]}}.items()
    },
}


@pytest.mark.parametrize("message", ERRORS)
def test_search_errors_match_scikit_learn(message):
    messages = set()
    for module in (ours, theirs):
        with pytest.raises(ValueError, match=message) as caught:
            ERRORS[message](module)
        messages.add(str(caught.value).strip().splitlines()[-1])
    assert len(messages) == 1


class Repeated(Pipeline):
    """A pipeline that overrides fit, as pipelines that resample do."""

    n_fits = 0

    def fit(self, X, y=None, **params):
        type(self).n_fits += 1
        return super().fit(np.concatenate([X, X]), np.concatenate([y, y]), **params)


FIRST_COLUMNS = ColumnTransformer([("first", StandardScaler(), [0, 1])], remainder="passthrough")
CANDIDATES = {
    "candidates that cannot share": (
        network(),
        [{"solver": ["lbfgs"], "tol": [100.0]}, {"alpha": [0.0, 0.1]}],
    ),
    "another estimator": (DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}),
    "a pipeline with its own fit": (
        Repeated([("scale", StandardScaler()), ("network", network())]),
        {"network__alpha": [0.0, 0.1]},
    ),
    "another estimator as the last step of a candidate": (
        piped(),
        {"mlpclassifier": [LogisticRegression(max_iter=1000), network(alpha=1)]},
    ),
    "a step that works in parallel itself": (
        make_pipeline(FIRST_COLUMNS, network()),
        {"columntransformer__first": [StandardScaler(), MinMaxScaler()]},
    ),
}


@pytest.mark.parametrize("kind", CANDIDATES)
def test_searches_over_all_kinds_of_candidates_match_scikit_learn(kind):
    Repeated.n_fits, (estimator, grid) = 0, CANDIDATES[kind]
    check_search(estimator, grid)
    assert Repeated.n_fits == (10 if isinstance(estimator, Repeated) else 0)


def squashed(x, *, xp):
    y = xp.tanh(x)
    return 2 * y, lambda dy: 2 * dy * (1 - y * y)


def mean_score(model, X, y):
    return float(np.mean(model.predict(X) == y)) + X.shape[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"random_state": np.random.RandomState(3)},
        {"activation": squashed},
        {"early_stopping": True, "scoring": mean_score, "n_iter_no_change": 2},
        {"learning_rate": OneCycle(), "solver": Muon(momentum=0.5)},
        {"augmentation": [Mixup(0.2)], "dropout": 0.1},
        {"warm_start": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.libraries("numpy", "torch")
def test_settings_that_are_objects_or_stateful_match_scikit_learn(backend_spec, settings):
    name, _, device = backend_spec.partition(":")
    model = network(batch_size=16, backend=name, device=device or None, **settings)
    grid = {"alpha": [0.0, 0.1], "learning_rate_init": [0.01, 0.05]}
    searches = call_both("GridSearchCV", model, grid, cv=2, scoring="neg_log_loss", refit=False)
    found, expected = (search.fit(X, y).cv_results_ for search in searches)
    for scores in ("mean_test_score", "rank_test_score"):
        rtol = 0 if name == "numpy" else 1e-6
        np.testing.assert_allclose(found[scores], expected[scores], rtol=rtol)


def test_cross_validation_matches_scikit_learn_on_every_backend(backend):
    model = network(backend=backend.name, precision="float32")
    settings = {"cv": 3, "scoring": "neg_log_loss", "return_estimator": True}
    found, expected = call_both("cross_validate", model, X, y, **settings)
    np.testing.assert_allclose(found["test_score"], expected["test_score"], rtol=1e-4)
    iterations = [[model.n_iter_ for model in each["estimator"]] for each in (found, expected)]
    assert iterations[0] == iterations[1]


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_search_results_do_not_depend_on_the_number_of_threads(n_jobs):
    found, expected = (
        ours.GridSearchCV(network(), GRID, cv=2, n_jobs=jobs).fit(X, y) for jobs in (n_jobs, None)
    )
    assert_same_search(found, expected)


def test_numpys_global_seed_determines_networks_without_random_state():
    model = network(random_state=None, batch_size=8).set_params(hidden_layer_sizes=100)
    settings = {"cv": 6, "scoring": "neg_log_loss", "return_estimator": True}
    wide, found = np.tile(X, 25), []  # Large enough for threads.
    for n_jobs in (2, 3):
        np.random.seed(0)  # noqa: NPY002
        result = ours.cross_validate(model, wide, y, n_jobs=n_jobs, **settings)
        found.append([*result["test_score"], np.random.random()])  # noqa: NPY002
        assert [own.random_state for own in result["estimator"]] == [None] * 6
    assert found[0] == found[1]
