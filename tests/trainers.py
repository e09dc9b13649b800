"""A small problem and its trainer, for tests of `training` without estimators."""

import numpy as np

from mlp_xp._utils.tree import leaves
from mlp_xp.backends import to_numpy
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import Adam
from mlp_xp.optimizers.schedules import Cosine
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.input_scaling import standardization
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.trainer import Trainer

N, FEATURES, CLASSES, BATCH = 57, 11, 4, 10


def byte_data(dtype="float64"):
    rng = np.random.default_rng(5)
    x = rng.integers(0, 256, (N, FEATURES), dtype=np.uint8)
    if dtype != "uint8":
        x = (x / 64.0).astype(dtype)
    return x, rng.integers(0, CLASSES, N).astype(np.int32)


def neutral_batch_stats(network):
    """Return the initial running statistics of batch normalization, as NumPy arrays."""
    widths = network.batch_stats_widths
    return tuple(BatchStats(np.zeros(width), np.ones(width)) for width in widths)


def make_trainer(backend, *, dtype="float64", network=None, x=None, **settings):
    network = network or Network((FEATURES, 9, 7, CLASSES), "tanh")
    rules = {"loss": SoftmaxCrossEntropy(), "optimizer": Adam(), "schedule": Cosine()}
    rules |= {"learning_rate": 0.01, "alpha": 0.1} | settings
    names = {"params", "batch_stats", "seed", "with_accuracy", "processes"} & rules.keys()
    given = {"params": init_params(network, 3), "batch_stats": neutral_batch_stats(network)}
    given |= {"seed": 0} | {name: rules.pop(name) for name in names}
    scaling = None if x is None else standardization(backend, x, dtype)
    return Trainer(backend, Rules(network, **rules), dtype=dtype, scaling=scaling, **given)


def place_bytes(backend, kind="float64", dtype="float64", placement="auto"):
    return put_data(backend, *byte_data(kind), dtype, placement)


def plan_for(backend, epoch=0, weights=None):
    return plan_epoch(N, BATCH, seed=7, epoch=epoch, weights=weights, pad=backend.fixed_shapes)


def train(trainer, data=None, n_epochs=2, weights=None):
    data = data or place_bytes(trainer.backend)
    plans = [plan_for(trainer.backend, epoch, weights) for epoch in range(n_epochs)]
    return [trainer.run_epoch(data, plan, n_epochs=n_epochs) for plan in plans]


def host(backend, tree):
    """Return copies of the leaves, because the next step overwrites the state."""
    return [np.array(backend.get(leaf)) for leaf in leaves(tree)]


def learned(trainer):
    return host(trainer.backend, trainer.state.params)


def assert_close(found, expected, *, rtol=0.0, atol=0.0):
    """Compare arrays of any library in pairs; by default, they must be equal."""
    pairs = zip(leaves(tuple(found)), leaves(tuple(expected)), strict=True)
    for i, (mine, reference) in enumerate(pairs):
        np.testing.assert_allclose(
            to_numpy(mine), to_numpy(reference), rtol=rtol, atol=atol, err_msg=f"array {i}"
        )


def assert_same_fit(model, other, tolerance=1e-10):
    """Compare weights and learning curves of two estimators."""
    assert_close(model.coefs_, other.coefs_, atol=tolerance)
    assert_close(model.intercepts_, other.intercepts_, atol=tolerance)
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_", "n_iter_"):
        mine, theirs = (getattr(each, name, None) for each in (model, other))
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=tolerance, err_msg=name)


def assert_same_bits(ranks, model):
    """Check that all ranks have the same bits."""
    arrays = [W.tobytes() for W in (*model.coefs_, *model.intercepts_)], model.n_iter_, model.t_
    assert len({repr(found) for found in ranks.gather(arrays)}) == 1
