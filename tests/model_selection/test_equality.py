"""Every function and search returns what scikit-learn's returns for the same estimator."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from same_results import (
    GRID,
    PIPED_GRID,
    WEIGHTS,
    X,
    assert_same_results,
    assert_same_search,
    network,
    piped,
    y,
)
from scipy import sparse
from scipy.stats import loguniform
from sklearn import model_selection as theirs
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mlp_xp import MLPRegressor
from mlp_xp import model_selection as ours
from mlp_xp.augmentation import Mixup
from mlp_xp.optimizers import Muon
from mlp_xp.optimizers.schedules import OneCycle

CASES = [(network(), GRID), (piped(), PIPED_GRID)]
KINDS = pytest.mark.parametrize(("estimator", "grid"), CASES, ids=["alone", "pipeline"])


@KINDS
def test_grid_search(estimator, grid):
    settings = {"return_train_score": True, "scoring": ["accuracy", "neg_log_loss"]}
    searches = [
        module.GridSearchCV(estimator, grid, cv=3, refit="neg_log_loss", **settings).fit(X, y)
        for module in (ours, theirs)
    ]
    assert_same_search(*searches)


@KINDS
def test_randomized_search(estimator, grid):
    name = next(name for name in grid if name.endswith("learning_rate_init"))
    drawn = grid | {name: loguniform(0.001, 0.1)}
    settings = {"n_iter": 4, "random_state": 0, "cv": 2}
    searches = [
        module.RandomizedSearchCV(estimator, drawn, **settings).fit(X, y)
        for module in (ours, theirs)
    ]
    assert_same_search(*searches)


@KINDS
@pytest.mark.parametrize("resource", ["n_samples", "max_iter"])
@pytest.mark.parametrize("name", ["HalvingGridSearchCV", "HalvingRandomSearchCV"])
def test_successive_halving(estimator, grid, resource, name):
    settings = {"random_state": 0, "cv": 2, "factor": 2}
    if name == "HalvingRandomSearchCV":
        settings["n_candidates"] = 4
    if resource == "max_iter":
        prefix = "mlpclassifier__" if grid is PIPED_GRID else ""
        settings |= {"resource": f"{prefix}max_iter", "max_resources": 4}
    searches = [
        getattr(module, name)(estimator, grid, **settings).fit(X, y) for module in (ours, theirs)
    ]
    assert_same_search(*searches)


@KINDS
def test_cross_validation(estimator, grid):
    found, expected = (
        module.cross_validate(estimator, X, y, cv=3, return_train_score=True, return_estimator=True)
        for module in (ours, theirs)
    )
    models = found.pop("estimator"), expected.pop("estimator")
    for pair in zip(*models, strict=True):
        assert vars(pair[0]).keys() == vars(pair[1]).keys()
        np.testing.assert_array_equal(*(model.predict_proba(X) for model in pair))
    assert_same_results(found, expected)
    scores = [module.cross_val_score(estimator, X, y, cv=3) for module in (ours, theirs)]
    np.testing.assert_array_equal(*scores)


@KINDS
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_predictions(estimator, grid, method):
    predictions = [
        module.cross_val_predict(estimator, X, y, cv=3, method=method) for module in (ours, theirs)
    ]
    np.testing.assert_array_equal(*predictions)


@KINDS
def test_curves(estimator, grid):
    name = next(iter(grid))
    for curve, settings in (
        ("learning_curve", {"train_sizes": [0.3, 1.0], "shuffle": True, "random_state": 0}),
        ("validation_curve", {"param_name": name, "param_range": grid[name]}),
    ):
        found, expected = (
            getattr(module, curve)(estimator, X, y, cv=3, **settings) for module in (ours, theirs)
        )
        for pair in zip(found, expected, strict=True):
            np.testing.assert_array_equal(*pair)


def test_regression_with_early_stopping_and_seeds():
    model = MLPRegressor(hidden_layer_sizes=5, early_stopping=True, max_iter=60, batch_size=16)
    grid = {"random_state": range(2), "n_iter_no_change": [2, 4], "learning_rate_init": [0.1]}
    found, expected = (
        module.GridSearchCV(model, grid, cv=2, refit=False).fit(X[:, :3], X[:, 3])
        for module in (ours, theirs)
    )
    assert_same_results(found.cv_results_, expected.cv_results_)


@pytest.mark.parametrize("kind", ["frame", "list", "sparse"])
def test_other_data(kind):
    data = {"frame": pd.DataFrame(X, columns=list("abcd")), "list": X.tolist()}.get(
        kind, sparse.csr_array(X)
    )
    labels = ["abc"[i] for i in y]
    found, expected = (
        module.GridSearchCV(network(), GRID, cv=2, refit=False).fit(data, labels)
        for module in (ours, theirs)
    )
    assert_same_results(found.cv_results_, expected.cv_results_)


@pytest.mark.parametrize(("estimator", "name"), [(network(), ""), (piped(), "mlpclassifier__")])
def test_sample_weights(estimator, name):
    params = {f"{name}sample_weight": WEIGHTS}
    results = [
        module.cross_validate(estimator, X, y, cv=2, params=params) for module in (ours, theirs)
    ]
    assert_same_results(*results)
    unweighted = ours.cross_validate(estimator, X, y, cv=2, scoring="neg_log_loss")
    weighted = ours.cross_validate(estimator, X, y, cv=2, scoring="neg_log_loss", params=params)
    assert np.all(unweighted["test_score"] != weighted["test_score"])


def test_weights_of_another_length_are_the_estimators_error():
    messages = []
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="sample_weight") as caught:
            module.cross_val_score(
                network(), X, y, params={"sample_weight": [1.0, 2.0]}, error_score="raise"
            )
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_candidates_that_cannot_share_and_other_estimators():
    mixed = [{"solver": ["lbfgs"], "tol": [100.0]}, {"alpha": [0.0, 0.1]}]
    for estimator, grid in (
        (network(), mixed),
        (LogisticRegression(max_iter=1000), {"C": [0.1, 1]}),
    ):
        searches = [
            module.GridSearchCV(estimator, grid, cv=2).fit(X, y) for module in (ours, theirs)
        ]
        assert_same_search(*searches)


class Repeated(Pipeline):
    """A pipeline with a fit of its own, like those that draw samples anew."""

    n_fits = 0

    def fit(self, X, y=None, **params):
        type(self).n_fits += 1
        return super().fit(np.concatenate([X, X]), np.concatenate([y, y]), **params)


def test_a_pipeline_with_a_fit_of_its_own_is_fitted_by_it():
    pipeline = Repeated([("scale", StandardScaler()), ("network", network())])
    grid = {"network__alpha": [0.0, 0.1]}
    searches = [module.GridSearchCV(pipeline, grid, cv=2).fit(X, y) for module in (ours, theirs)]
    assert Repeated.n_fits == 10
    assert_same_search(*searches)


def squashed(x, *, xp):
    y = xp.tanh(x)
    return 2 * y, lambda dy: 2 * dy * (1 - y * y)


def cube(outputs, targets, *, xp):
    error = xp.abs(outputs - targets)
    derivative = 3 * error * (outputs - targets)
    return xp.sum(error**3, axis=-1), lambda dlosses: derivative * dlosses[..., None]


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
def test_settings_that_are_objects_or_have_a_state(backend_spec, settings):
    name, _, device = backend_spec.partition(":")
    model = network(batch_size=16, backend=name, device=device or None, **settings)
    grid = {"alpha": [0.0, 0.1], "learning_rate_init": [0.01, 0.05]}
    found, expected = (
        module.GridSearchCV(model, grid, cv=2, scoring="neg_log_loss", refit=False).fit(X, y)
        for module in (ours, theirs)
    )
    for scores in ("mean_test_score", "rank_test_score"):
        np.testing.assert_allclose(
            found.cv_results_[scores],
            expected.cv_results_[scores],
            rtol=0 if name == "numpy" else 1e-6,
        )


def test_a_loss_of_the_user():
    model = MLPRegressor(hidden_layer_sizes=5, loss=cube, max_iter=4, random_state=0)
    found, expected = (
        module.cross_val_score(model, X[:, :3], X[:, 3], cv=3) for module in (ours, theirs)
    )
    np.testing.assert_array_equal(found, expected)


def test_another_estimator_as_the_last_step_of_a_candidate():
    estimator = piped()
    grid = {"mlpclassifier": [LogisticRegression(max_iter=1000), network(alpha=1)]}
    searches = [module.GridSearchCV(estimator, grid, cv=2).fit(X, y) for module in (ours, theirs)]
    assert_same_search(*searches)


def test_a_step_that_works_in_parallel_itself():
    columns = ColumnTransformer([("first", StandardScaler(), [0, 1])], remainder="passthrough")
    estimator = make_pipeline(columns, network())
    grid = {"columntransformer__first": [StandardScaler(), MinMaxScaler()]}
    searches = [module.GridSearchCV(estimator, grid, cv=2).fit(X, y) for module in (ours, theirs)]
    assert_same_search(*searches)


def test_an_error_of_the_splits():
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="'groups' parameter should not be None"):
            module.cross_val_score(network(), X, y, cv=theirs.LeaveOneGroupOut())


def test_every_backend(backend):
    model = network(backend=backend.name, precision="float32")
    found, expected = (
        module.cross_validate(model, X, y, cv=3, scoring="neg_log_loss", return_estimator=True)
        for module in (ours, theirs)
    )
    np.testing.assert_allclose(found["test_score"], expected["test_score"], rtol=1e-4)
    iterations = [[model.n_iter_ for model in each["estimator"]] for each in (found, expected)]
    assert iterations[0] == iterations[1]


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_the_number_of_threads_changes_nothing(n_jobs):
    found, expected = (
        ours.GridSearchCV(network(), GRID, cv=2, n_jobs=jobs).fit(X, y) for jobs in (n_jobs, None)
    )
    assert_same_search(found, expected)


def test_no_threads_are_an_error_as_in_joblib():
    with pytest.raises(ValueError, match="n_jobs == 0 in Parallel has no meaning"):
        ours.cross_val_score(network(), X, y, n_jobs=0)
