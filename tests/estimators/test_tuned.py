"""Tuned ensembles: what is tried, what is held out, what is selected, and what they predict."""

import re
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPClassifier, MLPRegressor, MLPTunedClassifier, MLPTunedRegressor
from mlp_xp.callbacks import Callback, SearchCheckpoint
from mlp_xp.estimators import tuned as tuned_module
from mlp_xp.estimators.tuning.folds import random_folds, time_folds
from mlp_xp.estimators.tuning.selection import allocate, select

X, y = load_iris(return_X_y=True)
QUICK = {"max_iter": 3, "n_iter_no_change": np.inf, "learning_rate": "cosine", "batch_size": 20}
VALUES = X[:, 3]


def tuned(kind=MLPClassifier, network=(), **params):
    classes = {MLPClassifier: MLPTunedClassifier, MLPRegressor: MLPTunedRegressor}
    own = {"hidden_layer_sizes": 5, "input_scaling": "standardize"} | QUICK | dict(network)
    settings = {"n_configurations": 5, "n_folds": 3, "random_state": 0} | params
    return classes[kind](kind(**own), **settings)


def same(mine, theirs):
    for first, second in zip(mine.estimators_, theirs.estimators_, strict=True):
        np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])
    np.testing.assert_array_equal(mine.weights_, theirs.weights_)


def test_a_search_over_a_fixed_number_of_configurations_is_reproducible():
    first, again = (tuned(n_configurations=3, n_jobs=n).fit(X, y) for n in (1, 2))
    same(first, again)
    for name in ("loss", "params", "weight", "status"):
        assert first.search_results_[name] == again.search_results_[name]
    other = tuned(n_configurations=2, random_state=1).fit(X, y)
    assert other.search_results_["params"][1] != first.search_results_["params"][1]


@pytest.mark.parametrize(
    ("kind", "method", "target"),
    [
        (MLPClassifier, "predict_proba", y),
        (MLPClassifier, "predict_proba", y == 1),
        (MLPRegressor, "predict", VALUES),
        (MLPRegressor, "predict", X[:, 2:]),
    ],
)
def test_tuned_predictions_are_weighted_means_and_standard_deviations(kind, method, target):
    model = tuned(kind).fit(X, target)
    assert len(np.unique(model.weights_)) > 1 or len(model.weights_) in (3, 6, 9)
    assert model.weights_.sum() == pytest.approx(1.0)
    each = np.stack([getattr(network, method)(X) for network in model.estimators_])
    mean, std = getattr(model, method)(X, return_std=True)
    expected = np.average(each, axis=0, weights=model.weights_)
    np.testing.assert_allclose(mean, expected, rtol=1e-9)
    variance = np.average((each - expected) ** 2, axis=0, weights=model.weights_)
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-6, atol=1e-9)


def test_the_loss_is_measured_on_out_of_fold_outputs():
    model = tuned().fit(X, y)
    assert not np.isnan(model.out_of_fold_).any()
    assert model.loss_ == pytest.approx(log_loss(y, model.out_of_fold_))
    results = model.search_results_
    assert model.loss_ <= min(results["loss"]) + 1e-9
    assert sum(results["weight"]) == pytest.approx(1.0)
    assert {len(rows) for rows in results.values()} == {5}
    assert results["name"][:1] == ["base"]
    regressor = tuned(MLPRegressor).fit(X, VALUES)
    error = mean_squared_error(VALUES, regressor.out_of_fold_[:, 0])
    assert regressor.loss_ == pytest.approx(error / 2)  # scikit-learn halves it too.


def test_losses_with_a_standard_deviation_select_by_mixture_likelihood():
    model = tuned(MLPRegressor, {"loss": "gaussian"}).fit(X, VALUES)
    mean, std = model.out_of_fold_.T
    density = 0.5 * ((VALUES - mean) / std) ** 2 + np.log(std * np.sqrt(2 * np.pi))
    assert model.loss_ == pytest.approx(np.mean(density), rel=1e-4)


