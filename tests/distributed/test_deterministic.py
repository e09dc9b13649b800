"""Deterministic fits have the same bits on 1, 2, 4 and 8 ranks."""

import hashlib

import helpers
import numpy as np
import pytest
from scipy import sparse

from mlp_xp import MLPClassifier
from mlp_xp.augmentation import Mixup
from mlp_xp.distributed import Distributed, join_ranks

SETTINGS = [
    {"normalization": "batch", "dropout": 0.3, "max_grad_norm": 0.5},
    {"normalization": "layer", "activation": "gelu", "ema_decay": 0.9, "batch_size": 5},
    {"numeric_embedding": "pbld", "learn_input_scale": True, "parametric_activation": True},
    {"augmentation": (Mixup(),), "label_smoothing": 0.1},
    {"early_stopping": True, "validation_fraction": 0.3, "scoring": "loss"},
    {"solver": "lbfgs"},
    {"solver": "sgd"},
]
# Compiled in seconds each: all in one.
IN_ONE = [{**SETTINGS[0], **SETTINGS[2], **SETTINGS[3], "hidden_layer_sizes": (24,)}]
FEATURES = 12


def fit(backend, code="", number=None):
    if code:
        from mlp_xp.backends._numpy import backend as module

        module._LONG = 0  # Even the shortest fit takes machine code.
    X, y = helpers.problem(n=107, features=FEATURES)
    weights = np.linspace(0.5, 2.0, len(X))
    distributed = Distributed(deterministic=True)
    ranks = join_ranks(distributed)
    chosen = IN_ONE if backend == "jax" else SETTINGS if number is None else [SETTINGS[number]]
    digest = hashlib.sha256()
    for dtype in ("float32",) if backend == "jax" else ("float32", "float64")[number is not None :]:
        for own in chosen:
            settings = {"hidden_layer_sizes": (48, 32), "max_iter": 3, "batch_size": 20} | own
            settings |= {"random_state": 0, "backend": backend} | helpers.QUIET
            data = X.astype(dtype)
            rows = sparse.csr_matrix(data) if own == SETTINGS[-1] else data
            model = MLPClassifier(**settings, distributed=distributed)
            model.fit(rows, y, sample_weight=weights)
            if dtype == "float64" and ranks.size == 1:
                serial = MLPClassifier(**settings).fit(rows, y, sample_weight=weights)
                # Before a batch normalization, Adam follows rounding errors around zero.
                np.testing.assert_allclose(model.loss_curve_, serial.loss_curve_, rtol=1e-6)
            curves = [model.loss_curve_, model.validation_loss_curve_ or []]
            for array in (*curves, *model.coefs_, *model.intercepts_):
                digest.update(np.asarray(array).tobytes())
    if ranks.rank == 0:
        print(digest.hexdigest())
    return digest.hexdigest()


def refuse():
    """Check the errors for a number of ranks that does not divide the shards, and for own rows."""
    with pytest.raises(ValueError, match=r"needs 1, 2, 4 or 8 ranks, got 3: type mpiexec"):
        join_ranks(Distributed(deterministic=True))
    with pytest.raises(ValueError, match="data='sharded' does not support deterministic=True"):
        Distributed(data="sharded", deterministic=True)


@pytest.mark.parametrize(
    ("backend", "code", "numbers"),
    [
        ("numpy", "", (1, 2, 8)),
        ("numpy", "machine code", (1, 4)),
        ("torch", "", (1, 2)),
        ("jax", "", (1, 2)),
    ],
)
def test_the_number_of_ranks_does_not_change_the_bits(run_ranks, backend, code, numbers):
    pytest.importorskip(backend)
    found = {n: run_ranks(n, fit, backend, code).stdout for n in numbers}
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_the_number_of_threads_does_not_change_the_bits(on_threads, number):
    found = [on_threads(n, fit, "numpy", "", number) for n in (1, 4)]
    assert len({digest for digests in found for digest in digests}) == 1


def test_what_cannot_be_deterministic_is_refused(on_threads):
    on_threads(3, refuse)
