"""Layers and networks that the tests go through, and their data."""

import numpy as np
import pytest

from mlp_xp._utils.tree import map_leaves
from mlp_xp.nn.blocks import PBLD, PLE, Context, TableInputs
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.layers import Arrangement, BatchStats, Dense, LayerKernels, Norm, dense
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.nn.network import Network, forward, init_params

BATCH = 8

# As large as the variance: a batch of 1 has a gradient that can be measured, and a formula that
# forgets epsilon is seen.
EPSILON = 0.5

ARRANGEMENTS = {  # Shape, mixed axes, width.
    "last axis": Arrangement((3, 4), (1,), 5),
    "first axis": Arrangement((3, 4), (0,), 5),
    "in place": Arrangement((3, 4), (0,)),
    "squares of an image": Arrangement((3, 2, 2, 2, 2), (0, 2, 4), 7),
    "scattered, in place": Arrangement((2, 3, 2, 2), (0, 2)),
    "everything": Arrangement((3, 4), (0, 1), 6),
}


def dense_params(rng, width):
    return Dense(rng.standard_normal((width, 4)), rng.standard_normal(4))


def norm_params(rng, width):
    return Norm(rng.standard_normal(width), rng.standard_normal(width))


def block_params(how, rng):
    W = rng.standard_normal((how.blocks, how.fan_in, how.fan_out))
    return Dense(W, rng.standard_normal(how.blocks * how.fan_out))


def cube(x, *, xp):
    return x**3 / 10.0, lambda dy: 0.3 * x**2 * dy


# Smooth activations: a difference quotient needs them.
NETWORKS = {
    "plain": Network((5, 6, 4, 3), "tanh"),
    "no hidden layer": Network((5, 3)),
    "no hidden layer, input dropout": Network((5, 3), input_dropout=0.3),
    "of ones": Network((1, 6, 1, 3), "logistic"),
    "activations": Network((5, 6, 4, 3), ("gelu", "silu")),
    "callable": Network((5, 6, 4, 3), ("tanh", cube)),
    "layer": Network((5, 6, 4, 3), "tanh", "layer"),
    "batch": Network((5, 6, 4, 3), "tanh", "batch"),
    "dropout": Network((5, 6, 4, 3), "tanh", None, (0.0, 0.5)),
    "residual": Network((5, 6, 6, 3), "silu", residual=True),
    "everything, layer": Network((5, 5, 5, 6, 3), "gelu", "layer", (0.2, 0.0, 0.4), 0.3, True),
    "everything, batch": Network((5, 5, 5, 6, 3), "silu", "batch", (0.2, 0.0, 0.4), 0.3, True),
}
FEW = ["no hidden layer, input dropout", "activations", "everything, layer", "everything, batch"]
networks = pytest.mark.parametrize("network", [NETWORKS[name] for name in FEW], ids=FEW)

# 24 = 3 x 2 x 4 inputs, in squares of 2 x 2 pixels: 1 x 2 squares.
SQUARES = Blocks((3, 2, 2, 2), mixed=(0, 1, 3), width=6)
BLOCKS = (
    SQUARES,
    Branch((Blocks((2, 3, 2), (0, 1)),)),
    Branch((Blocks((2, 6), (1,), 8), Blocks((2, 8), (1,), 6))),
)
MONOTONE = TableInputs(3, 0, (4,), 2, PLE(4, 3), True, (1, -1, 0))
OBJECTS = {
    "bottlenecks": Network((24, Project(5), Branch((7, 5)), Branch((7, 5)), 3), "tanh", "layer"),
    "no normalization": Network((24, Project(5), Branch((7, 5)), 3), "tanh"),
    "bottleneck, batch": Network((24, Project(5), Branch((7, 5)), 3), "silu", "batch"),
    "blocks": Network((24, *BLOCKS, 3), "tanh"),
    "with a plain layer": Network((24, 5, Branch((4, 5)), 6, 3), "tanh", "layer", 0.3, 0.2),
    "ntk": Network((5, 6, 3), "tanh", "batch", parametrization="ntk"),
    "parametric": Network(
        (5, 6, 6, 3), ("mish", cube), "layer", residual=True, parametric_activation=True
    ),
    "codes": Network((5, 6, 3), "tanh", inputs=TableInputs(2, 1, (3, 4), 3, PBLD(3, 4, 0.3), True)),
    "pieces": Network((4, 6, 3), "tanh", inputs=TableInputs(3, 0, (4,), 2, PLE(4, 3))),
    "monotone": Network((4, 6, 6, 3), "tanh", "batch", residual=True, inputs=MONOTONE),
}


def with_codes(network, x, rng):
    """Return inputs whose last columns are codes, if the network takes codes."""
    categories = () if network.inputs is None else network.inputs.categories
    first = x.shape[-1] - len(categories)
    for i, n in enumerate(categories):
        x[..., first + i] = sum(categories[:i]) + rng.integers(0, n, x.shape[:-1])
    return x


def network_data(network, rng, n=BATCH):
    """Return parameters far from their start, inputs, labels, weights and keys, in NumPy.

    A normalization that does nothing, or a bias of 0, would hide mistakes.
    """
    params = map_leaves(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), init_params(network, 3)
    )
    x = with_codes(network, rng.standard_normal((n, network.sizes[0])), rng)
    labels = rng.integers(0, network.sizes[-1], n).astype(np.int32)
    keys = rng.integers(-(2**31), 2**31, network.n_keys, dtype=np.int32)
    return params, x, labels, rng.random(n) + 0.1, keys


def some_batch_stats(network, rng):
    widths = network.batch_stats_widths
    return tuple(BatchStats(rng.standard_normal(w), rng.random(w) + 0.5) for w in widths)


def loss_and_gradients(backend, network, params, x, labels, weights, keys, *, layer=dense):
    """Compute what a training step does up to the gradients; everything is on the device."""
    xp = backend.xp
    kernels = LayerKernels(layer, sum_rows_of_table=backend.kernels.sum_rows_of_table)
    context = Context(xp, kernels, (), True, weights, keys)
    logits, pull, measured = forward(network, params, x, context, xp=xp)
    value, pullback = mean_loss(SoftmaxCrossEntropy(), logits, labels, weights, xp=xp)
    return value, pull(pullback(), need_dx=False)[1], logits, measured