def test_configurations_for_tables_come_from_the_recipe():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(list("xyz"), size=60)})
    target = np.where(frame["a"] > 0, "p", "q")
    settings = {"n_configurations": 7, "n_folds": 2, "random_state": 0, "max_iter": 1}
    model = MLPClassifier.from_recipe("table-tuned", **settings).fit(frame, target)
    assert type(model) is MLPTunedClassifier
    names = model.search_results_["name"]
    assert names == [
        "base",
        "wide",
        "TabM",
        "less decay",
        "random MLP",
        "random TabM",
        "random MLP",
    ]
    assert all(network.columns_ is model.columns_ for network in model.estimators_)
    assert model.predict(frame).shape == (60,)
    more = MLPClassifier.from_recipe("table-tuned", **settings | {"n_configurations": 5})
    params = more.fit(frame, target).search_results_["params"]
    assert params == model.search_results_["params"][:5]  # However many are tried.


def test_greedy_selection_finds_the_best_weights():
    truth = np.zeros((50, 1))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(50, 1))
    outputs = [truth + noise, truth - noise / 2, truth + 10.0]
    weights = select(outputs, lambda array: float(np.mean(array**2)))
    np.testing.assert_allclose(weights, [1 / 3, 2 / 3, 0.0], atol=0.02)
    # The configuration with the highest weight predicts with more networks; the cost is limited.
    assert allocate(weights, [5, 5, 5], [1, 1, 1], 6) == [2, 4, 0]
    assert allocate(weights, [5, 5, 5], [1, 8, 1], 10) == [2, 1, 0]
    assert allocate(weights, [5, 5, 5], [20, 20, 1], 10) == [0, 1, 0]


def test_max_predict_cost_limits_the_number_of_networks():
    assert len(tuned(max_predict_cost=2).fit(X, y).estimators_) == 2
    assert len(tuned(n_configurations=1).fit(X, y).estimators_) == 3
    members = {"n_members": 4}  # Each member of a TabM costs as much as a network.
    assert len(tuned(network=members, max_predict_cost=8).fit(X, y).estimators_) == 2


def test_each_group_is_held_out_as_a_whole():
    groups = np.arange(60) // 3
    labels = np.arange(60) % 2
    folds = random_folds([labels], 60, 5, groups, seed=0).folds
    for train, held_out in folds:
        assert not np.intersect1d(groups[train], groups[held_out]).size
    assert sorted(np.concatenate([fold.held_out for fold in folds])) == [*range(60)]
    model = tuned(n_configurations=1).fit(X, y, groups=np.arange(150) % 5)
    assert np.isfinite(model.loss_)


