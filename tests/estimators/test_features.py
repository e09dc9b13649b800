"""What docs/features.md promises: each feature of ours names a test, and that test exists.

Features that no other file shows are shown here, through the public interface alone.
"""

from __future__ import annotations

import ast
import functools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import problem, small, tolerance
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_validate

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.nn.layers import tanh
from mlp_xp.optimizers import SGD, AdamW, ByKind, Muon
from mlp_xp.optimizers.schedules import InvScaling

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "features.md"
OURS = "mlp_xp"
LINK = re.compile(r"\[test\]\(\.\./(tests/[\w/]+\.py)\) `(\w+)`")


def rows() -> list[dict[str, str]]:
    """Return the rows of all tables that have a column of ours."""
    found, names = [], None
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            names = None
        elif names is None:
            names = cells
        elif not set(line) <= set("|-: ") and OURS in names:
            assert len(cells) == len(names), line
            found.append(dict(zip(names, cells, strict=True)))
    return found


@functools.cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["feature"])
def test_each_row_says_yes_partly_or_no_and_names_a_test_of_ours(row):
    for name, cell in row.items():
        if name != "feature":
            assert re.match(r"(yes|no|partly)\b", cell), f"{name}: {cell}"
    links = LINK.findall(row[OURS])
    assert bool(links) != row[OURS].startswith("no"), row[OURS]
    for path, function in links:
        assert function.startswith("test_")
        assert (ROOT / path).is_file(), path
        assert function in functions(path), f"{path} has no {function}"


def test_the_table_is_whole():
    table = rows()
    assert len(table) > 40
    features = [row["feature"] for row in table]
    assert len(set(features)) == len(features)
    peers = {"feature", OURS, "scikit-learn", "skorch", "Keras", "thinc", "pytabkit"}
    assert all(set(row) == peers for row in table)


# --- features that no other file shows ---------------------------------------------------------


def test_the_samples_of_the_user_decide():
    X, y = problem()
    seen = []

    def scorer(model, X, y):
        seen.append(np.asarray(X))
        return float(f1_score(y, model.predict(X), average="macro"))

    model = small(early_stopping=True, scoring=scorer).fit(
        X[:40], y[:40], X_val=X[40:], y_val=y[40:]
    )
    assert all(np.array_equal(given, X[40:]) for given in seen)
    best = f1_score(y[40:], model.predict(X[40:]), average="macro")
    assert best == model.best_validation_score_ == max(model.validation_scores_)


def test_the_weights_of_the_best_epoch_come_back():
    X, y = problem()
    scores = iter([0.0, 0.1, 0.9, 0.2, 0.3, 0.4])  # The first is a trial, before any epoch.
    model = small(early_stopping=True, scoring=lambda *_: next(scores))
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    two = small(max_iter=2).fit(X[:40], y[:40])
    np.testing.assert_array_equal(model.coefs_[0], two.coefs_[0])


def test_class_weights_are_sample_weights():
    X, y = problem()
    weights = {0: 3.0, 1: 1.0, 2: 0.5}
    by_class = small(class_weight=weights).fit(X, y)
    by_sample = small().fit(X, y, sample_weight=[weights[label] for label in y])
    np.testing.assert_array_equal(by_class.coefs_[0], by_sample.coefs_[0])


def test_lbfgs_has_a_curve_that_falls():
    X, y = problem()
    model = small(solver="lbfgs", max_iter=100).fit(X, y)
    assert model.loss_curve_[-1] == model.loss_ == model.best_loss_ < model.loss_curve_[0] / 10


@pytest.mark.parametrize("solver", ["adamw", "rmsprop", "lion", "muon", "beta_lasso"])
def test_more_rules_than_scikit_learn_has(solver):
    X, y = problem()
    model = small(solver=solver, learning_rate_init=0.01, max_iter=20).fit(X, y)
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]


def test_each_kind_of_parameter_has_its_own_rule():
    X, y = problem()
    rule = ByKind(Muon(), AdamW(), SGD(momentum=0.0), vector_rate=0.0, head_rate=5.0)
    start, model = (
        small(solver=rule, learning_rate_init=rate, max_iter=20).fit(X, y)
        for rate in (1e-300, 0.01)
    )
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]
    for weights, before in zip(model.coefs_, start.coefs_, strict=True):
        assert np.abs(weights - before).max() > 0.01
    for bias, before in zip(model.intercepts_, start.intercepts_, strict=True):
        np.testing.assert_array_equal(bias, before)


