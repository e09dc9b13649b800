"""Scikit-learn's own tests of its searches pass with ours in their place."""

from __future__ import annotations

import importlib
import inspect

import pytest

from mlp_xp import model_selection as ours

theirs = importlib.import_module("sklearn.model_selection.tests.test_search")

# These take more than a second, for models or scorers that are not ours.
SLOW = {
    "test_unsupervised_grid_search",
    "test_random_search_cv_results_multimetric",
    "test_unsupported_sample_weight_scorer",
    "test_cv_results_dtype_issue_29074",
    "test_n_features_in",
}
TESTS = [
    name
    for name, function in vars(theirs).items()
    if name.startswith("test_")
    and name not in SLOW
    and inspect.isfunction(function)
    and not inspect.signature(function).parameters
    and not hasattr(function, "pytestmark")
]


def test_there_are_many():
    assert len(TESTS) > 40


@pytest.mark.filterwarnings("ignore")  # What their models warn of.
@pytest.mark.parametrize("name", TESTS)
def test_scikit_learns_own_test(monkeypatch, name):
    for search in ours.__all__:
        if hasattr(theirs, search):
            monkeypatch.setattr(theirs, search, getattr(ours, search))
    vars(theirs)[name]()
