"""Failures, Ctrl-C, memory, messages, and what is done once for several candidates."""

import gc
import itertools
import re
import signal
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import peak
from joblib import parallel_config
from same_results import GRID, X, assert_same_results, network, y
from sklearn import config_context
from sklearn import model_selection as theirs
from sklearn.exceptions import FitFailedWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mlp_xp import MLPClassifier
from mlp_xp import model_selection as ours

DIVERGING = {"learning_rate_init": [0.01, 1e300, 0.1]}


# So large that networks are trained in threads where nothing forbids it.
LARGE = {"hidden_layer_sizes": (2000,), "max_iter": 3}


def test_diverging_candidate_does_not_affect_other_candidates():
    results, settings = [], {"cv": 2, "error_score": -1.0, "refit": False}
    for module in (ours, theirs):
        with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 6") as caught:
            search = module.GridSearchCV(network(), DIVERGING, **settings).fit(X, y)
        assert "2 fits failed with the following error" in str(caught[0].message)
        assert "try a smaller learning_rate_init" in str(caught[0].message)
        results.append(search.cv_results_)
    assert_same_results(*results)
    assert results[0]["mean_test_score"][1] == -1.0
    with pytest.raises(ValueError, match="non-finite"):  # If the caller asks for errors.
        ours.GridSearchCV(network(), DIVERGING, cv=2, error_score="raise").fit(X, y)


def test_an_unsupported_candidate_does_not_affect_the_others():
    search = ours.GridSearchCV(network(), {"precision": ["float32", "tf32"]}, cv=2, refit=False)
    message = "2 fits failed out of a total of 4"
    with pytest.warns(FitFailedWarning, match=message), pytest.warns(match="non-finite"):
        search.fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]


def picky(X, fails):
    if fails:
        raise ValueError("too picky")
    return X


def test_an_error_in_a_pipeline_step_fails_only_its_candidates():
    model = make_pipeline(FunctionTransformer(picky), network())
    grid = {"functiontransformer__kw_args": [{"fails": True}, {"fails": False}]}
    search = ours.GridSearchCV(model, grid, cv=2)
    with pytest.warns(FitFailedWarning, match="too picky"), pytest.warns(match="non-finite"):
        search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).tolist() == [False, True]


def pressing(n):
    """Return a scorer during whose n-th call Ctrl-C is pressed."""
    calls = itertools.count(1)

    def score(model, X, y):
        if next(calls) == n:
            signal.raise_signal(signal.SIGINT)
        return model.score(X, y)

    return score


@pytest.mark.libraries("numpy", "torch", "jax")
@pytest.mark.parametrize("name", ["GridSearchCV", "HalvingGridSearchCV"])
def test_ctrl_c_keeps_finished_candidates(on, name):
    grid = {"alpha": [0.1 * i for i in range(40)]}
    # One thread, so that few models are trained when Ctrl-C is pressed.
    search = getattr(ours, name)(network(**on), grid, cv=2, n_jobs=1, scoring=pressing(9))
    message = r"Search interrupted by user: cv_results_ has the (\d+) of 40 candidates"
    with pytest.warns(UserWarning, match=message) as caught:
        search.fit(X, y)
    n_finished = int(re.search(message, str(caught[0].message))[1])
    results = search.cv_results_
    assert 1 <= n_finished == len(results["params"]) == len(results["mean_test_score"]) < 40
    assert np.all(np.isfinite(results["mean_test_score"]))
    assert search.best_params_ == results["params"][search.best_index_]
    assert search.best_estimator_.score(X, y) > 0


def test_ctrl_c_before_any_candidate_is_finished_is_raised():
    # One thread cannot train this many folds before the first one is scored.
    settings = {"cv": 40, "n_jobs": 1}
    search = ours.GridSearchCV(network(), {"alpha": [0.1]}, **settings, scoring=pressing(1))
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    with pytest.raises(KeyboardInterrupt):
        ours.cross_val_score(network(), X, y, **settings, scoring=pressing(2))


# The output of a search of the 4 candidates of `GRID` in 2 folds.
ALL_FINISHED = "Search interrupted by user: cv_results_ has the 4 of 4"


@pytest.mark.parametrize(("name", "n_calls"), [("GridSearchCV", 8), ("HalvingGridSearchCV", 16)])
def test_ctrl_c_while_the_last_model_is_scored_ends_the_search(name, n_calls):
    """The last of the first iteration, with training scores where there are several."""
    search = getattr(ours, name)(network(), GRID, cv=2, scoring=pressing(n_calls))
    with pytest.warns(UserWarning, match=ALL_FINISHED):
        search.fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    with pytest.raises(KeyboardInterrupt):
        ours.cross_val_score(network(), X, y, cv=4, scoring=pressing(4))


