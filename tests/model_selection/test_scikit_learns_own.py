"""Scikit-learn's own tests of its searches pass with ours in their place, and with our networks."""

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn.utils.fixes import parse_version
from stand_ins import STAND_INS

from mlp_xp import model_selection as ours

if parse_version(sklearn.__version__) < parse_version("1.9"):
    pytest.skip("the tests of scikit-learn 1.9 are the ones to pass", allow_module_level=True)

MODULES = {
    name: importlib.import_module(f"sklearn.model_selection.tests.test_{name}")
    for name in ("search", "validation", "successive_halving")
}
TREES = {name: ast.parse(Path(module.__file__).read_text()) for name, module in MODULES.items()}
SEARCHES = {name: getattr(ours, name) for name in ours.__all__}
# Models or scorers that are not ours, for more than a second; those of arrays of other libraries
# are skipped without a variable of the environment.
LEFT_OUT = {
    "test_search_unsupervised_grid_search",
    "test_search_unsupported_sample_weight_scorer",
    "test_search_search_with_2d_array",
    "test_search_array_api_search_cv_classifier",
    "test_validation_cross_val_predict_array_api_compliance_with_networks",
}
# These tests fail because a network lacks a feature or behaves differently.
OTHER_ESTIMATORS = {
    "search_grid_search": "decision_function",
    "search_grid_search_no_score": "a base class without score",
    "search_grid_search_score_method": "a base class without score",
    "search_grid_search_one_grid_point": "dual_coef_",
    "search_grid_search_precomputed_kernel": "a kernel",
    "search_grid_search_precomputed_kernel_error_nonsquare": "a kernel",
    "search_refit_callable": "C changes the score",
    "search_search_default_iid": "the scores of an SVM",
    "search_search_cv_score_samples_error": "the name DecisionTreeClassifier",
    "search_search_cv_sample_weight_equivalence": "no batches",
    "search_search_cv_results_rank_tie_breaking": "C changes the score",
    "search_search_cv_timing": "replaces the clock of scikit-learn's fits",
    "search_predict_proba_disabled": "no predict_proba",
    "search_transform_inverse_transform_round_trip": "inverse_transform",
    "search_search_cv_pairwise_property_equivalence_of_precomputed": "a kernel",
    "search_search_html_repr": "the name LogisticRegression",
    "validation_cross_val_score": "input of three axes",
    "validation_cross_validate_invalid_scoring_param": "the scores of a mock",
    "validation_cross_validate": "coef_",
    "validation_cross_val_score_precomputed": "a kernel",
    "validation_cross_val_score_fit_params": "parameters of the fit of a mock",
    "validation_cross_val_score_with_score_func_classification": "the scores of an SVM",
    "validation_cross_val_score_with_score_func_regression": "the scores of ridge regression",
    "validation_permutation_score": "the scores of an SVM",
    "validation_cross_val_score_multilabel": "the scores of nearest neighbors",
    "validation_cross_val_predict": "a solver that warns of rare classes",
    "validation_cross_val_predict_decision_function_shape": "decision_function_shape",
    "validation_cross_val_predict_y_none": "fit without y",
    "validation_cross_val_score_sparse_fit_params": "parameters of the fit of a mock",
    "validation_cross_val_predict_with_method_multilabel_ovr": "solver='liblinear'",
    "validation_fit_and_score_working": "tol of an SVM as a setting of the clone",
    "validation_learning_curve_some_failing_fits_warning": "an error for a single class",
}


def _copy(name: str, replaced: dict[str, Any]) -> dict[str, Any]:
    """Return what a module of tests defines, with others in place of names that it uses."""
    module, body = MODULES[name], TREES[name].body
    imports = [i for i, node in enumerate(body) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {"__name__": module.__name__, "__file__": module.__file__}
    known = vars(module) | replaced
    for part in (body[: imports[-1] + 1], body[imports[-1] + 1 :]):
        exec(compile(ast.Module(part, []), module.__file__, "exec"), names)
        # The classes of the module are pickled by its name.
        own = {n for n, old in names.items() if getattr(old, "__module__", "") == module.__name__}
        classes = {n for n in own if isinstance(names[n], type)}
        names |= {n: known[n] for n in names if n in replaced or n in classes}
    return names


def _with_lists(test: Any) -> Any:
    """Replace iterators of parameters by lists: pytest warns of them while it collects."""
    marks = getattr(test, "pytestmark", [])
    for i, mark in enumerate(marks):
        if mark.name == "parametrize":
            names, values, *others = mark.args
            marks[i] = pytest.mark.parametrize(names, list(values), *others, **mark.kwargs).mark
    return test


def _collect(name: str) -> dict[str, Any]:
    """Return a module's tests of searches, with networks where they can take one.

    The default run has the tests of `GridSearchCV` and `RandomizedSearchCV` with networks.
    """
    with_theirs, with_networks = (_copy(name, SEARCHES | new) for new in ({}, STAND_INS))
    tests = {}
    for node in TREES[name].body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        short = f"{name}_{node.name.removeprefix('test_')}"
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        if used & set(STAND_INS):
            test = _with_lists(with_networks[node.name])
            if short in OTHER_ESTIMATORS:
                test = pytest.mark.xfail(reason=OTHER_ESTIMATORS[short])(test)
            if short in OTHER_ESTIMATORS or name != "search":
                test = pytest.mark.matrix(test)
            tests[f"test_{short}_with_networks"] = test
        # Others have a network in most of their tests, or test functions that pass on the rest.
        if name == "search" and used & set(SEARCHES):
            tests[f"test_{short}"] = pytest.mark.matrix(_with_lists(with_theirs[node.name]))
    return tests


TESTS = {test: function for name in MODULES for test, function in _collect(name).items()}
globals().update({name: test for name, test in TESTS.items() if name not in LEFT_OUT})
pytestmark = pytest.mark.filterwarnings("ignore")  # Warnings of scikit-learn's models.


@pytest.fixture
def global_random_seed() -> int:
    return 42


def test_many_scikit_learn_tests_run_and_the_skipped_ones_exist():
    names = [name.removesuffix("_with_networks") for name in TESTS if "with_networks" in name]
    assert len(names) - len(OTHER_ESTIMATORS) > 60
    assert {f"test_{name}" for name in OTHER_ESTIMATORS} <= set(names)
    assert set(TESTS) >= LEFT_OUT
