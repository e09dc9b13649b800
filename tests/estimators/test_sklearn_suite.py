"""Scikit-learn's own tests of its multilayer perceptron, with the import line changed."""

import types
from pathlib import Path

import pytest
import sklearn
from sklearn.neural_network.tests import test_mlp

OLD = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
NEW = "from mlp_xp import MLPClassifier, MLPRegressor\n"

# Tests that read or set private attributes of scikit-learn's class.
PRIVATE = {
    "test_fit": "_coef_grads",
    "test_gradient": "_loss_grad_lbfgs",
    "test_learning_rate_warmstart": "_optimizer",
    "test_adaptive_learning_rate": "_optimizer",
    "test_n_iter_no_change": "_no_improvement_count",
    "test_n_iter_no_change_inf": "_no_improvement_count",
}
# The test expects an error for partial_fit with early stopping, which we support.
BETTER = {"test_mlp_partial_fit_after_fit"}

if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9):
    pytest.skip("the tests of scikit-learn 1.9 are the ones to pass", allow_module_level=True)

SOURCE = Path(test_mlp.__file__).read_text()


def _collect() -> types.ModuleType:
    assert SOURCE.count(OLD) == 1
    module = types.ModuleType("scikit_learns_tests")
    exec(compile(SOURCE.replace(OLD, NEW), test_mlp.__file__, "exec"), module.__dict__)
    return module


SLOW = {"test_partial_fit_classification", "test_warm_start", "test_mlp_vs_poisson_glm_equivalent"}
TESTS = {name: test for name, test in vars(_collect()).items() if name.startswith("test_")}
TESTS |= {name: pytest.mark.matrix(TESTS[name]) for name in SLOW}
globals().update({n: t for n, t in TESTS.items() if n not in PRIVATE and n not in BETTER})


@pytest.fixture
def global_random_seed():
    return 42


def test_skipped_scikit_learn_tests_exist_and_read_private_attributes():
    assert set(PRIVATE) | BETTER <= set(TESTS)
    for name, attribute in PRIVATE.items():
        body = SOURCE.split(f"def {name}(")[1].split("\ndef ")[0]
        assert f"mlp.{attribute}" in body or f"clf.{attribute}" in body