@pytest.mark.parametrize("module", [ours, theirs])
def test_ctrl_c_in_a_nested_search_ends_the_outer_evaluation(module):
    search = ours.GridSearchCV(network(), GRID, cv=2)
    with pytest.raises(KeyboardInterrupt):
        module.cross_val_score(search.set_params(scoring=pressing(8)), X, y, cv=2)
    outer = module.GridSearchCV(search.set_params(scoring=pressing(8)), {"cv": [2]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        outer.fit(X, y)
    # In a pipeline, finished results are kept.
    model = make_pipeline(StandardScaler(), search.set_params(scoring=pressing(8)))
    with pytest.warns(UserWarning, match=ALL_FINISHED):
        assert model.fit(X, y).score(X, y) > 0


def test_ctrl_c_leaves_out_the_unfinished_candidate():
    grid = [{"max_iter": [10**6]}, {"alpha": [0.1 * i for i in range(60)]}]
    search = ours.GridSearchCV(network(), grid, cv=2, n_jobs=3, scoring=pressing(9))
    with pytest.warns(UserWarning, match="of 61 candidates that were finished"):
        search.fit(X, y)
    params, alphas = search.cv_results_["params"], search.cv_results_["param_alpha"]
    assert params == [{"alpha": alpha} for alpha in alphas]


@pytest.mark.usefixtures("new_objects")
def test_models_are_freed_after_scoring():
    alive, numbers = weakref.WeakSet(), []

    def score(model, X, y):
        alive.add(model)
        gc.collect()
        numbers.append(len(alive))
        return 0.5

    settings = {"cv": 2, "scoring": score, "n_jobs": 1, "refit": False}
    ours.HalvingGridSearchCV(network(), {"alpha": np.arange(1, 10.0)}, **settings).fit(X, y)
    assert max(numbers) <= 2


def test_a_search_holds_its_data_in_memory_once():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((20_000, 256), dtype=np.float32)
    labels = rng.integers(2, size=len(data))
    model = network(max_iter=1, batch_size=500, precision="float32")
    search = ours.GridSearchCV(model, {"alpha": [0.0, 0.1, 1.0]}, cv=5, refit=False)
    # The scored rows are copied, a fifth of the data; copying the training rows would take more.
    assert peak(lambda: search.fit(data, labels)) < 0.5 * data.nbytes


class Counted(StandardScaler):
    n_fits = 0

    def fit(self, X, y=None, sample_weight=None):
        Counted.n_fits += 1
        return super().fit(X, y)


def test_other_pipeline_steps_are_fitted_once_per_fold_and_setting():
    Counted.n_fits, model = 0, make_pipeline(Counted(), network())
    grid = {"counted__with_mean": [True, False], "mlpclassifier__alpha": [0.0, 0.1, 0.2]}
    ours.GridSearchCV(model, grid, cv=3, refit=False).fit(X, y)
    assert Counted.n_fits == 2 * 3


@pytest.mark.usefixtures("new_objects")
@pytest.mark.parametrize(("megabytes", "most"), [(0.001, 2), (1024, 4)])
def test_pipeline_inputs_respect_the_working_memory(megabytes, most):
    """A fold's predictions take 3.5 KiB, and are computed before the previous fold's are freed."""
    outputs, numbers = weakref.WeakValueDictionary(), []

    class Watched(StandardScaler):
        def fit_transform(self, X, y=None, **others):
            gc.collect()
            new = super().fit_transform(X, y, **others)
            outputs[id(new)] = new
            numbers.append(len(outputs))
            return new

    model = make_pipeline(Watched(), network())
    expected = theirs.cross_val_score(model, X, y, cv=4)
    outputs.clear()
    numbers.clear()
    with config_context(working_memory=megabytes):
        np.testing.assert_array_equal(ours.cross_val_score(model, X, y, cv=4), expected)
    assert max(numbers) == most


def test_search_reports_the_time_of_each_fit(monkeypatch):
    now = [0.0]

    class Slow(MLPClassifier):
        def _params(self):
            now[0] += self.alpha
            return super()._params()

    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("mlp_xp.estimators.many.time", clock)
    slow = Slow(**network().get_params())
    search = ours.GridSearchCV(slow, {"alpha": [0.0, 0.5]}, cv=2, n_jobs=1, refit=False).fit(X, y)
    quick, long = search.cv_results_["mean_fit_time"]
    assert (quick, long >= 0.5) == (0.0, True)


def test_verbose_output_matches_scikit_learn(capsys):
    settings, model = {"cv": 2, "verbose": 3, "n_jobs": 1, "refit": False}, network(verbose=True)
    lines, losses = [], []
    for module in (ours, theirs):
        module.GridSearchCV(network(), GRID, **settings).fit(X, y)
        out = capsys.readouterr().out
        lines.append(sorted(re.sub(r"\.+|total time=.*", "", line) for line in out.splitlines()))
        module.cross_val_score(model.set_params(**LARGE), X, y, cv=3)  # One after another.
        losses.append(re.sub(r"[\d.]+ ?(ms|s)\b|[\d,]+ \w+/s", "", capsys.readouterr().out))
    assert lines[0] == lines[1]
    assert len(lines[0]) == 1 + 8
    assert losses[0] == losses[1]
    assert losses[0].count("Iteration") >= 9


def test_progress_shows_models_done_best_score_and_time_left(capsys, terminal):
    search = ours.GridSearchCV(network(), GRID, cv=2, verbose=1).fit(X, y)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "Fitting 2 folds for each of 4 candidates, totalling 8 fits"
    assert len(lines) == 8
    assert re.fullmatch(r"models 1/8  \d+:\d\d left", lines[0])
    assert lines[-1] == f"models 8/8  best score {search.best_score_:.4f}  0:00 left"
    ours.cross_val_score(network(), X, y, cv=2)
    assert capsys.readouterr().out == ""
    search.set_params(scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss").fit(X, y)
    assert f"best score {search.best_score_:.4f}" in capsys.readouterr().out.splitlines()[-1]
    screen = terminal()  # The search shows a progress bar.
    search.set_params(scoring=None, refit=False).fit(X, y)
    assert all(part in screen.getvalue() for part in ("models 8/8", "best score", "━"))


CURVES = {key: {} for key in ("cross_validate", "cross_val_score", "cross_val_predict")}
CURVES |= {"learning_curve": {"train_sizes": [1.0]}}
CURVES |= {"validation_curve": {"param_name": "alpha", "param_range": [0.1]}}


@pytest.mark.parametrize("name", CURVES)
def test_only_one_progress_display_is_shown(name, capsys):
    for verbose in (1, 2, 51):
        getattr(ours, name)(network(), X, y, cv=2, verbose=verbose, **CURVES[name])
        out, err = capsys.readouterr()
        assert "Parallel" not in out + err  # Joblib's.
        has_lines = verbose > 1 and name != "cross_val_predict"  # Scikit-learn has none of it.
        assert out.count("total time=") == (2 if has_lines else 0)
        assert out.count("models") == (0 if has_lines else 2)


def test_callbacks_see_each_fit_as_in_scikit_learn():
    def note(what):
        return lambda model: seen.append((what, threading.current_thread()))

    seen, watch = [], SimpleNamespace(on_fit_begin=note("begin"), on_fit_end=note("end"))
    scores = ours.cross_val_score(network(callbacks=[watch]).set_params(**LARGE), X, y, cv=3)
    assert seen == [(what, threading.main_thread()) for what in ("begin", "end")] * 3
    expected = theirs.cross_val_score(network().set_params(**LARGE), X, y, cv=3)
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.matrix
def test_nested_search_matches_scikit_learn():
    given = ours.GridSearchCV(network(), GRID, cv=2), X, y
    scores = (module.cross_val_score(*given, cv=2, n_jobs=2) for module in (ours, theirs))
    np.testing.assert_array_equal(*scores)


def test_joblib_settings_apply_and_lbfgs_uses_joblib():
    """Its fits are SciPy's, which hold the interpreter: two processes are nearly twice as fast."""

    def is_here(model, X, y):
        return threading.current_thread() is threading.main_thread()

    expected = theirs.cross_val_score(network(), X, y, cv=3)
    with parallel_config(backend="threading", n_jobs=2):
        np.testing.assert_array_equal(ours.cross_val_score(network(), X, y, cv=3), expected)
        for model, expected in ((network(), True), (network(solver="lbfgs", tol=100.0), False)):
            scores = ours.cross_val_score(model, X, y, cv=4, scoring=is_here)
            assert np.all(scores == expected)
