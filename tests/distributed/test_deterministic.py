"""Deterministic fits have the same bits on 1, 2, 4 and 8 ranks."""

from __future__ import annotations

import hashlib
import sys

import helpers
import numpy as np
import pytest
from scipy import sparse

from mlp_xp import MLPClassifier
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import Mixup
from mlp_xp.distributed import Distributed, join_ranks

SETTINGS = [
    {"normalization": "batch", "dropout": 0.3, "max_grad_norm": 0.5},
    {"normalization": "layer", "activation": "gelu", "ema_decay": 0.9, "batch_size": 5},
    {"augmentation": (Mixup(),), "label_smoothing": 0.1},
    {"early_stopping": True, "validation_fraction": 0.3, "scoring": "loss"},
    {"solver": "lbfgs"},
    {"solver": "sgd"},
]
# Compiled in seconds each: all in one.
IN_ONE = [{**SETTINGS[0], **SETTINGS[2], **SETTINGS[3], "hidden_layer_sizes": (24,)}]
FEATURES = 12


def fit(backend, code=""):
    """Print what fits have learned, as one number, from rank 0."""
    if code:
        from mlp_xp.backends._numpy import backend as module

        module._LONG = 0  # Even the shortest fit takes machine code.
    X, y = helpers.problem(n=107, features=FEATURES)
    weights = np.linspace(0.5, 2.0, len(X))
    distributed = Distributed(deterministic=True)
    digest = hashlib.sha256()
    for dtype in ("float32",) if backend == "jax" else ("float32", "float64"):
        for own in IN_ONE if backend == "jax" else SETTINGS:
            settings = {"hidden_layer_sizes": (48, 32), "max_iter": 3, "batch_size": 20} | own
            settings |= {"random_state": 0, "backend": backend, "distributed": distributed}
            model = MLPClassifier(**settings, **helpers.QUIET)
            data = X.astype(dtype)
            rows = sparse.csr_matrix(data) if own == SETTINGS[-1] else data
            model.fit(rows, y, sample_weight=weights)
            if dtype == "float64" and join_ranks(distributed).size == 1:
                settings["distributed"] = None
                serial = MLPClassifier(**settings, **helpers.QUIET)
                serial.fit(rows, y, sample_weight=weights)
                # Before a batch normalization, Adam follows rounding errors around zero.
                np.testing.assert_allclose(model.loss_curve_, serial.loss_curve_, rtol=1e-6)
            curves = model.loss_curve_, model.validation_loss_curve_ or []
            digest.update(np.asarray(curves[0]).tobytes() + np.asarray(curves[1]).tobytes())
            for leaf in leaves((tuple(model.coefs_), tuple(model.intercepts_))):
                digest.update(np.asarray(leaf).tobytes())
    if join_ranks(distributed).rank == 0:
        print(digest.hexdigest())


def refuse():
    """Print the error for a number of ranks that does not divide the shards."""
    with pytest.raises(ValueError, match=r"on 3 ranks, and must be on 1, 2, 4 or 8: type mpiexec"):
        join_ranks(Distributed(deterministic=True))
    with pytest.raises(ValueError, match="data is 'sharded', and deterministic is True"):
        Distributed(data="sharded", deterministic=True)
    print("refused")


@pytest.mark.parametrize(
    ("backend", "code", "numbers"),
    [
        ("numpy", "", (1, 2, 4, 8)),
        ("numpy", "machine code", (1, 2, 4, 8)),
        ("torch", "", (1, 2, 4, 8)),
        ("jax", "", (1, 2, 4, 8)),
    ],
)
def test_the_number_of_ranks_does_not_change_the_bits(run_ranks, backend, code, numbers):
    pytest.importorskip(backend)
    found = {}
    for n in numbers:
        done = run_ranks(n, fit, backend, code, timeout=240)
        assert done.returncode == 0, done.stderr
        found[n] = done.stdout.strip()
    assert len(set(found.values())) == 1, found


def test_what_cannot_be_deterministic_is_refused(run_ranks):
    done = run_ranks(3, refuse)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == 3


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
