"""Fits on ranks are the serial one, to rounding, or with the same bits if deterministic."""

import contextlib
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import trainings
from scipy import sparse
from trainers import FEATURES, N, make_trainer

from mlp_xp import MLPClassifier
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.runtime.thread_pool import thread_pool
from mlp_xp.distributed import Distributed, join_ranks
from mlp_xp.nn.blocks import PBLD, TableInputs
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import SGD
from mlp_xp.optimizers.schedules import Linear
from mlp_xp.training import lbfgs
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import put_data

SHAPE = (1, 4, 4)
PIXELS = 16


def network(outputs=4, inputs=FEATURES, **settings):
    settings["inputs"] = settings.pop("table", None)
    return Network((inputs, 9, 9, outputs), settings.pop("activation", "tanh"), **settings)


@dataclass(frozen=True)
class Case:
    network: Network = field(default_factory=network)
    rules: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 10
    weights: Callable[[int], np.ndarray] | None = None
    placement: str = "auto"
    is_sparse: bool = False
    is_sharded: bool = False
    is_lbfgs: bool = False
    inputs: int = FEATURES


def uneven(n):
    weights = np.random.default_rng(6).random(n)
    weights[:20] = 0.0
    return weights


def mostly_none(n):
    weights = np.zeros(n)
    weights[-3:] = 1.0
    return weights


BATCH_NORM = network(normalization="batch", activation="relu")
# The gradients before a batch normalization are rounding errors around zero, which Adam follows.
STEADY = {"optimizer": SGD(), "learning_rate": 0.1}
WITH_ALL = {"max_grad_norm": 0.2, "ema_decay": 0.9}
PICTURES = Flip(SHAPE), Shift(SHAPE, 1), Cutout(SHAPE, 2), ColorJitter(SHAPE), Mixup()

TABLE = network(
    parametric_activation=True,
    parametrization="ntk",
    dropout=0.2,
    table=TableInputs(FEATURES - 1, categories=(4,), numeric=PBLD(3), scale=True),
)

# Features that backends implement differently. Losses and rules are in the network's cases.
CASES = {
    "plain": Case(),
    "batches of one": Case(batch_size=1),
    "fewer samples than ranks in a batch": Case(batch_size=2, weights=uneven),
    "weights": Case(weights=uneven, rules=WITH_ALL),
    "batches of weight zero": Case(weights=mostly_none, rules=STEADY),
    "dropout": Case(network(dropout=(0.3, 0.2), input_dropout=0.1, activation="relu")),
    "batch norm, weights": Case(BATCH_NORM, STEADY | WITH_ALL, weights=uneven),
    "batch norm, batches of one": Case(BATCH_NORM, STEADY, batch_size=1),
    "batch norm, dropout, residual": Case(
        network(normalization="batch", dropout=0.2, residual=True), STEADY, weights=uneven
    ),
    "table": Case(TABLE, {"dropout_schedule": Linear()} | STEADY, weights=uneven),
    "layer norm": Case(network(normalization="layer", residual=True), WITH_ALL),
    "mixup, weights": Case(rules={"augmentation": (Mixup(),)}, weights=uneven),
    "pictures": Case(
        network(inputs=PIXELS), {"augmentation": PICTURES}, inputs=PIXELS, weights=uneven
    ),
    "batch norm, mixup": Case(BATCH_NORM, STEADY | {"augmentation": (Mixup(),)}),
    "streamed": Case(placement="streamed", weights=uneven),
    "blocks": Case(
        Network((PIXELS, Blocks((4, 4), (0,)), Branch((20, PIXELS)), Project(6), 4), "relu"),
        inputs=PIXELS,
    ),
    "sharded": Case(network(dropout=0.3), is_sharded=True),
    "sharded, weights": Case(BATCH_NORM, STEADY, weights=uneven, is_sharded=True),
    "sharded, streamed": Case(placement="streamed", is_sharded=True),
    "sparse, sharded": Case(is_sparse=True, is_sharded=True),
    "lbfgs": Case(is_lbfgs=True),
    "lbfgs, sharded, weights": Case(is_lbfgs=True, is_sharded=True, weights=uneven),
}
# For backends that compile each case for seconds.
MOST_DIFFERENT = ["batches of one", "batch norm, dropout, residual", "pictures"]
MOST_DIFFERENT += ["sharded, weights", "lbfgs, sharded, weights"]


def data(case):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((N, case.inputs))
    if case.network.inputs is not None:
        x[:, -1] = rng.integers(0, 4, N)  # Codes of categories.
    if case.is_sparse:
        x = sparse.csr_array(np.where(np.abs(x) > 1, x, 0.0))
    return x, rng.integers(0, 4, N).astype(np.int32)


def train(case, backend, ranks):
    x, y = data(case)
    weights = None if case.weights is None else case.weights(N)
    backend, owned = ranks.spread(backend), None
    if case.is_sharded and not ranks.is_single:
        mine = np.random.default_rng(8).integers(0, ranks.size, N) == ranks.rank
        owned = np.full(N, -1, dtype=np.int32)
        owned[mine] = np.arange(np.sum(mine))
        x, y = x[mine], y[mine]
    settings = {"network": case.network, "with_accuracy": True, "processes": ranks} | case.rules
    trainer = make_trainer(backend, **settings)
    placed = put_data(backend, x, y, "float64", case.placement, multiplies_sparse=case.is_sparse)
    if owned is not None:
        placed.n_samples, placed.owned = N, owned
    if case.is_lbfgs:
        stop = {"max_iter": 5, "max_fun": 100, "tol": 0.0}
        found = lbfgs.minimize(
            trainer, placed, weights, after_iteration=lambda params, loss: False, **stop
        )
        return [np.asarray(found), *map(np.asarray, leaves(trainer.learned))]
    found = []
    for epoch in range(2):
        plan = plan_epoch(
            N, case.batch_size, seed=7, epoch=epoch, weights=weights, pad=backend.fixed_shapes
        )
        record = trainer.run_epoch(placed, plan, n_epochs=2, step_by_step=epoch == 0)
        found += [record.loss, record.accuracy, record.n_samples]
    return [np.asarray(found), *map(np.asarray, leaves(trainer.copy()))]


