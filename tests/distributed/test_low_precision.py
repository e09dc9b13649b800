"""Products in 16 bits on ranks: the fit of one process to their rounding, the same bits on all."""

from __future__ import annotations

import sys

import helpers
import numpy as np
import pytest

from mlp_xp import MLPClassifier
from mlp_xp.distributed import get_communicator

X, Y = helpers.problem(n=400, features=20)
ROUNDING = {"bf16": 2.0**-8, "float16": 2.0**-11}


def compare(backend: str) -> None:
    """Check fits on all ranks beside those of one process."""
    ranks = get_communicator("mpi")
    settings = {"max_iter": 3, "random_state": 0, "batch_size": 50, "solver": "sgd"}
    for precision, rounding in ROUNDING.items():
        own = settings | {"precision": precision, "backend": backend, "learning_rate_init": 0.1}
        alone = MLPClassifier((32, 32), **own, **helpers.QUIET).fit(X.astype("f4"), Y)
        model = MLPClassifier((32, 32), **own, **helpers.QUIET, distributed="mpi")
        model.fit(X.astype("f4"), Y)
        np.testing.assert_allclose(model.loss_curve_, alone.loss_curve_, rtol=4 * rounding)
        assert len(set(ranks.gather(model.coefs_[0].tobytes()))) == 1


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_low_precision_differs_by_its_rounding(run_ranks, backend):
    pytest.importorskip(backend)
    done = run_ranks(2, compare, backend)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
