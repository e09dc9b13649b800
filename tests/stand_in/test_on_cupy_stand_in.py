"""CuPy's backend on any machine: its tests run on the stand-in, each device in its own process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "stand_in"
LOOPS = "test_cupy_loop.py", "test_cupy_step_by_step.py"
# The most combinations of parameters for each test: all of them take minutes.
SPECS = {"cupy:cuda:0": 3, "cupy:cuda:1": 12}

pytestmark = pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("clang++") or importlib.util.find_spec("ziglang")),
    reason="no C++ compiler for kernels",
)


def environment(with_stand_in: bool = True, **more: str) -> dict[str, str]:
    paths = [str(STAND_IN)] * with_stand_in + [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | more
    env.pop("PYTEST_ADDOPTS", None)  # It is of this run.
    return env


class Run:
    """A run of pytest in a process that imports the stand-in as CuPy."""

    def __init__(self, report: Path, *arguments: str, **env: str) -> None:
        self.report = report
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
        with report.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *arguments],
                env=environment(**env),
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def check(self, at_least: int) -> None:
        """Check that it passes, with that many tests; its failures are the message."""
        status, report = self.process.wait(), self.report.read_text()
        assert status == 0, report[-20_000:]
        assert int(report.rsplit(" passed", 1)[0].rsplit(None, 1)[-1]) >= at_least, report[-2000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a run for each device of all tests that take a backend, side by side."""
    folder = tmp_path_factory.mktemp("stand_in")
    runs = {
        spec: Run(
            folder / f"{spec[-1]}.txt",
            "tests",
            "--only-backends",
            f"--backends={spec}",
            f"--combinations={most}",
        )
        for spec, most in SPECS.items()
    }
    yield runs
    for run in runs.values():
        run.process.kill()
        run.process.wait()


@pytest.mark.parametrize("spec", SPECS)
def test_every_test_that_takes_a_backend(runs, spec):
    runs[spec].check(at_least=300)


def test_every_test_of_the_stand_in_itself(tmp_path):
    here = Path(__file__).parent
    files = [str(path) for path in (*here.glob("test_stand_in_*.py"), *map(here.joinpath, LOOPS))]
    Run(tmp_path / "report.txt", *files, f"--backends={next(iter(SPECS))}").check(at_least=180)


def test_scikit_learns_checks_of_arrays(tmp_path):
    checks = "tests/estimators/test_sklearn_checks.py"
    env = {"SCIPY_ARRAY_API": "1", "MLP_XP_CHECKS_APART": "1"}
    Run(tmp_path / "report.txt", checks, "-k", "cupy", **env).check(at_least=26)


def test_what_cupy_lacks_and_computes_in_low_precision(tmp_path):
    files = ["tests/backends/test_probing.py", "tests/backends/test_precision.py"]
    files += ["tests/training/test_loss_scaling.py"]
    names = "probing or cupy"
    Run(tmp_path / "report.txt", *files, "-k", names, "--backends=numpy").check(at_least=30)


FIT = """
import pickle, sys
import cupy
import numpy as np
from mlp_xp import MLPClassifier, MLPRegressor

assert "stand_in" in cupy.__file__
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64)
models, expected = [], []
settings = dict(hidden_layer_sizes=(8,), max_iter=3, random_state=0, n_iter_no_change=np.inf)
for kind in (MLPClassifier, MLPRegressor):
    models.append(kind(backend="cupy", device="cuda:1", **settings).fit(X, y))
    expected.append(models[-1].predict(X))
    with cupy.cuda.Device(1):
        models.append(kind(normalization="batch", **settings).fit(cupy.asarray(X), cupy.asarray(y)))
        found = models[-1].predict(cupy.asarray(X))
    assert isinstance(found, cupy.ndarray) and found.device.id == 1
    assert all(isinstance(W, cupy.ndarray) for W in models[-1].coefs_)
    expected.append(found.get())
with open(sys.argv[1], "wb") as file:
    pickle.dump((models, X, expected), file)
"""
OPEN = """
import pickle, sys

sys.modules["cupy"] = None  # As where it is not installed.
import numpy as np

with open(sys.argv[1], "rb") as file:
    models, X, expected = pickle.load(file)
for model, theirs in zip(models, expected, strict=True):
    model.set_params(backend=None, device=None)
    found = model.predict(X)
    assert isinstance(found, np.ndarray)
    assert all(isinstance(W, np.ndarray) for W in model.coefs_)
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-5)
    model.set_params(max_iter=1, warm_start=True).fit(X, theirs > 0.5)
"""


def test_a_model_of_the_gpu_opens_with_numpy_alone(tmp_path):
    path = str(tmp_path / "models.pkl")
    quiet = ["-W", "ignore:Stochastic Optimizer"]
    for code, with_stand_in in ((FIT, True), (OPEN, False)):
        command = [sys.executable, *quiet, "-c", code, path]
        done = subprocess.run(
            command, env=environment(with_stand_in), cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-5000:]