def check(ranks, title, shared, serial) -> None:
    for mine, alone in zip(shared, serial or shared, strict=True):
        np.testing.assert_allclose(mine, alone, rtol=0, atol=1e-10, err_msg=title)
    copies = ranks.exchange([array.tobytes() for array in shared])
    assert all(copy == copies[0] for copy in copies), title


def compare(engine, name, *options):
    ranks, backend = join_ranks(engine), get_backend(name)
    warnings.simplefilter("ignore")
    lbfgs.BLOCK = 20  # Three blocks.
    pool, titles = "pool" in options, [title for title in options if title != "pool"]
    if not titles:
        titles = MOST_DIFFERENT if name in ("jax", "array_api_strict") else [*CASES]
        titles = [title for title in titles if name == "numpy" or not CASES[title].is_sparse]

    def run(title, ranks):
        with thread_pool(1) if pool else contextlib.nullcontext():
            return train(CASES[title], backend, ranks)

    # Each rank does some of the serial fits.
    serial = {title: run(title, join_ranks(None)) for title in titles[ranks.rank :: ranks.size]}
    for title in titles:
        check(ranks, title, run(title, ranks), serial.get(title))


def learned(model):
    numbers = [*model.coefs_, *model.intercepts_, getattr(model, "loss_curve_", model.loss_)]
    return [np.asarray(array, float) for array in numbers]


def compare_estimators(backend):
    ranks, n_cases = join_ranks("mpi"), 0
    warnings.simplefilter("ignore")
    for title, case in trainings.CASES.items():
        if not (case.is_core or backend == "numpy"):
            continue
        X, y = trainings.data(case.kind)
        serial = None
        if n_cases % ranks.size == ranks.rank:
            serial = learned(case.act(case.make(backend), X, y))
        model = case.make(backend).set_params(distributed="mpi")
        check(ranks, title, learned(case.act(model, X, y)), serial)
        n_cases += 1
    assert n_cases > 15


# Ways to sum that differ by what sums: the arithmetic around them is the same.
FEW = "plain", "batch norm, dropout, residual", "pictures"


@pytest.mark.parametrize(
    ("backend", "n"), [("numpy", 4), ("torch", 3), ("jax", 2), ("array_api_strict", 2)]
)
def test_ranks_train_the_same_model_as_one_process(run_ranks, backend, n):
    pytest.importorskip(backend)
    run_ranks(n, compare, "mpi", backend)


def test_ranks_with_machine_code_train_the_same_model_as_one_process(run_ranks):
    pytest.importorskip("numba")
    run_ranks(3, compare, "mpi", "numpy", "pool")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_torchrun_ranks_train_the_same_model_as_one_process(run_ranks, backend):
    pytest.importorskip("torch")
    run_ranks(2, compare, "torch", backend, *FEW, engine="torch")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_all_estimators_fit_the_same_model_as_one_process(run_ranks, backend):
    pytest.importorskip(backend)
    run_ranks(2, compare_estimators, backend)


def test_cupy_ranks_sum_with_nccl(run_ranks):
    pytest.importorskip("ziglang")
    stand_in = str(Path(__file__).parents[1] / "stand_in" / "packages")
    run_ranks(2, compare, "mpi", "cupy", *FEW, path=stand_in)


@pytest.mark.parametrize(
    "titles",
    [
        ["fewer samples than ranks in a batch", "batches of weight zero", "layer norm"],
        ["batch norm, weights", "batch norm, dropout, residual", "weights"],
        ["pictures", "streamed", "blocks"],
        ["sharded, weights", "sharded, streamed", "sparse, sharded", "lbfgs, sharded, weights"],
    ],
)
def test_ranks_in_threads_train_the_same_model_as_one_process(on_threads, titles, monkeypatch):
    monkeypatch.setattr(lbfgs, "BLOCK", 20)
    on_threads(3, compare, "mpi", "numpy", *titles)


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
COLUMNS = 12


def fit(backend, code="", number=None):
    if code:
        from mlp_xp.backends._numpy import backend as module

        module._LONG = 0  # Even the shortest fit uses machine code.
    X, y = helpers.problem(n=107, features=COLUMNS)
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
def test_results_are_bitwise_identical_for_any_number_of_ranks(run_ranks, backend, code, numbers):
    pytest.importorskip(backend)
    found = {n: run_ranks(n, fit, backend, code).stdout for n in numbers}
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_results_are_bitwise_identical_for_any_number_of_threads(on_threads, number):
    found = [on_threads(n, fit, "numpy", "", number) for n in (1, 4)]
    assert len({digest for digests in found for digest in digests}) == 1


def test_settings_that_cannot_be_deterministic_are_rejected(on_threads):
    on_threads(3, refuse)