def rates(**settings):
    return [r.learning_rate for r in small(**settings).fit(*problem()).history_]


def test_a_schedule_counts_for_adam_too():
    for schedule in ("cosine", InvScaling()):
        found = rates(learning_rate=schedule)
        assert found == sorted(found, reverse=True)
        assert found[-1] < found[0]


@pytest.mark.parametrize("schedule", ["invscaling", "adaptive"])
@pytest.mark.parametrize("solver", ["adam", "lion", AdamW()])
def test_schedules_that_scikit_learn_has_for_sgd_are_for_sgd_alone(schedule, solver):
    settings = {"learning_rate": schedule, "tol": 10.0, "n_iter_no_change": 2}
    assert len(set(rates(solver=solver, **settings))) == 1
    assert len(set(rates(solver=SGD(), **settings))) > 1


def test_a_moving_average_of_the_weights_predicts():
    X, y = problem()
    plain, average = (small(ema_decay=decay).fit(X, y) for decay in (None, 0.9))
    assert plain.loss_curve_ == average.loss_curve_
    assert not np.array_equal(plain.coefs_[0], average.coefs_[0])


def test_each_layer_has_its_own_activation():
    X, y = problem()
    model = small(hidden_layer_sizes=(5, 4), activation=["tanh", "identity"]).fit(X, y)
    first = np.tanh(X @ model.coefs_[0] + model.intercepts_[0])
    np.testing.assert_allclose(model.hidden_activations(X, 0), first, rtol=1e-10)
    second = first @ model.coefs_[1] + model.intercepts_[1]
    np.testing.assert_allclose(model.hidden_activations(X), second, rtol=1e-10)


def test_an_activation_of_the_users_own():
    X, y = problem()

    def mine(x, *, xp):
        return tanh(x, xp=xp)

    own, ours = (small(activation=f).fit(X, y) for f in (mine, "tanh"))
    np.testing.assert_array_equal(own.coefs_[0], ours.coefs_[0])
    with pytest.raises(ValueError, match="finite difference"):
        small(activation=lambda x, *, xp: (xp.tanh(x), lambda dy: dy)).fit(X, y)


def test_a_residual_layer_adds_its_input():
    X, y = problem()
    model = small(hidden_layer_sizes=(5, 5), residual=True).fit(X, y)
    first = model.hidden_activations(X, 0)
    added = np.maximum(first @ model.coefs_[1] + model.intercepts_[1], 0)
    np.testing.assert_allclose(model.hidden_activations(X, 1), first + added, rtol=1e-10)


@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_normalization_has_parameters_that_learn(normalization):
    X, y = problem()
    model = small(normalization=normalization).fit(X, y)
    ((scale, shift),) = model.norms_
    assert scale.shape == shift.shape == (8,)
    assert np.any(scale != 1)


def test_sparse_input_gives_what_dense_input_gives():
    X, y = problem()
    X[X < 0] = 0
    dense, sparse = small().fit(X, y), small().fit(csr_array(X), y)
    np.testing.assert_allclose(dense.coefs_[0], sparse.coefs_[0], rtol=1e-12)
    np.testing.assert_allclose(
        dense.predict_proba(X), sparse.predict_proba(csr_array(X)), rtol=1e-12
    )


def test_several_classes_at_once():
    X, y = problem()
    Y = np.stack([y == 0, y > 0], axis=1).astype(int)
    model = small(max_iter=60, learning_rate_init=0.02).fit(X, Y)
    assert model.predict(X).shape == Y.shape
    assert model.score(X, Y) > 0.9


def test_several_real_values_at_once():
    X, _ = problem()
    model = MLPRegressor(solver="lbfgs", max_iter=2000, max_fun=3000, tol=1e-3, random_state=0)
    assert model.fit(X, np.sin(X[:, :2])).predict(X).shape == (60, 2)
    assert model.score(X, np.sin(X[:, :2])) > 0.95


