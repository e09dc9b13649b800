"""Large layers: gradients are summed while others are computed, and ranks share the update."""

import helpers
import numpy as np
import pytest
from trainers import assert_same_bits, assert_same_fit

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.backends._numpy import backend as numpy_backend
from mlp_xp.distributed import get_communicator
from mlp_xp.optimizers import Lion

X, Y = helpers.problem(n=64, features=40)
SETTINGS = {"hidden_layer_sizes": (600, 500), "max_iter": 2, "batch_size": 16, "random_state": 0}
OTHERS = [
    {"max_grad_norm": 0.05, "ema_decay": 0.9},
    {"solver": "sgd", "momentum": 0.9, "alpha": 0.1},
    {"solver": "sgd", "momentum": 0.0, "early_stopping": True},
    {"solver": Lion(), "learning_rate_init": 1e-4},  # Its update is not divided.
]


def check_equal(model, alone):
    """Check that ranks train the same model as one process, with the same bits on every rank."""
    assert_same_fit(model, alone)
    assert_same_bits(get_communicator("mpi"), model)


def compare():
    """Compare fits on all ranks with fits in one process, and print how often a sum was started."""
    numpy_backend._LONG = 0  # Even the shortest fit uses machine code.
    settings = SETTINGS | helpers.QUIET
    alone = MLPClassifier(**settings).fit(X, Y)
    ranks = get_communicator("mpi")
    start_sum, rows = ranks.start_sum, []

    def counted(array):
        rows.append(len(array))
        return start_sum(array)

    ranks.start_sum = counted
    check_equal(MLPClassifier(**settings, distributed="mpi").fit(X, Y), alone)
    ranks.start_sum = start_sum
    if ranks.rank == 0:
        print(rows[:3], len(rows))
    for other in OTHERS:
        given = settings | other
        model = MLPClassifier(**given, distributed="mpi").fit(X, Y)
        check_equal(model, MLPClassifier(**given).fit(X, Y))
    numpy_backend._LONG = np.inf
    check_equal(MLPClassifier(**settings, distributed="mpi").fit(X, Y), alone)


def compare_monotone():
    """Compare fits of a network whose blocks change the gradients of its dense layers."""
    layers = {"hidden_layer_sizes": (150, 60), "monotonic_cst": [1, -1] + [0] * 38}
    settings = SETTINGS | helpers.QUIET | layers | {"solver": "sgd"}
    alone = MLPRegressor(**settings).fit(X, Y)
    check_equal(MLPRegressor(**settings, distributed="mpi").fit(X, Y), alone)


def assign():
    numpy_backend._LONG = 0
    settings = SETTINGS | helpers.QUIET
    ranks = get_communicator("mpi")
    models = [MLPClassifier(**settings, distributed=engine) for engine in (None, "mpi")]
    for model in models:
        for _ in range(3):
            model.partial_fit(X, Y, classes=np.unique(Y))
            for W in model.coefs_:
                W *= 0.9
            ranks.barrier()
    check_equal(models[1], models[0])


def repeat():
    """Compare a second fit on all ranks after one of them has fitted other models."""
    x, rate = helpers.problem(n=64, features=512)[0].astype("float32"), {"learning_rate_init": 0.05}
    settings = SETTINGS | helpers.QUIET | rate | {"hidden_layer_sizes": (256,), "solver": "sgd"}
    ranks = get_communicator("mpi")
    model = MLPClassifier(**settings, distributed="mpi")
    first = model.fit(x, Y).coefs_[0].copy()
    for width in range(4, 10) if ranks.rank == 0 else ():
        MLPClassifier((width,), **helpers.QUIET, max_iter=2).fit(X, Y)
    np.testing.assert_array_equal(model.fit(x, Y).coefs_[0], first)


def compare_torch(engine):
    """Compare PyTorch's fits on ranks with fits in one process, and print the sums in order."""
    settings = SETTINGS | helpers.QUIET | {"backend": "torch"}
    ranks, calls = get_communicator(engine), []
    start_sum, sum_all = ranks.start_sum, ranks.sum

    def started(array):
        calls.append(f"start {array.shape}")
        return start_sum(array)

    def summed(arrays):
        calls.append("sum")
        sum_all(arrays)

    for other in ({}, *OTHERS):
        alone = MLPClassifier(**(settings | other)).fit(X, Y)
        ranks.start_sum, ranks.sum = started, summed
        model = MLPClassifier(**(settings | other), distributed=engine).fit(X, Y)
        ranks.start_sum, ranks.sum = start_sum, sum_all
        assert_same_fit(model, alone)
    if ranks.rank == 0:
        print(", ".join(calls[: calls.index("sum") + 1]))


# Eight steps. Between machines a matrix of 2.4 MB travels in two pieces.
@pytest.mark.parametrize(
    ("n", "variables", "expected"),
    [
        (2, {}, "[600, 40, 600] 16"),
        (2, {"MPIR_CVAR_NOLOCAL": "1"}, "[300, 300, 40] 24"),
        (4, {"MPIR_CVAR_NUM_CLIQUES": "2"}, "[300, 300, 40] 24"),  # Two machines of two.
    ],
)
def test_fits_with_large_layers_match_a_single_process_fit(run_ranks, n, variables, expected):
    pytest.importorskip("numba")
    assert run_ranks(n, compare, **variables).stdout.strip() == expected


@pytest.mark.parametrize(
    ("engine", "variables", "expected"),
    [
        ("mpi", {"MPIR_CVAR_NOLOCAL": "1"}, "start (600, 500), start (40, 600), sum"),
        ("mpi", {}, "sum"),  # One machine.
        ("torch", {}, "sum"),
    ],
)
def test_torch_gradients_are_sent_during_the_backward_pass(run_ranks, engine, variables, expected):
    pytest.importorskip("torch")
    done = run_ranks(2, compare_torch, engine, engine=engine, **variables)
    assert done.stdout.strip() == expected


def test_gradients_that_a_block_changes_are_summed_once(on_threads, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(numpy_backend, "_LONG", 0)
    on_threads(2, compare_monotone)


@pytest.mark.parametrize("check", [assign, repeat])
def test_ranks_do_not_share_weight_memory(run_ranks, check):
    pytest.importorskip("numba")
    run_ranks(2, check)