def test_time_splits_hold_out_later_rows():
    times = np.random.default_rng(0).permutation(np.arange(60) // 2)
    folds = time_folds([], times, 4).folds
    assert len(folds) == 4
    for train, held_out in folds:
        assert times[train].max() < times[held_out].min()
    newest = folds[0].held_out
    assert times[newest].max() == times.max()
    frame = pd.DataFrame(X).rename(columns=str)
    frame["day"] = pd.date_range("2024-01-01", periods=150)
    order = np.random.default_rng(1).permutation(150)
    model = tuned(MLPRegressor, {"categorical_features": "from_dtype"}, split="time")
    model.set_params(time_column="day", n_configurations=2).fit(frame.iloc[order], VALUES[order])
    unseen = np.isnan(model.out_of_fold_[:, 0])
    assert frame["day"].to_numpy()[order][unseen].max() < np.datetime64("2024-02-10")
    assert len(model.estimators_) <= 2  # One network each, of the newest fold.


def test_classes_that_appear_only_late_are_learned():
    labels = np.repeat([0, 1, 0, 2], [30, 20, 5, 5])  # In the order of time.
    folds, notes = time_folds([labels], np.arange(60), 5)
    assert notes == [
        "5 rows are trained on and not held out, because their classes appear only in the newest "
        "fold.",
        "4 folds are left out, because the rows before them do not have all classes.",
    ]
    [(train, held_out)] = folds
    assert set(labels[train]) == {0, 1, 2}
    assert held_out.tolist() == [50, 51, 52, 53, 54]
    with pytest.raises(ValueError, match="newest rows only have classes that do not"):
        time_folds([np.repeat([0, 1], [50, 10])], np.arange(60), 5)
    model = tuned(split="time", time_column=4, n_configurations=1)
    with pytest.warns(UserWarning, match="left out, because the rows before them do not have all"):
        model.fit(np.column_stack([X, np.arange(150.0)]), y)
    assert model.classes_.tolist() == [0, 1, 2]


def test_a_rare_class_is_learned_in_every_fold():
    rare = y.copy()
    rare[0] = 7
    with pytest.warns(UserWarning, match="^1 rows are trained on in every fold and held out by no"):
        model = tuned(n_configurations=1).fit(X, rare)
    assert model.classes_.tolist() == [0, 1, 2, 7]
    assert all(len(network.classes_) == 4 for network in model.estimators_)
    assert np.flatnonzero(np.isnan(model.out_of_fold_[:, 0])).tolist() == [0]
    rare[1] = 7  # Two rows in three folds need no special treatment.
    assert tuned(n_configurations=1).fit(X, rare).classes_.tolist() == [0, 1, 2, 7]
    # All rows of class 2 are in one group, so this group is always learned.
    groups = np.where(y == 2, 99, np.arange(150) % 10)
    with pytest.warns(UserWarning, match="^50 rows are trained on in every fold"):
        model = tuned(n_configurations=1).fit(X, y, groups=groups)
    assert all(len(network.classes_) == 3 for network in model.estimators_)


def test_constant_columns_in_a_fold_and_a_single_class_are_not_errors():
    frame = pd.DataFrame(X).rename(columns=str)
    frame["flag"] = np.where(np.arange(150) == 5, "yes", "no")
    frame["seldom"] = np.where(np.arange(150) == 5, 1.0, np.nan)
    table = {"categorical_features": "from_dtype", "missing_values": "impute"}
    model = tuned(network=table, n_configurations=2).fit(frame, y)
    assert model.predict(frame).shape == (150,)
    with pytest.warns(UserWarning, match="^All targets are equal, so only the first configurati"):
        model = tuned().fit(X, np.full(150, "a"))
    assert model.predict(X[:2]).tolist() == ["a", "a"]


@pytest.mark.parametrize(
    ("target", "rows", "settings", "message"),
    [
        (np.ones(150), 150, {}, "^All targets are equal, so only the first conf"),
        (
            VALUES,
            40,
            {},
            r"^40 rows are too few to compare conf.* \(at least 50\), so",
        ),
        (VALUES, 150, {"groups": np.arange(150) % 2}, "^There are 2 groups, so 2 folds are used"),
    ],
)
def test_data_unsuitable_for_a_search_are_fitted_with_a_warning(target, rows, settings, message):
    with pytest.warns(UserWarning, match=message):
        model = tuned(MLPRegressor).fit(X[:rows], target[:rows], **settings)
    n_tried = 5 if settings else 1
    assert len(model.search_results_["name"]) == n_tried
    assert model.predict(X).shape == (150,)


def test_too_little_time_for_a_search_fits_one_network():
    slow = {"max_iter": 10_000_000}
    with pytest.warns(UserWarning, match=r"^0.5 s are too short for a search, since one fit takes"):
        model = tuned(network=slow, n_configurations=None, max_time=0.5).fit(X, y)
    assert len(model.estimators_) == 1
    assert model.search_results_["folds"] == [1]
    assert model.predict(X).shape == (150,)
    assert model.estimators_[0].max_time is None


@pytest.mark.filterwarnings("ignore:0.5 s are too short")  # On a slow machine.
def test_a_search_ends_at_its_time_limit():
    model = tuned(n_configurations=None, max_time=0.5).fit(X, y)
    assert len(model.search_results_["name"]) >= 1
    model = tuned(network={"callbacks": [Interrupt(after=7)]}, n_configurations=None, n_jobs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    told, interrupted = (str(one.message) for one in caught)
    assert told.startswith("`max_time` is not set: the search takes up to 60 s. Set `max_time`")
    assert interrupted.startswith("Training interrupted by user")


class Interrupt(Callback):
    """Press Ctrl-C after some epochs of any networks."""

    def __init__(self, after):
        self.left = [after]

    def __deepcopy__(self, memo):
        return self

    def on_epoch_end(self, model, record):
        self.left[0] -= 1
        if self.left[0] == 0:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_keeps_the_best_configurations_so_far():
    settings = {"callbacks": [Interrupt(after=3 * 3 + 4)]}
    with pytest.warns(UserWarning, match="^Training interrupted by user: 1 complete conf"):
        model = tuned(network=settings, n_jobs=1).fit(X, y)
    assert model.search_results_["status"] == ["complete", "not finished"]
    assert model.score(X, y) > 0.3
    with pytest.raises(KeyboardInterrupt):
        tuned(network={"callbacks": [Interrupt(after=1)]}, n_jobs=1).fit(X, y)


def test_invalid_search_settings_and_data_say_what_to_pass():
    for model, message in (
        (MLPTunedClassifier(MLPRegressor()), "must be an MLPClassifier or None, got MLPRegressor"),
        (MLPTunedRegressor(n_jobs=0), "`n_jobs` must not be 0: use 1"),
        (MLPTunedRegressor(max_time=0), "max_time"),
        (tuned(split="time"), "`time_column` must be the name or position of a column of X"),
        (tuned(split="time", time_column=9), "`time_column` must be a column of X, got 9"),
        (tuned(time_column=1), "`time_column` is only used with split='time': set it, too"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            model.fit(X, y)
    for target, fit_params, message in (
        (np.where(np.arange(150) == 3, np.nan, VALUES), {}, "Input y contains NaN, in row 3: leav"),
        (VALUES[:1], {}, "Folds need at least 2 rows, got n_samples=1"),
        (VALUES, {"groups": [1, 2]}, "`groups` must have shape (150,), got (2,)"),
        (VALUES, {"groups": np.ones(150)}, "Folds need at least 2 groups, got 1: leave out group"),
    ):
        model = tuned(MLPRegressor)
        with pytest.raises(ValueError, match=re.escape(message)):
            model.fit(X[: len(target)], target, **fit_params)
        assert not hasattr(model, "estimators_")
    with pytest.raises(ValueError, match="try a smaller learning_rate_init"):
        tuned(MLPRegressor, {"solver": "sgd", "learning_rate_init": 1e30}).fit(X, VALUES)


def test_tuned_ensembles_work_in_pipelines_and_show_their_progress(capsys):
    model = make_pipeline(StandardScaler(), tuned(n_configurations=2, n_folds=2))
    assert cross_val_score(model, X, y, cv=2).shape == (2,)
    tuned(verbose=True, n_configurations=2, n_folds=2).fit(X, y, sample_weight=np.ones(150))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["1 base", "complete"],
        ["2 random", "complete"],
    ]
    assert re.fullmatch(r"2 random  complete  loss [\d.]+  best [\d.]+", lines[1])


def test_an_interrupted_search_continues(tmp_path, monkeypatch):
    frame = pd.DataFrame(X).rename(columns=str)
    whole = tuned(network={"categorical_features": "from_dtype"}, n_configurations=6)
    whole.fit(frame, y)
    kept = SearchCheckpoint(tmp_path / "search")
    interrupted = tuned(network={"categorical_features": "from_dtype"}, n_configurations=3)
    interrupted.fit(frame, y, checkpoint=kept)
    first = interrupted.search_results_
    again = interrupted.set_params(n_configurations=6).fit(frame, y, checkpoint=kept)
    same(whole, again)
    # Finished folds are not trained again.
    assert again.search_results_["seconds"][:3] == first["seconds"]
    assert again.search_results_["status"] == whole.search_results_["status"]
    assert {network.columns_ is again.columns_ for network in again.estimators_} == {True}
    np.testing.assert_array_equal(again.predict_proba(frame), whole.predict_proba(frame))
    # The default number of folds depends on the time, but an interrupted search keeps its folds.
    monkeypatch.setattr(tuned_module, "time_a_fit", lambda *_: 1e-6)
    timed = tuned(n_folds=None, max_time=1e5, n_configurations=1)
    timed.fit(X, y, checkpoint=SearchCheckpoint(tmp_path / "timed"))
    timed.set_params(max_time=1e-3).fit(X, y, checkpoint=SearchCheckpoint(tmp_path / "timed"))
    assert timed.search_results_["folds"] == [8]
    for values in ({"random_state": 1}, {"estimator__alpha": 0.5}, {"n_folds": 2}):
        with pytest.raises(ValueError, match="is of a search with other data, folds, settings"):
            tuned().set_params(**values).fit(frame, y, checkpoint=kept)
