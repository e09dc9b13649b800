"""What ``import mlp_xp`` and its parts load, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mlp_xp

OPTIONAL = [
    "array_api_strict",
    "cupy",
    "jax",
    "llvmlite",
    "matplotlib",
    "numba",
    "pandas",
    "PIL",
    "polars",
    "requests",
    "rich",
    "safetensors",
    "torch",
]
HEAVY = [*OPTIONAL, "scipy", "sklearn"]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


SCIKIT_LEARN = "import sklearn.base, sklearn.metrics, sklearn.utils.validation"


def loaded(code: str) -> set[str]:
    """Return the heavy libraries that code loads."""
    show = f"import json, sys; print(json.dumps(sorted(set(sys.modules) & set({HEAVY}))))"
    return set(json.loads(run(f"{code}\n{show}")))


def test_no_optional_library_is_loaded():
    # Scikit-learn itself may load one that is there, for its progress bars.
    assert loaded("from mlp_xp import MLPClassifier") <= loaded(SCIKIT_LEARN)


def test_what_needs_no_scikit_learn_does_not_load_it():
    assert loaded("import mlp_xp") == set()
    assert not {"sklearn", *OPTIONAL} & loaded(
        "import mlp_xp.lab, mlp_xp.nn.losses, mlp_xp.datasets"
    )


def test_names_and_modules_are_loaded_when_they_are_asked_for():
    code = (
        "import mlp_xp\n"
        "print(set(mlp_xp.__all__) <= set(dir(mlp_xp)))\n"
        "print(mlp_xp.MLP is mlp_xp.MLPClassifier is mlp_xp.estimators.MLPClassifier)\n"
        "print(mlp_xp.get_backend('numpy'))"
    )
    assert run(code).split("\n")[:3] == ["True", "True", "<NumpyBackend 'numpy' on cpu>"]
    with pytest.raises(AttributeError, match="module 'mlp_xp' has no attribute 'MLPClasifier'"):
        mlp_xp.MLPClasifier  # noqa: B018


def test_it_brings_few_modules_of_its_own():
    count = "import sys; print(len(sys.modules))"
    before = int(run(f"import sklearn.neural_network; {count}"))
    after = int(run(f"import sklearn.neural_network, mlp_xp.estimators; {count}"))
    assert after - before < 100


def test_a_fit_loads_no_library_that_it_does_not_use():
    code = (
        "import numpy, mlp_xp\n"
        "X = numpy.eye(4)\n"
        "mlp_xp.MLP(max_iter=1, n_iter_no_change=float('inf')).fit(X, [0, 1, 2, 3]).predict(X)"
    )
    assert loaded(code) <= loaded(SCIKIT_LEARN) | {"llvmlite", "numba"}


def test_it_takes_well_under_a_second_beyond_scikit_learn():
    code = (
        f"import time\n{SCIKIT_LEARN}\n"
        "start = time.process_time()\n"  # Others may be at work on the machine.
        "from mlp_xp import MLPClassifier\n"
        "print(time.process_time() - start)"
    )
    assert min(float(run(code)) for _ in range(3)) < 0.5
