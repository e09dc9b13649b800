"""What a fit holds beside the data: a limit on the peak of a fresh process."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")

MB = 2**20
N_SAMPLES, WIDTHS = 20_000, (3072, 512, 512, 10)

# Scikit-learn loads pandas where it is installed, which takes 30 MB that nothing here asks for.
CODE = f"""
import re, sys, warnings

class NoPandas:
    @staticmethod
    def find_spec(name, *_):
        if name == "pandas":
            raise ImportError(name)

sys.meta_path.insert(0, NoPandas)
import numpy as np
from mlp_xp import MLPClassifier

warnings.simplefilter("ignore")
generator = np.random.default_rng(0)
X = generator.integers(0, 256, ({N_SAMPLES}, {WIDTHS[0]}), dtype=np.uint8)
y = generator.integers(0, {WIDTHS[-1]}, {N_SAMPLES})
model = MLPClassifier({WIDTHS[1:-1]}, max_iter=1).fit(X, y)
model.predict(X)
# Not ru_maxrss: a process inherits that of the one which started it.
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


def test_a_fit_holds_little_beside_the_data():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    data = N_SAMPLES * WIDTHS[0]
    n_params = sum((a + 1) * b for a, b in pairwise(WIDTHS))
    # Adam keeps two numbers for each parameter, and the guard against NaN a copy of all three.
    # About 180 MB are the libraries; another copy of the data, 59 MB as bytes, would not fit into
    # what is left.
    beside = int(done.stdout) * 1024 - data - 2 * 3 * 4 * n_params
    assert beside < 225 * MB
