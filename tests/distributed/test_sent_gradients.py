"""Gradients of large layers travel while others are computed, with the numbers of one process."""

from __future__ import annotations

import sys

import helpers
import numpy as np
import pytest

from mlp_xp import MLPClassifier
from mlp_xp.backends._numpy import backend as numpy_backend
from mlp_xp.distributed import get_communicator


def compare():
    """Compare a fit on all ranks with that of one, and print how often a sum has been started."""
    numpy_backend._LONG = 0  # Even the shortest fit takes machine code.
    X, y = helpers.problem(n=64, features=40)
    settings = {"hidden_layer_sizes": (600, 500), "max_iter": 2, "batch_size": 16}
    settings |= {"random_state": 0, **helpers.QUIET}
    alone = MLPClassifier(**settings).fit(X, y)
    ranks = get_communicator("mpi")
    start_sum, rows = ranks.start_sum, []

    def counted(array):
        rows.append(len(array))
        return start_sum(array)

    ranks.start_sum = counted
    model = MLPClassifier(**settings, distributed="mpi").fit(X, y)
    for one, other in zip(model.coefs_, alone.coefs_, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
    if ranks.rank == 0:
        print(rows[:3], len(rows))


# Eight steps. Between machines a matrix of 2.4 MB travels in two pieces.
@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "[600, 40, 600] 16"), ({"MPIR_CVAR_NOLOCAL": "1"}, "[300, 300, 40] 24")],
)
def test_sums_start_in_the_backward_pass(run_ranks, environment, expected):
    pytest.importorskip("numba")
    done = run_ranks(2, compare, environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
