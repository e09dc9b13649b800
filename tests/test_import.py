"""Imports load no optional libraries, and load slow modules only when they are needed."""

import gc
import json
import subprocess
import sys

import pytest

import mlp_xp
from mlp_xp._utils.lazy import lazy

OPTIONAL = {"array_api_strict", "cupy", "jax", "llvmlite", "matplotlib", "numba", "pandas", "PIL"}
OPTIONAL |= {"polars", "requests", "rich", "safetensors", "torch"}
HEAVY = {*OPTIONAL, "scipy", "sklearn"}
STAGES = {  # Each stage also includes all earlier stages.
    "root": "import mlp_xp",
    "maths": "import mlp_xp.lab, mlp_xp.nn.losses, mlp_xp.datasets",
    "scikit-learn": "import sklearn.neural_network, sklearn.metrics, sklearn.utils.validation",
    "estimators": "import mlp_xp.estimators; from mlp_xp import MLPClassifier",
    "fit": (
        "import numpy; X = numpy.eye(4); "
        "mlp_xp.MLP(max_iter=1, n_iter_no_change=9).fit(X, [0, 1, 2, 3]).predict(X); "
        "mlp_xp.MLP(solver='lbfgs', max_iter=1).fit(X, [0, 1, 2, 3])"
    ),
}


@pytest.fixture(scope="module")
def loaded():
    """Return the modules that a new process has loaded after each stage."""
    lines = ["import json, sys, warnings", "warnings.simplefilter('ignore')", "found = {}"]
    for name, code in STAGES.items():
        lines += [code, f"found[{name!r}] = sorted(sys.modules)"]
    code = "\n".join([*lines, "print(json.dumps(found))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name: set(modules) for name, modules in json.loads(done.stdout).items()}


def test_scikit_learn_is_loaded_only_if_needed(loaded):
    assert not HEAVY & loaded["root"]
    assert not {"sklearn", *OPTIONAL} & loaded["maths"]


def test_importing_estimators_loads_no_optional_library(loaded):
    # scikit-learn may load an optional library for its progress bars.
    assert OPTIONAL & loaded["estimators"] == OPTIONAL & loaded["scikit-learn"]


def test_a_fit_loads_no_unused_library(loaded):
    more = OPTIONAL & (loaded["fit"] - loaded["scikit-learn"])
    assert more <= {"llvmlite", "numba"}


def test_a_fit_loads_no_unused_module(loaded):
    rare = (
        "augmentation._geometric",
        "augmentation._values",
        "backends._numpy.kernels.bfloat16",
        "backends._numpy.kernels.products",
        "backends._numpy.kernels.sparse",
        "distributed._ranks",
        "estimators.ensembles",
        "estimators.fitting.validation_set",
        "estimators.regressor",
        "training.divergence.diagnosis",
        "training.loop.time_budget",
    )
    assert not {f"mlp_xp.{name}" for name in rare} & loaded["fit"]


def test_lazy_names_are_listed_and_loaded():
    for package in (mlp_xp, mlp_xp.augmentation, mlp_xp.estimators):
        assert set(package.__all__) <= set(dir(package))
        for name in package.__all__:
            assert getattr(package, name).__name__ in (name, "MLPClassifier")
    with pytest.raises(AttributeError, match=r"'mlp_xp\.augmentation' has no attribute 'Fli'"):
        mlp_xp.augmentation.Fli  # noqa: B018


def test_public_names_are_loaded_on_first_use():
    assert set(mlp_xp.__all__) <= set(dir(mlp_xp))
    assert mlp_xp.MLP is mlp_xp.MLPClassifier is mlp_xp.estimators.MLPClassifier
    assert repr(mlp_xp.get_backend("numpy")) == "<NumpyBackend 'numpy' on cpu>"
    with pytest.raises(AttributeError, match="module 'mlp_xp' has no attribute 'MLPClasifier'"):
        mlp_xp.MLPClasifier  # noqa: B018


@pytest.mark.parametrize("collecting", [True, False])
def test_a_failed_import_leaves_the_garbage_collector_as_it_was(collecting, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlp_xp.missing", None)
    load = lazy("mlp_xp", {"Missing": "mlp_xp.missing"})
    was_collecting = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        with pytest.raises(ImportError):
            load("Missing")
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if was_collecting else gc.disable)()
