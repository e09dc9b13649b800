"""Layers, blocks and update rules take a stack of models: the numbers of the models one by one."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tolerance
from rules import RULES

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.layers import (
    ACTIVATIONS,
    Arrangement,
    BatchStats,
    Dense,
    Norm,
    activate,
    apply_norm,
    batch_norm,
    block_dense,
    dense,
    dropout,
    layer_norm,
)
from mlp_xp.nn.network import Network, forward, init_batch_stats, init_params
from mlp_xp.optimizers import averaged, clip, init_opt_state, update_tree

N_MODELS, N, FEATURES = 3, 5, 6
JOINED, APART = Arrangement((2, 3), (1,), 4), Arrangement((3, 2), (0,))


def check(backend, function, own, common=()):
    """Check a function of arrays against itself: its own of each model at once, and one by one."""
    with backend.scope():
        together, shared = map_leaves(lambda a: backend.put(np.array(a)), (own, common))
        found = map_leaves(backend.get, function(*together, *shared))
        for i in range(N_MODELS):
            model = rebuild(own, [a[i] for a in leaves(own)])
            one, shared = map_leaves(lambda a: backend.put(np.array(a)), (model, common))
            expected = map_leaves(backend.get, function(*one, *shared))
            assert len(list(leaves(found))) == len(list(leaves(expected))) > 0
            for mine, theirs in zip(leaves(found), leaves(expected), strict=True):
                # Statistics of a shared input are those of all models.
                mine = np.broadcast_to(mine, (N_MODELS, *theirs.shape))
                atol = tolerance(str(theirs.dtype), 64) * (1.0 + np.max(np.abs(theirs)))
                np.testing.assert_allclose(mine[i], theirs, rtol=0, atol=atol)


def affine_case(shape, n_outputs):
    return lambda draw: (Dense(draw(*shape), draw(n_outputs)), draw(N, n_outputs))


def norm_case(draw):
    return Norm(draw(FEATURES), draw(FEATURES)), draw(N, FEATURES)


def run_layer(layer, params, dy, x, *settings, xp):
    y, pullback, *measured = layer(params, x, *settings, xp=xp)
    return y, pullback(dy, need_dx=True), measured[0] if measured else ()


LAYERS = {
    "dense": (affine_case((FEATURES, 4), 4), dense, ()),
    "one output": (affine_case((FEATURES, 1), 1), dense, ()),
    "blocks joined": (affine_case((2, 3, 4), 8), block_dense, (JOINED,)),
    "blocks apart": (affine_case((2, 3, 3), 6), block_dense, (APART,)),
    "layer norm": (norm_case, layer_norm, ()),
    "batch norm": (norm_case, batch_norm, (None,)),
}


@pytest.fixture
def draw(rng):
    return lambda *shape: rng.standard_normal((N_MODELS, *shape))


@pytest.mark.parametrize("kernel", [False, True], ids=["maths", "kernel"])
@pytest.mark.parametrize("is_shared", [False, True], ids=["own x", "shared x"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_parameters(backend, name, is_shared, kernel, draw):
    case, layer, settings = LAYERS[name]
    if kernel and layer in (dense, block_dense):
        layer = backend.kernels.dense
    x = draw(N, FEATURES)

    def function(params, dy, x):
        return run_layer(layer, params, dy, x, *settings, xp=backend.xp)

    own = case(draw)
    check(backend, function, *((own, (x[0],)) if is_shared else ((*own, x), ())))


@pytest.mark.parametrize("is_shared", [False, True], ids=["own weights", "shared weights"])
def test_batch_norm_with_weights(backend, is_shared, rng, draw):
    def function(params, dy, x, weights):
        return run_layer(batch_norm, params, dy, x, weights, xp=backend.xp)

    own, weights = (*norm_case(draw), draw(N, FEATURES)), rng.random((N_MODELS, N))
    check(backend, function, *((own, (weights[0],)) if is_shared else ((*own, weights), ())))


def test_running_statistics(backend, rng, draw):
    def function(params, x, old, new, rate):
        y, pullback = apply_norm(params, old, x, xp=backend.xp)
        return averaged(old, new, rate, xp=backend.xp), y, pullback(y, need_dx=True)

    old, new = (BatchStats(draw(FEATURES), rng.random((N_MODELS, FEATURES))) for _ in range(2))
    own = norm_case(draw)[0], draw(N, FEATURES), old, new
    check(backend, function, own, (np.asarray(0.3),))


@pytest.mark.parametrize("kernel", [False, True], ids=["maths", "kernel"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(backend, name, kernel, draw):
    def function(x, dy):
        y, pullback = (backend.kernels.activate if kernel else activate)(name, x, xp=backend.xp)
        return y, pullback(dy)

    check(backend, function, (draw(N, FEATURES), draw(N, FEATURES)))


@pytest.mark.parametrize("shared", ["nothing", "x", "key"])
def test_dropout(backend, shared, rng, draw):
    def function(dy, x, key):
        y, pullback = dropout(x, key, 0.4, xp=backend.xp)
        return y, pullback(dy)

    x, dy = draw(N, FEATURES), draw(N, FEATURES)
    keys = rng.integers(-(2**31), 2**31, N_MODELS, dtype=np.int32)
    if shared == "x":
        check(backend, lambda dy, key, x: function(dy, x, key), (dy, keys), (x[0],))
    elif shared == "key":
        check(backend, function, (dy, x), (keys[0],))
    else:
        check(backend, function, (dy, x, keys))


NETWORKS = {
    "batch": Network((6, 5, 5, 2), ("gelu", "relu"), "batch", 0.4, 0.2, residual=True),
    "layer": Network((6, 5, 5, 2), "logistic", "layer", residual=True),
    "objects": Network(
        (6, Project(8), Branch((Blocks((2, 4), (1,), 3), 8)), 5, 2), "silu", "batch", 0.3
    ),
    "blocks first": Network((6, Blocks((2, 3), (0,)), Branch((12, 6)), 2), "tanh", "layer"),
    "branch first": Network((6, Branch((4, 6)), 2), normalization="batch"),
}


@pytest.mark.parametrize("is_shared", [False, True], ids=["own x", "shared x"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(backend, name, is_shared, rng, draw):
    """Forward, backward and the measured statistics in training; a prediction."""
    network = NETWORKS[name]
    models = [init_params(network, seed) for seed in range(N_MODELS)]
    stacked = [np.stack(parts) for parts in zip(*map(leaves, models), strict=True)]
    params = map_leaves(lambda a: a + 0.1 * draw(*a.shape[1:]), rebuild(models[0], stacked))
    stats = map_leaves(lambda a: rng.random((N_MODELS, *a.shape)), init_batch_stats(network))
    keys = rng.integers(-(2**31), 2**31, (N_MODELS, network.n_keys), dtype=np.int32)
    weights, x = rng.random((N_MODELS, N)), draw(N, FEATURES)

    def function(params, dlogits, stats, keys, weights, x):
        xp, kernels = backend.xp, backend.kernels
        context = kernels.context(xp, is_training=True, weights=weights, keys=keys)
        logits, backward, measured = forward(network, params, x, context, xp=xp)
        prediction = kernels.context(xp, batch_stats=stats)
        return (
            logits,
            backward(dlogits),
            measured,
            forward(network, params, x, prediction, xp=xp)[0],
        )

    own = params, draw(N, 2), stats, keys, weights
    check(backend, function, *((own, (x[0],)) if is_shared else ((*own, x), ())))


@pytest.mark.parametrize("l2", [False, True], ids=["", "l2"])
@pytest.mark.parametrize("name", RULES)
def test_update_rules(backend, name, l2, rng, draw):
    """Three steps, clipped, of matrices, blocks, vectors and the head; and a moving average."""
    rule, xp = RULES[name], backend.xp
    shapes = (4, 6), (6,), (2, 3, 2), (4,), (4, 2), (2,)
    params = tuple(draw(*shape) for shape in shapes)
    steps = tuple(tuple(draw(*shape) for shape in shapes) for _ in range(3))

    def function(params, *steps):
        n_leading = params[1].ndim - 1
        opt_state = init_opt_state(rule, params, xp=xp)
        mean, penalties, norms = map_leaves(xp.zeros_like, params), [], []
        for t, grads in enumerate(steps, start=1):
            scalars = backend.put(np.asarray((*rule.coefficients(0.05, t), 0.3)))
            *coefs, factor = (scalars[i] for i in range(scalars.shape[0]))
            grads, norm = clip(grads, 2.0, n_leading=n_leading, xp=xp)
            done = update_tree(
                rule, params, grads, opt_state, tuple(coefs), factor if l2 else None,
                n_leading=n_leading, xp=xp,
            )  # fmt: skip
            params, opt_state = done.params, done.opt_state
            mean = averaged(mean, params, factor, xp=xp)
            penalties += [done.penalty] if l2 else []
            norms.append(norm)
        return params, opt_state, tuple(penalties), tuple(norms), mean

    check(backend, function, (params, *steps))
