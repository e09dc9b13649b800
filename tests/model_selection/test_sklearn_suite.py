"""Scikit-learn's own tests of its searches and of cross-validation, with ours in their place.

The searches and functions are this package's, and so is the estimator wherever a test takes one of
scikit-learn's linear or kernel classifiers.
"""

from __future__ import annotations

import re
import sys
import types
from numbers import Real
from pathlib import Path

import pytest
import sklearn
from sklearn.utils._param_validation import Interval

from mlp_xp import MLPClassifier, model_selection

if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9):
    pytest.skip("the tests of scikit-learn 1.9 are the ones to pass", allow_module_level=True)


class Network(MLPClassifier):
    """A small network that takes the parameters of the estimators it stands for."""

    _parameter_constraints = MLPClassifier._parameter_constraints | {
        "C": [Interval(Real, 0, None, closed="neither")],
        "solver": [str],
    }

    def __init__(
        self,
        C=1.0,
        kernel="rbf",
        gamma="scale",
        degree=3,
        dual=True,
        penalty="l2",
        l1_ratio=0,
        tol=1e-4,
        max_iter=5,
        class_weight=None,
        random_state=0,
        solver="adam",
        verbose=False,
    ):
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.dual = dual
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        super().__init__(
            (5,),
            max_iter=max_iter,
            tol=tol,
            class_weight=class_weight,
            random_state=random_state,
            solver=solver,
            learning_rate="cosine",
            learning_rate_init=0.1,
            n_iter_no_change=float("inf"),
            verbose=verbose,
        )

    decision_function = MLPClassifier.logits

    def _params(self):
        return super()._params() | {"solver": "adam"}


# As there, where a warning is no error.
pytestmark = pytest.mark.filterwarnings("default")
NETWORKS = dict.fromkeys(("SVC", "LinearSVC", "LogisticRegression"), Network)
NAMES = NETWORKS | {name: getattr(model_selection, name) for name in model_selection.__all__}
USES = re.compile(rf"\b({'|'.join(NETWORKS)})\(")
# What they ask of the estimator that a network stands for, not of the search.
OTHERS = {
    "test_cross_val_predict_decision_function_shape",  # one against one
    "test_cross_val_score_precomputed",  # kernels
    "test_cross_val_score_with_score_func_classification",  # its scores
    "test_cross_validate",  # coef_
    "test_grid_search_one_grid_point",  # dual_coef_
    "test_grid_search_precomputed_kernel",
    "test_grid_search_precomputed_kernel_error_nonsquare",
    "test_learning_curve_some_failing_fits_warning",  # an error for a single class
    "test_permutation_score",  # its scores
    "test_predict_proba_disabled",  # no predict_proba
    "test_refit_callable",  # its scores
    "test_search_cv_results_rank_tie_breaking",  # its scores
    "test_search_default_iid",  # its scores
    "test_search_html_repr",  # its name
}


def _collect(name: str) -> dict[str, object]:
    """Return the tests that use a network, of a module with other names after its imports."""
    file = Path(sklearn.__file__).parent / "model_selection" / "tests" / f"{name}.py"
    source = file.read_text()
    start = re.search(r"^(class|def|@)\b", source, re.MULTILINE).start()
    module = types.ModuleType(f"{name}_of_ours")
    module.__dict__.update({"__file__": str(file), "OURS": NAMES})
    sys.modules[module.__name__] = module  # Their classes are pickled by it.
    changed = f"{source[:start]}\nglobals().update(OURS)\n{source[start:]}"
    exec(compile(changed, str(file), "exec"), module.__dict__)
    bodies = re.split(r"^def (?=\w)", source, flags=re.MULTILINE)
    names = [body.partition("(")[0] for body in bodies if USES.search(body)]
    return {name: getattr(module, name) for name in names if name.startswith("test_")}


TESTS = _collect("test_search") | _collect("test_validation")
globals().update({name: test for name, test in TESTS.items() if name not in OTHERS})


@pytest.fixture
def global_random_seed():
    return 42


def test_what_is_left_out_is_there():
    assert set(TESTS) >= OTHERS
    assert len(TESTS) - len(OTHERS) >= 40
