"""Predictions of a network: no sample depends on another, and nothing is random."""

from __future__ import annotations

import numpy as np
from helpers import tolerance
from network_cases import (
    BATCH,
    NETWORKS,
    loss_and_gradients,
    network_data,
    networks,
    some_batch_stats,
)

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.layers import dense
from mlp_xp.nn.network import (
    Network,
    forward,
    hidden,
)
from mlp_xp.training.inference import predict


@networks
def test_hidden_is_what_the_next_layer_is_given(backend, network, rng):
    given = []

    def layer(params, x, *, xp):
        given.append(x)
        return dense(params, x, xp=xp)

    params, x, *_ = network_data(network, rng)
    batch_stats = some_batch_stats(network, rng)
    with backend.scope():
        params, x, batch_stats = map_leaves(backend.put, (params, x, batch_stats))
        context = Context(backend.xp, layer, batch_stats)
        forward(network, params, x, context, xp=backend.xp)
        inputs = list(given)
        assert len(inputs) == len(network.widths) - 1
        for depth, expected in enumerate(inputs):
            given.clear()
            found = backend.get(hidden(network, params, x, context, depth))
            assert len(given) == depth
            assert found.shape == (BATCH, network.widths[depth])
            np.testing.assert_array_equal(found, backend.get(expected))


@networks
def test_a_prediction_does_not_depend_on_the_other_samples(backend, network, rng):
    params, x, *_ = network_data(network, rng)
    batch_stats = some_batch_stats(network, rng)

    def outputs(rows, depth=None):
        y = predict(
            backend,
            network,
            None,
            params,
            x[rows],
            batch_stats=batch_stats,
            depth=depth,
            dtype="float64",
        )
        return backend.get(y)

    for depth in (None, len(network.widths) - 2):
        whole = outputs(slice(None), depth)
        atol = np.abs(whole).max() * tolerance("float64", max(network.widths))
        for row in (0, BATCH - 1):
            alone = outputs([row], depth)
            np.testing.assert_allclose(alone, whole[[row]], rtol=0, atol=atol)


def test_batch_norm_predicts_with_the_running_moments(backend, rng):
    network = Network((5, 6, 3), "tanh", "batch", 0.5, 0.5)
    params, x, *_ = network_data(network, rng)
    (batch_stats,) = some_batch_stats(network, rng)
    (W, b), (scale, shift), (V, c) = params
    z = (x @ W + b - batch_stats.mean) / np.sqrt(batch_stats.variance + 1e-5) * scale + shift
    expected = np.tanh(z) @ V + c
    y = predict(backend, network, None, params, x, batch_stats=(batch_stats,), dtype="float64")
    np.testing.assert_allclose(backend.get(y), expected, rtol=0, atol=tolerance("float64", 6))


def test_dropout_is_for_training_only(backend, rng):
    dropping = Network((5, 6, 6, 3), dropout=0.5, input_dropout=0.5)
    params, x, labels, weights, keys = network_data(dropping, rng)
    with backend.scope():
        here = map_leaves(backend.put, (params, x, labels, weights, keys))
        context = Context(backend.xp, dense, keys=here[-1])
        found, *_ = forward(dropping, here[0], here[1], context, xp=backend.xp)
        default, *_ = forward(dropping, here[0], here[1], xp=backend.xp)
        expected, *_ = forward(Network((5, 6, 6, 3)), here[0], here[1], xp=backend.xp)
        trained = loss_and_gradients(backend, dropping, *here)[2]
        found, default, expected, trained = map(backend.get, (found, default, expected, trained))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(default, expected)
    assert not np.allclose(found, trained, atol=0.01)


def test_a_prediction_with_batch_norm_measures_nothing(backend, rng):
    network = NETWORKS["batch"]
    params, x, *_ = network_data(network, rng)
    with backend.scope():
        params, x, batch_stats = map_leaves(
            backend.put, (params, x, some_batch_stats(network, rng))
        )
        context = Context(backend.xp, dense, batch_stats)
        logits, backward, measured = forward(network, params, x, context, xp=backend.xp)
        assert measured == ()
        shapes = [grad.shape for grad in leaves(backward(logits))]
        assert shapes == [param.shape for param in leaves(params)]
