"""What ``import mlp_xp`` loads, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys

OPTIONAL = [
    "array_api_strict",
    "cupy",
    "jax",
    "llvmlite",
    "matplotlib",
    "numba",
    "PIL",
    "requests",
    "rich",
    "safetensors",
    "torch",
]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


SCIKIT_LEARN = "import sklearn.base, sklearn.metrics, sklearn.utils.validation"


def loaded(code: str) -> set[str]:
    """Give the optional libraries that code loads."""
    show = f"import json, sys; print(json.dumps(sorted(set(sys.modules) & set({OPTIONAL}))))"
    return set(json.loads(run(f"{code}\n{show}")))


def test_no_optional_library_is_loaded():
    # Scikit-learn itself may load one that is there, for its progress bars.
    assert loaded("import mlp_xp") <= loaded(SCIKIT_LEARN)


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
        "start = time.perf_counter()\n"
        "import mlp_xp\n"
        "print(time.perf_counter() - start)"
    )
    assert min(float(run(code)) for _ in range(3)) < 0.5
