"""Models that are fitted on CuPy open, predict and go on where there is NumPy alone."""

import pickle
import subprocess
import sys

import cupy
import numpy as np
from helpers import small

from mlp_xp import MLPClassifier, MLPRegressor

OPEN = """
import pickle, sys, warnings

sys.modules["cupy"] = None  # As where it is not installed.
warnings.simplefilter("ignore")
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


def test_a_model_of_the_gpu_opens_with_numpy_alone(tmp_path, rng):
    X = rng.standard_normal((60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    models, expected = [], []
    for kind in (MLPClassifier, MLPRegressor):
        models.append(small(kind, backend="cupy", device="cuda:1").fit(X, y))
        expected.append(models[-1].predict(X))
        with cupy.cuda.Device(1):
            model = small(kind, normalization="batch").fit(cupy.asarray(X), cupy.asarray(y))
            found = model.predict(cupy.asarray(X))
        assert isinstance(found, cupy.ndarray)
        assert found.device.id == 1
        assert all(isinstance(W, cupy.ndarray) for W in model.coefs_)
        models.append(model)
        expected.append(found.get())
    path = tmp_path / "models.pkl"
    path.write_bytes(pickle.dumps((models, X, expected)))
    done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
