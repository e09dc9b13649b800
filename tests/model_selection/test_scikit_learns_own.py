"""Scikit-learn's own tests of its searches pass with ours in their place, and with our networks."""

from __future__ import annotations

import importlib
import inspect

import pytest
import sklearn
from stand_ins import STAND_INS

from mlp_xp import model_selection as ours

MODULES = {
    name: importlib.import_module(f"sklearn.model_selection.tests.test_{name}")
    for name in ("search", "validation", "successive_halving")
}

# These take more than a second, for models or scorers that are not ours.
SLOW = {
    "test_unsupervised_grid_search",
    "test_random_search_cv_results_multimetric",
    "test_unsupported_sample_weight_scorer",
    "test_cv_results_dtype_issue_29074",
    "test_n_features_in",
    "test_cross_validate_many_jobs",
    "test_permutation_test_score_allow_nans",
}
# Tests that a network cannot pass instead of the estimator, and what they ask for.
OTHER_ESTIMATORS = {
    "test_grid_search": "predict returns a number",
    "test_grid_search_no_score": "a base class without score",
    "test_grid_search_score_method": "a base class without score",
    "test_grid_search_one_grid_point": "dual_coef_",
    "test_grid_search_precomputed_kernel": "a kernel",
    "test_grid_search_precomputed_kernel_error_nonsquare": "a kernel",
    "test_refit_callable": "C changes the score",
    "test_search_cv_results_rank_tie_breaking": "C changes the score",
    "test_search_cv_timing": "replaces the clock of scikit-learn's fits",
    "test_predict_proba_disabled": "no predict_proba",
    "test_transform_inverse_transform_round_trip": "inverse_transform",
    "test_search_cv_pairwise_property_equivalence_of_precomputed": "a kernel",
    "test_search_html_repr": "the name LogisticRegression",
    "test_cross_validate_invalid_scoring_param": "no other warnings",
    "test_cross_val_score_precomputed": "a kernel",
    "test_cross_val_score_with_score_func_classification": "the scores of an SVM",
    "test_cross_val_score_with_score_func_regression": "the scores of ridge regression",
    "test_cross_val_score_multilabel": "the scores of nearest neighbors",
    "test_cross_val_predict_decision_function_shape": "decision_function_shape",
    "test_cross_val_predict_y_none": "fit without y",
    "test_cross_val_predict_with_method_multilabel_ovr": "solver='liblinear'",
    "test_fit_and_score_working": "tol of an SVM as a setting of the clone",
}


def _tests(name):
    """Return the names of a module's tests that take nothing."""
    return [
        test
        for test, function in vars(MODULES[name]).items()
        if test.startswith("test_")
        and test not in SLOW
        and inspect.isfunction(function)
        and not inspect.signature(function).parameters
    ]


def _run(monkeypatch, name, test, *, others=()):
    """Run a test with our searches, and networks instead of other estimators."""
    module = MODULES[name]
    for function in ours.__all__:
        if hasattr(module, function):
            monkeypatch.setattr(module, function, getattr(ours, function))
    for estimator in others:
        if hasattr(module, estimator):
            monkeypatch.setattr(module, estimator, STAND_INS[estimator])
    vars(module)[test]()


def _is_marked(name, test, mark=None):
    marks = getattr(vars(MODULES[name])[test], "pytestmark", ())
    return any(mark in (None, own.name) for own in marks)


TESTS = [test for test in _tests("search") if not _is_marked("search", test)]
WITH_NETWORKS = [
    (name, test)
    for name in MODULES
    for test in _tests(name)
    if set(vars(MODULES[name])[test].__code__.co_names) & set(STAND_INS)
    and test not in OTHER_ESTIMATORS
    and not _is_marked(name, test, "parametrize")
]


def test_there_are_many():
    assert len(TESTS) > 40
    assert len(WITH_NETWORKS) > 50


@pytest.mark.filterwarnings("ignore")  # What their models warn of.
@pytest.mark.parametrize("test", TESTS)
def test_scikit_learns_own_test(monkeypatch, test):
    _run(monkeypatch, "search", test)


@pytest.mark.filterwarnings("ignore")  # Networks of two epochs.
@pytest.mark.parametrize(("name", "test"), WITH_NETWORKS)
def test_scikit_learns_own_test_with_networks(monkeypatch, name, test):
    _run(monkeypatch, name, test, others=STAND_INS)


@pytest.mark.skipif(sklearn.__version__ < "1.9", reason="tests of scikit-learn 1.9")
def test_what_is_left_out_is_there():
    known = {test for module in MODULES.values() for test in vars(module)}
    assert set(OTHER_ESTIMATORS) <= known
