"""Layers, blocks and update rules take a stack of models: the numbers of the models one by one."""

import network_cases
import numpy as np
import pytest
from helpers import tolerance
from rules import RULES

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn import layers
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.hidden import Blocks, Branch
from mlp_xp.nn.network import Network, forward, init_batch_stats, init_params
from mlp_xp.optimizers import averaged, clip, init_opt_state, update_tree

N_MODELS, N, FEATURES = 2, 5, 6


def check(backend, function, own, common=()):
    """Check a function of arrays against itself: its own of each model at once, and one by one."""
    with backend.scope():
        together, shared = map_leaves(lambda a: backend.put(np.array(a)), (own, common))
        found = map_leaves(backend.get, function(*together, *shared))
        for i in range(N_MODELS):
            model = rebuild(own, [a[i] for a in leaves(own)])
            one, shared = map_leaves(lambda a: backend.put(np.array(a)), (model, common))
            expected = map_leaves(backend.get, function(*one, *shared))
            assert len(leaves(found)) == len(leaves(expected)) > 0
            for mine, theirs in zip(leaves(found), leaves(expected), strict=True):
                # All models share the statistics of a shared input.
                mine = np.broadcast_to(mine, (N_MODELS, *theirs.shape))
                atol = tolerance(str(theirs.dtype), 64) * (1.0 + np.max(np.abs(theirs)))
                np.testing.assert_allclose(mine[i], theirs, rtol=0, atol=atol)


@pytest.fixture
def draw(rng):
    return lambda *shape: rng.standard_normal((N_MODELS, *shape))


@pytest.mark.parametrize("is_shared", [False, True], ids=["own weights", "shared weights"])
def test_batch_norm_of_stacked_models_matches_separate_models(backend, is_shared, rng, draw):
    """Training uses weighted statistics and updates running ones, which prediction uses."""

    def function(params, dy, x, old, rate, weights):
        y, pullback, new = layers.batch_norm(params, x, weights, xp=backend.xp)
        moved = averaged(old, new, rate, xp=backend.xp)
        fixed, back = layers.apply_norm(params, moved, x, xp=backend.xp)
        return y, pullback(dy, need_dx=True), moved, fixed, back(dy, need_dx=True)

    params, weights = layers.Norm(draw(FEATURES), draw(FEATURES)), rng.random((N_MODELS, N))
    old = layers.BatchStats(draw(FEATURES), rng.random((N_MODELS, FEATURES)))
    own = params, draw(N, FEATURES), draw(N, FEATURES), old, rng.random(N_MODELS)
    check(backend, function, *((own, (weights[0],)) if is_shared else ((*own, weights), ())))


def test_stacked_dropout_with_a_shared_key_matches_separate_models(backend, draw):
    def function(dy, x, key):
        y, pullback = layers.dropout(x, key, 0.4, xp=backend.xp)
        return y, pullback(dy)

    check(backend, function, (draw(N, FEATURES), draw(N, FEATURES)), (np.int32(12345),))


FIRST = {
    "blocks first": Network((6, Blocks((2, 3), (0,)), Branch((12, 6)), 2), "tanh", "layer"),
    "branch first": Network((6, Branch((4, 6)), 2), normalization="batch"),
}
CHOSEN = (
    "everything, layer",
    "everything, batch",
    "bottleneck, batch",
    "blocks",
    "codes",
    "pieces",
    "monotone",
    "parametric",
)
NETWORKS = {name: (network_cases.NETWORKS | network_cases.OBJECTS)[name] for name in CHOSEN} | FIRST


@pytest.mark.parametrize("kernels", ["maths", "backend's"])
@pytest.mark.parametrize("is_shared", [False, True], ids=["own x", "shared x"])
@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_networks_match_separate_networks(backend, name, is_shared, kernels, rng, draw):
    """Forward, backward and the measured statistics in training; a prediction."""
    network = NETWORKS[name]
    models = [init_params(network, seed) for seed in range(N_MODELS)]
    stacked = [np.stack(parts) for parts in zip(*map(leaves, models), strict=True)]
    params = map_leaves(lambda a: a + 0.1 * draw(*a.shape[1:]), rebuild(models[0], stacked))
    stats = map_leaves(lambda a: rng.random((N_MODELS, *a.shape)), init_batch_stats(network))
    keys = rng.integers(-(2**31), 2**31, (N_MODELS, network.n_keys), dtype=np.int32)
    weights = rng.random((N_MODELS, N))
    x = network_cases.with_codes(network, draw(N, network.sizes[0]), rng)
    kernels = Kernels() if kernels == "maths" else backend.kernels

    def function(params, dlogits, stats, keys, weights, x):
        xp = backend.xp
        context = Context(xp, kernels, is_training=True, weights=weights, keys=keys)
        logits, pull, measured = forward(network, params, x, context, xp=xp)
        context = Context(xp, kernels, batch_stats=stats)
        prediction = forward(network, params, x, context, xp=xp)[0]
        return logits, pull(dlogits, need_dx=False)[1], measured, prediction

    own = params, draw(N, network.sizes[-1]), stats, keys, weights
    check(backend, function, *((own, (x[0],)) if is_shared else ((*own, x), ())))


@pytest.mark.parametrize("name", RULES)
def test_updates_of_stacked_models_match_separate_models(backend, name, rng, draw):
    """Run three clipped, penalized steps with all kinds of parameters, and a moving average."""
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
            given = rule, params, grads, opt_state, tuple(coefs), factor
            params, opt_state, penalty = update_tree(*given, n_leading=n_leading, xp=xp)
            mean = averaged(mean, params, factor, xp=xp)
            penalties.append(penalty)
            norms.append(norm)
        return params, opt_state, tuple(penalties), tuple(norms), mean

    check(backend, function, (params, *steps))