@pytest.mark.parametrize(
    "loss", ["squared_error", "absolute_error", "huber", "quantile", "poisson"]
)
def test_a_regressor_has_five_losses(loss):
    X, _ = problem()
    model = MLPRegressor(loss=loss, max_iter=20, learning_rate_init=0.01, random_state=0)
    model.fit(X, np.exp(0.3 * X[:, 0]))
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_a_warm_start_keeps_the_optimizers_state():
    X, y = problem()
    whole = small(max_iter=6).fit(X, y)
    parts = small(max_iter=3, warm_start=True).fit(X, y)
    parts = pickle.loads(pickle.dumps(parts)).fit(X, y)  # noqa: S301
    np.testing.assert_array_equal(whole.coefs_[0], parts.coefs_[0])


def test_several_metrics_in_one_pass():
    X, y = problem()
    model = small().fit(X, y)
    scores = model.evaluate(X, y, metrics=["accuracy", "neg_log_loss", "f1_macro"])
    assert list(scores) == ["loss", "accuracy", "neg_log_loss", "f1_macro"]
    assert scores["accuracy"] == model.score(X, y)
    np.testing.assert_allclose(scores["loss"], -scores["neg_log_loss"], rtol=1e-10)


def test_the_history_is_a_table():
    pandas = pytest.importorskip("pandas")
    X, y = problem()
    model = small().fit(X, y)
    frame = pandas.DataFrame(model.history_)
    assert frame["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert frame["loss"].tolist() == model.loss_curve_


def test_a_summary_counts_the_parameters():
    X, y = problem()
    model = small().fit(X, y)
    n_parameters = sum(array.size for array in model.coefs_ + model.intercepts_)
    (total,) = re.findall(r"in all +([\d,]+)", str(model.summary()))
    assert int(total.replace(",", "")) == n_parameters


def test_a_notebook_shows_it():
    assert "MLPClassifier" in MLPClassifier()._repr_html_()


def test_metadata_is_routed():
    X, y = problem()
    weights = np.where(y == 0, 5.0, 1.0)
    with config_context(enable_metadata_routing=True):
        model = small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = cross_validate(
            model, X, y, cv=2, params={"sample_weight": weights}, return_estimator=True
        )
    assert (
        routed["estimator"][0].loss_
        != cross_validate(small(), X, y, cv=2, return_estimator=True)["estimator"][0].loss_
    )


def test_scikit_learns_callbacks_watch():
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
    X, y = problem()
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = small().set_callbacks(monitor).fit(X, y)
    assert len(model.history_) == 5
    assert monitor.get_logs()


def test_it_says_that_it_takes_any_library():
    assert MLPClassifier().__sklearn_tags__().array_api_support


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.3, "input_dropout": 0.1}], ids=str)
def test_the_same_numbers_on_all_backends(backend, settings):
    X, y = problem()
    X = X if backend.has_float64 else X.astype("float32")
    here = small(backend="numpy", **settings).fit(X, y)
    there = small(backend=backend.name, device=backend.device, **settings).fit(X, y)
    dtype = "float64" if backend.has_float64 else "float32"
    np.testing.assert_allclose(here.loss_curve_, there.loss_curve_, rtol=tolerance(dtype, 60))


def test_predictions_keep_to_the_working_memory():
    X, y = problem()
    model = small().fit(X, y)
    whole = model.predict_proba(np.tile(X, (50, 1)))
    with config_context(working_memory=0.01):
        parts = model.predict_proba(np.tile(X, (50, 1)))
    np.testing.assert_allclose(whole, parts, rtol=0, atol=tolerance("float64"))


def test_gradients_are_clipped():
    X, y = problem()
    settings = {"solver": "sgd", "momentum": 0.0, "alpha": 0.0, "batch_size": 60, "max_iter": 1}
    start = small(learning_rate_init=1e-30, **settings).fit(X, y)
    moved = small(learning_rate_init=1.0, max_grad_norm=0.01, **settings).fit(X, y)
    step = [
        after - before
        for after, before in zip(
            moved.coefs_ + moved.intercepts_, start.coefs_ + start.intercepts_, strict=True
        )
    ]
    np.testing.assert_allclose(np.sqrt(sum(np.sum(s**2) for s in step)), 0.01, rtol=1e-6)
