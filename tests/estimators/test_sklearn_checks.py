"""Scikit-learn's checks of an estimator, its array API checks among them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from mlp_xp.backends import BackendError, get_backend

# SCIPY_ARRAY_API counts only if it is set before SciPy is imported: these run in their own process.
RUNS_APART = "MLP_XP_CHECKS_APART"
APART = os.environ.get(RUNS_APART) == "1"


def _has_gpu() -> bool:
    with contextlib.suppress(BackendError):
        return bool(get_backend("cupy"))
    return False


NETWORKS = MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)
ENSEMBLES = MLPEnsembleClassifier(NETWORKS[0], 2), MLPEnsembleRegressor(NETWORKS[1], 2)


if APART:

    @parametrize_with_checks([*NETWORKS, *ENSEMBLES])
    def test_estimators_pass_scikit_learns_checks(estimator, check):
        # scikit-learn takes an installed CuPy for one that works.
        if not _has_gpu() and "cupy" in str(getattr(check, "keywords", "")):
            pytest.skip("no GPU for cupy")
        check(estimator)

else:

    @pytest.mark.matrix
    def test_estimators_pass_the_checks_with_scipys_array_api_enabled():
        env = os.environ | {"SCIPY_ARRAY_API": "1", RUNS_APART: "1"}
        env.pop("PYTEST_ADDOPTS", None)
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
        command += ["-m", "", "--grid=pairs", __file__]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        # Array checks that were skipped for want of the setting would pass for nothing.
        assert "SCIPY_ARRAY_API" not in done.stdout
        assert int(done.stdout.rsplit(" passed", 1)[0].rsplit(None, 1)[-1]) > 250

    @pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
    @pytest.mark.filterwarnings("ignore")
    def test_estimators_pass_scikit_learns_checks_on_numpy_arrays(kind):
        n_checks = 0
        for each, check in estimator_checks_generator(kind(max_iter=20)):
            if "array_api" not in str(check):
                try:
                    check(each)
                except SkipTest:  # There is no `decision_function`.
                    continue
                n_checks += 1
        assert n_checks > 50
