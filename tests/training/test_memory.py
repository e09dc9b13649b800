"""What a fit holds beside the data: a limit on the peak of a fresh process."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status"),
]

MB = 2**20
N_SAMPLES, WIDTHS = 20_000, (3072, 512, 512, 10)

# Scikit-learn loads pandas where it is installed, which takes 30 MB that nothing here asks for.
CODE = f"""
import contextlib, re, sys, warnings

class NoPandas:
    @staticmethod
    def find_spec(name, *_):
        if name == "pandas":
            raise ImportError(name)

sys.meta_path.insert(0, NoPandas)
import numpy as np
from mlp_xp import MLPClassifier


def peak():
    # Not ru_maxrss: a process inherits that of the one which started it.
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])

warnings.simplefilter("ignore")
generator = np.random.default_rng(0)
# What libraries take differs from machine to machine, by 100 MB.
with contextlib.suppress(ImportError):
    import llvmlite.binding
few = generator.integers(0, 256, (2_000, 64), dtype=np.uint8)
MLPClassifier({WIDTHS[1:-1]}, max_iter=3).fit(few, np.arange(2_000) % 10).predict(few)
before = peak()
X = generator.integers(0, 256, ({N_SAMPLES}, {WIDTHS[0]}), dtype=np.uint8)
y = generator.integers(0, {WIDTHS[-1]}, {N_SAMPLES})
model = MLPClassifier({WIDTHS[1:-1]}, max_iter=1).fit(X, y)
model.predict(X)
print(peak() - before)
"""


def test_a_fit_holds_little_beside_the_data():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    data = N_SAMPLES * WIDTHS[0]
    n_params = sum((a + 1) * b for a, b in pairwise(WIDTHS))
    # Adam keeps two numbers for each parameter, and the guard against NaN a copy of all three.
    # Another copy of the data takes 59 MB as bytes.
    beside = int(done.stdout) * 1024 - data - 2 * 3 * 4 * n_params
    assert beside < 30 * MB
