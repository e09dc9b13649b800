"""Trainings that ranks share, compared with those of one process; run on ranks by the tests.

``equal_fits.py ENGINE BACKEND [pool] [CASE ...]`` prints a line of JSON on rank 0: for each case
the largest difference to the serial fit, and whether all ranks hold the same bits.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from trainers import FEATURES, N, make_trainer

from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.thread_pool import thread_pool
from mlp_xp.distributed import get_communicator
from mlp_xp.nn import losses
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import SGD, AdamW, BetaLasso, Lion, Muon, RMSprop
from mlp_xp.training import lbfgs
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch

SHAPE = (1, 4, 4)
PIXELS = 16


def network(outputs=4, inputs=FEATURES, **settings):
    return Network((inputs, 9, 9, outputs), settings.pop("activation", "tanh"), **settings)


@dataclass(frozen=True)
class Case:
    """A training of two epochs."""

    network: Network = field(default_factory=network)
    rules: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 10
    targets: str = "labels"
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
    """Return weights with which whole batches weigh nothing."""
    weights = np.zeros(n)
    weights[-3:] = 1.0
    return weights


BATCH_NORM = network(normalization="batch", activation="relu")
# The gradients before a batch normalization are rounding errors around zero, which Adam follows.
STEADY = {"optimizer": SGD(), "learning_rate": 0.1}
WITH_ALL = {"max_grad_norm": 0.2, "ema_decay": 0.9}
PICTURES = Flip(SHAPE), Shift(SHAPE, 1), Cutout(SHAPE, 2), ColorJitter(SHAPE), Mixup()
LOSSES = {
    "cross-entropy": (losses.SoftmaxCrossEntropy(0.1), "labels"),
    "focal": (losses.SoftmaxFocal(), "labels"),
    "shares": (losses.SoftmaxCrossEntropy(), "shares"),
    "binary": (losses.BinaryCrossEntropy(), "several"),
    "binary focal": (losses.BinaryFocal(), "several"),
    "squared": (losses.SquaredError(), "real"),
    "absolute": (losses.AbsoluteError(), "real"),
    "huber": (losses.Huber(0.7), "real"),
    "quantile": (losses.Quantile(0.8), "real"),
    "quantiles": (losses.Quantile((0.1, 0.9)), "pairs"),
    "gaussian": (losses.Gaussian(), "pairs"),
    "poisson": (losses.Poisson(), "counts"),
    "through": (losses.Through(losses.SquaredError(), "logistic"), "shares"),
}
RULES = [
    SGD(momentum=0.0),
    SGD(nesterov=False),
    AdamW(),
    RMSprop(),
    Lion(),
    Muon(),
    BetaLasso(),
]

# What a backend may do in its own way.
FEW = {
    "plain": Case(),
    "batches of one": Case(batch_size=1),
    "fewer samples than ranks in a batch": Case(batch_size=3, weights=uneven),
    "one batch": Case(batch_size=N),
    "weights": Case(weights=uneven, rules=WITH_ALL),
    "batches of weight zero": Case(weights=mostly_none, rules=STEADY),
    "dropout": Case(network(dropout=(0.3, 0.2), input_dropout=0.1, activation="relu")),
    "batch norm": Case(BATCH_NORM, STEADY),
    "batch norm, weights": Case(BATCH_NORM, STEADY | WITH_ALL, weights=uneven),
    "batch norm, batches of one": Case(BATCH_NORM, STEADY, batch_size=1),
    "batch norm, dropout, residual": Case(
        network(normalization="batch", dropout=0.2, residual=True), STEADY, weights=uneven
    ),
    "layer norm": Case(network(normalization="layer", residual=True), WITH_ALL),
    "clipping and average": Case(rules=WITH_ALL),
    "mixup": Case(rules={"augmentation": (Mixup(),)}),
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
    "lbfgs": Case(is_lbfgs=True),
    "lbfgs, sharded, weights": Case(is_lbfgs=True, is_sharded=True, weights=uneven),
}
# What is the same formula everywhere.
MORE = {
    **{
        f"loss {name}": Case(rules={"loss": loss}, targets=targets, weights=uneven)
        for name, (loss, targets) in LOSSES.items()
    },
    **{f"rule {rule!r}": Case(rules={"optimizer": rule, "alpha": 0.1}) for rule in RULES},
    "sparse": Case(is_sparse=True),
    "sparse, sharded": Case(is_sparse=True, is_sharded=True),
}


# Where each case takes seconds to compile.
MOST_DIFFERENT = {
    title: FEW[title]
    for title in (
        "plain",
        "fewer samples than ranks in a batch",
        "batch norm, dropout, residual",
        "pictures",
        "sharded, weights",
        "lbfgs, sharded, weights",
    )
}


def data(case):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((N, case.inputs))
    if case.is_sparse:
        x = sparse.csr_array(np.where(np.abs(x) > 1, x, 0.0))
    y = {
        "labels": rng.integers(0, 4, N).astype(np.int32),
        "several": rng.integers(0, 2, (N, 4)).astype(np.float64),
        "real": rng.standard_normal((N, 4)),
        "counts": rng.poisson(1.0, (N, 4)).astype(np.float64),
        "shares": rng.dirichlet(np.ones(4), N),
        "pairs": rng.standard_normal((N, 2)),
    }
    return x, y[case.targets]


def train(case, backend):
    """Return all that two epochs leave: their records, and the arrays of the state."""
    x, y = data(case)
    weights = None if case.weights is None else case.weights(N)
    ranks, owned = backend.communicator, None
    if case.is_sharded and ranks is not None:
        mine = np.random.default_rng(8).integers(0, ranks.size, N) == ranks.rank
        owned = np.full(N, -1, dtype=np.int32)
        owned[mine] = np.arange(np.sum(mine))
        x, y = x[mine], y[mine]
    trainer = make_trainer(
        backend,
        network=case.network,
        with_accuracy=case.targets == "labels",
        **case.rules,
    )
    placed = place(backend, x, y, "float64", case.placement, multiplies_sparse=case.is_sparse)
    if owned is not None:
        placed.n_samples, placed.owned = N, owned
    if case.is_lbfgs:
        lbfgs.BLOCK = 20  # Three blocks.
        stop = {"max_iter": 5, "max_fun": 100, "tol": 0.0, "verbose": 0}
        found = lbfgs.minimize(
            trainer, placed, weights, after_iteration=lambda params, loss: False, **stop
        )
        return [np.asarray(found), *map(np.asarray, leaves(trainer.learned))]
    found = []
    for epoch in range(2):
        plan = plan_epoch(
            N,
            case.batch_size,
            seed=7,
            epoch=epoch,
            weights=weights,
            pad=backend.fixed_shapes,
        )
        record = trainer.run_epoch(placed, plan, n_epochs=2, step_by_step=epoch == 0)
        found += [record.loss, record.accuracy or 0.0, record.n_samples]
    return [np.asarray(found), *map(np.asarray, leaves(trainer.copy()))]


def chosen(name, has_pool):
    if name in ("jax", "array_api_strict"):
        return MOST_DIFFERENT
    return FEW | MORE if name == "numpy" and not has_pool else FEW


def main(engine, name, *options):
    pool, titles = "pool" in options, set(options) - {"pool"}
    ranks, backend = get_communicator(engine), get_backend(name)
    results = {}
    warnings.simplefilter("ignore", ConvergenceWarning)
    cases = chosen(name, pool)
    wanted = [title for title in cases if not titles or title in titles]

    def run(title, backend):
        with thread_pool(1) if pool else contextlib.nullcontext():
            return train(cases[title], backend)

    # Each rank does some of the serial fits.
    serial = {title: run(title, backend) for title in wanted[ranks.rank :: ranks.size]}
    for number, title in enumerate(wanted):
        shared, difference = run(title, backend.with_ranks(ranks)), None
        if title in serial:
            difference = max(
                float(np.max(np.abs(mine - theirs), initial=0.0))
                for mine, theirs in zip(shared, serial[title], strict=True)
            )
        found = ranks.gather((difference, [array.tobytes() for array in shared]))
        agree = all(copy == found[0][1] for _, copy in found)
        results[title] = found[number % ranks.size][0], agree
    if ranks.rank == 0:
        sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
