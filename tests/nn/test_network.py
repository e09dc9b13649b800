"""Networks: what they are built of, forward and back, in training and in prediction."""

from __future__ import annotations

from dataclasses import replace

import array_api_compat.numpy
import numpy as np
import pytest
from gradient import check_gradient
from helpers import tolerance
from test_gradients import TORCH_ACTIVATIONS

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.nn.blocks import Activate, BatchNorm, Context, Dropout, LayerNorm, Linear, Residual
from mlp_xp.nn.layers import BatchStats, Dense, Norm, dense, dropout
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.nn.network import (
    Network,
    denses,
    forward,
    hidden,
    init_params,
    norms,
    with_layers,
)
from mlp_xp.training.inference import predict

pytestmark = pytest.mark.maths

BATCH = 8


def cube(x, *, xp):
    """Return an activation that a user might write."""
    return x**3 / 10.0, lambda dy: 0.3 * x**2 * dy


# Smooth activations: a difference quotient needs them.
NETWORKS = {
    "plain": Network((5, 6, 4, 3), "tanh"),
    "no hidden layer": Network((5, 3)),
    "no hidden layer, input dropout": Network((5, 3), input_dropout=0.3),
    "activations": Network((5, 6, 4, 3), ("gelu", "silu")),
    "callable": Network((5, 6, 4, 3), ("tanh", cube)),
    "layer": Network((5, 6, 4, 3), "tanh", "layer"),
    "batch": Network((5, 6, 4, 3), "tanh", "batch"),
    "dropout": Network((5, 6, 4, 3), "tanh", None, (0.0, 0.5)),
    "input dropout": Network((5, 6, 4, 3), "tanh", None, 0.0, 0.3),
    "residual": Network((5, 6, 6, 3), "silu", residual=True),
    "residual from the start": Network((5, 5, 5, 3), "tanh", residual=True),
    "everything, layer": Network((5, 5, 5, 6, 3), "gelu", "layer", (0.2, 0.0, 0.4), 0.3, True),
    "everything, batch": Network((5, 5, 5, 6, 3), "silu", "batch", (0.2, 0.0, 0.4), 0.3, True),
}
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def problem(network, rng, n=BATCH):
    """Return parameters far from their start, inputs, labels, weights and keys, in NumPy.

    A normalization that does nothing, or a bias of 0, would hide mistakes.
    """
    params = map_leaves(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), init_params(network, 3)
    )
    x = rng.standard_normal((n, network.widths[0]))
    labels = rng.integers(0, network.widths[-1], n).astype(np.int32)
    keys = rng.integers(-(2**31), 2**31, network.n_keys, dtype=np.int32)
    return params, x, labels, rng.random(n) + 0.1, keys


def some_batch_stats(network, rng):
    widths = network.batch_stats_widths
    return tuple(BatchStats(rng.standard_normal(w), rng.random(w) + 0.5) for w in widths)


def loss_and_gradients(backend, network, params, x, labels, weights, keys, *, layer=dense):
    """Do what a training step does up to the gradients; everything is on the device."""
    xp = backend.xp
    context = Context(xp, layer, (), True, weights, keys)
    logits, backward, measured = forward(network, params, x, context, xp=xp)
    value, pullback = mean_loss(SoftmaxCrossEntropy(), logits, labels, weights, xp=xp)
    return value, backward(pullback()), logits, measured


# --- what a network is made of -------------------------------------------------------------------


def test_the_blocks_are_in_order():
    network = Network((4, 5, 5, 2), ("tanh", cube), "batch", (0.5, 0.2), 0.1, residual=True)
    first = (
        Dropout(0.1, 0),
        Linear(4, 5),
        BatchNorm(5, 0),
        Activate("tanh"),
        Dropout(0.5, 1),
    )
    inner = (Linear(5, 5), BatchNorm(5, 1), Activate(cube), Dropout(0.2, 2))
    assert network.blocks == (first, (Residual(inner),), (Linear(5, 2),))
    assert (network.n_keys, network.batch_stats_widths) == (3, (5, 5))
    layer = replace(network, normalization="layer", dropout=(0.0, 0.2), residual=False)
    assert layer.blocks[0] == (Dropout(0.1, 0), Linear(4, 5), LayerNorm(5), Activate("tanh"))
    assert layer.blocks[1] == (Linear(5, 5), LayerNorm(5), Activate(cube), Dropout(0.2, 1))
    assert (layer.n_keys, layer.batch_stats_widths) == (2, ())


def test_one_setting_serves_all_hidden_layers():
    one = Network((4, 5, 6, 2), "tanh", dropout=0.5)
    each = Network((4, 5, 6, 2), ("tanh", "tanh"), dropout=(0.5, 0.5))
    assert one.blocks == each.blocks
    assert hash(each) == hash(replace(each))
    # The output layer has neither.
    assert one.blocks[-1] == (Linear(6, 2),)


def test_only_layers_as_wide_as_their_input_are_residual():
    network = Network((4, 4, 5, 5, 5), residual=True)
    kinds = [type(layer[0]) for layer in network.blocks]
    assert kinds == [Residual, Linear, Residual, Linear]


def test_weights_start_as_the_activation_asks_for():
    def starts(**settings):
        network = Network((4, 5, 6, 2), **settings)
        return [layer[0].start for layer in network.blocks]

    plain, logistic = "glorot", "glorot-logistic"
    assert starts(activation="relu") == [plain] * 3
    assert starts(activation="logistic") == [logistic] * 3
    assert starts(activation=("tanh", "logistic")) == [plain, logistic, logistic]
    assert starts(activation=("logistic", cube)) == [logistic, plain, plain]


@networks
def test_parameters_have_their_shapes(network):
    params = init_params(network, 0)
    pairs = list(zip(network.widths, network.widths[1:], strict=False))
    assert [layer.W.shape for layer in denses(params)] == pairs
    assert [layer.b.shape for layer in denses(params)] == [(fan_out,) for _, fan_out in pairs]
    hidden_widths = network.widths[1:-1] if network.normalization else ()
    assert [norm.scale.shape for norm in norms(params)] == [(w,) for w in hidden_widths]
    for norm in norms(params):
        assert norm.scale.tolist() == [1.0] * len(norm.scale)
        assert norm.shift.tolist() == [0.0] * len(norm.shift)
    for (fan_in, fan_out), layer in zip(pairs, denses(params), strict=True):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.3 * bound < np.abs(layer.W).max() <= bound
    kinds = {float, *(type(leaf.flat[0]) for leaf in leaves(params))}
    assert kinds == {float, np.float64}


@networks
def test_layers_go_back_into_their_structure(network):
    params = init_params(network, 0)
    built = with_layers(network, denses(params), norms(params))
    assert all(a is b for a, b in zip(leaves(built), leaves(params), strict=True))
    # The same tree, down to the types: a compiled step would be traced again for another one.
    names = rebuild(params, map(str, range(len(list(leaves(params))))))
    assert rebuild(built, leaves(names)) == names
    assert repr(rebuild(built, leaves(names))) == repr(names)


def test_the_same_seed_gives_the_same_parameters():
    network = NETWORKS["everything, batch"]
    first, second, other = (init_params(network, seed) for seed in (1, 1, 2))
    for a, b in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(denses(first)[0].W, denses(other)[0].W)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (3,)}, r"widths is \(3,\), and must name inputs.*e\.g\. \(3072, 512, 10\)"),
        ({"widths": (3, 0, 2)}, r"widths is \(3, 0, 2\), and must .* at least 1 wide"),
        ({"activation": "sigmoid"}, "activation is 'sigmoid', and must be one of .*'logistic'"),
        ({"activation": ("relu", "sigmoid")}, "activation is 'sigmoid', and must be one of"),
        ({"activation": ("relu",)}, "activation has 1 entries, .* and there are 2 hidden layers"),
        ({"dropout": (0.1, 0.2, 0.3)}, "dropout has 3 entries, .* give one entry for each"),
        ({"dropout": 1.0}, r"dropout is 1\.0, and must be at least 0 and below 1"),
        ({"dropout": (0.0, -0.1)}, r"dropout is -0\.1, and must be"),
        ({"input_dropout": float("nan")}, "input_dropout is nan, and must be"),
        ({"normalization": "group"}, "normalization is 'group', and must be 'layer', 'batch' or"),
        # Without hidden layers nothing would use them, and a typing error would go unseen.
        ({"widths": (3, 2), "activation": "sigmoid"}, "activation is 'sigmoid'"),
        ({"widths": (3, 2), "dropout": 2.0}, r"dropout is 2\.0"),
        ({"widths": (3, 2), "activation": ("relu",)}, "there are 0 hidden layers"),
    ],
)
def test_errors_say_what_to_do(settings, message):
    with pytest.raises(ValueError, match=message):
        Network(**({"widths": (3, 4, 4, 2)} | settings))


# --- gradients -----------------------------------------------------------------------------------


@networks
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_networks(backend, network, weighted, rng):
    params, *data = problem(network, rng)
    if not weighted:
        data[2] = None

    # A normalization bends fast: a difference along a shorter direction has a smaller error, h^4.
    size = 0.25

    def function(point):
        here = [None if array is None else backend.put(array) for array in data]
        point = map_leaves(lambda leaf: leaf * size, point)
        value, grads, *_ = loss_and_gradients(backend, network, point, *here)
        return value, map_leaves(lambda leaf: leaf * size, grads)

    check_gradient(backend, function, map_leaves(lambda leaf: leaf / size, params), rng)


def torch_logits(torch, network, arrays, x, weights, keys):
    """Return the logits, written plainly from the network's settings with torch's functions."""
    remaining, key = iter(arrays), iter(keys)
    share = weights / weights.sum()
    n_hidden = len(network.widths) - 2
    activations = network.activation
    activations = activations if isinstance(activations, tuple) else (activations,) * n_hidden
    rates = network.dropout if isinstance(network.dropout, tuple) else (network.dropout,) * n_hidden

    def dropped(h, rate):
        if not rate:
            return h
        ones = np.ones(tuple(h.shape))
        mask, _ = dropout(ones, np.asarray(next(key)), rate, xp=array_api_compat.numpy)
        assert 0 < np.count_nonzero(mask) < mask.size
        return h * torch.tensor(mask)

    h = dropped(x, network.input_dropout)
    for i in range(n_hidden):
        z = h @ next(remaining) + next(remaining)
        if network.normalization == "layer":
            z = torch.nn.functional.layer_norm(z, z.shape[1:], next(remaining), next(remaining))
        elif network.normalization == "batch":
            z = z - share @ z
            z = z / torch.sqrt(share @ z**2 + 1e-5) * next(remaining) + next(remaining)
        name = activations[i]
        y = z**3 / 10.0 if name is cube else TORCH_ACTIVATIONS[name](torch, z)
        y = dropped(y, rates[i])
        h = h + y if network.residual and y.shape == h.shape else y
    return h @ next(remaining) + next(remaining)


@networks
@pytest.mark.parametrize("padded", [False, True])
def test_networks_against_torchs_autograd(torch, backend, network, padded, rng):
    params, x, labels, weights, keys = problem(network, rng)
    if padded:
        weights[-3:] = 0.0
    with backend.scope():
        here = map_leaves(backend.put, (params, x, labels, weights, keys))
        value, grads, logits, _ = loss_and_gradients(backend, network, *here)
        ours = [backend.get(array) for array in (value, logits, *leaves(grads))]

    with torch.enable_grad():
        free = [torch.tensor(leaf, requires_grad=True) for leaf in leaves(params)]
        w = torch.tensor(weights)
        z = torch_logits(torch, network, free, torch.tensor(x), w, keys)
        each = torch.nn.functional.cross_entropy(z, torch.tensor(labels).long(), reduction="none")
        loss = (each * w).sum() / w.sum()
        loss.backward()
    theirs = [loss.detach(), z.detach(), *(array.grad for array in free)]
    for mine, reference in zip(ours, theirs, strict=True):
        scale = max(1.0, float(reference.abs().max()))
        atol = scale * tolerance("float64", BATCH * max(network.widths))
        np.testing.assert_allclose(mine, reference.numpy(), rtol=0, atol=atol)


@networks
def test_rows_of_weight_0_change_nothing(backend, network, rng):
    params, x, labels, weights, keys = problem(network, rng)
    results = []
    for padding in (0, 3):
        more = 100 * rng.standard_normal((padding, x.shape[1]))
        batch = (
            np.concatenate([x, more]),
            np.concatenate([labels, labels[:padding]]),
            np.concatenate([weights, np.zeros(padding)]),
        )
        with backend.scope():
            here = map_leaves(backend.put, (params, *batch, keys))
            value, grads, logits, measured = loss_and_gradients(backend, network, *here)
            found = [value, logits[:BATCH, :], *leaves(grads), *leaves(measured)]
            results.append([backend.get(array) for array in found])
    assert len(results[0]) == 2 + len(list(leaves(params))) + 2 * len(network.batch_stats_widths)
    for whole, padded in zip(*results, strict=True):
        atol = max(1.0, np.abs(whole).max()) * tolerance("float64", BATCH * max(network.widths))
        np.testing.assert_allclose(padded, whole, rtol=0, atol=atol)


@networks
def test_no_dx_is_computed_for_the_first_dense_layer(backend, network, rng):
    asked = []

    def layer(params, x, *, xp):
        y, pull = dense(params, x, xp=xp)

        def pullback(dy, *, need_dx):
            asked.append(need_dx)
            return pull(dy, need_dx=need_dx)

        return y, pullback

    with backend.scope():
        here = map_leaves(backend.put, problem(network, rng))
        _, grads, *_ = loss_and_gradients(backend, network, *here, layer=layer)
    assert asked == [True] * (len(network.widths) - 2) + [False]
    shapes = [leaf.shape for leaf in leaves(grads)]
    assert shapes == [leaf.shape for leaf in leaves(here[0])]


# --- prediction ----------------------------------------------------------------------------------


@networks
def test_hidden_is_what_the_next_layer_is_given(backend, network, rng):
    given = []

    def layer(params, x, *, xp):
        given.append(x)
        return dense(params, x, xp=xp)

    params, x, *_ = problem(network, rng)
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
    params, x, *_ = problem(network, rng)
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
    params, x, *_ = problem(network, rng)
    (batch_stats,) = some_batch_stats(network, rng)
    (W, b), (scale, shift), (V, c) = params
    z = (x @ W + b - batch_stats.mean) / np.sqrt(batch_stats.variance + 1e-5) * scale + shift
    expected = np.tanh(z) @ V + c
    y = predict(backend, network, None, params, x, batch_stats=(batch_stats,), dtype="float64")
    np.testing.assert_allclose(backend.get(y), expected, rtol=0, atol=tolerance("float64", 6))


def test_dropout_is_for_training_only(backend, rng):
    dropping = Network((5, 6, 6, 3), dropout=0.5, input_dropout=0.5)
    params, x, labels, weights, keys = problem(dropping, rng)
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


def test_a_prediction_with_batch_norm_has_no_way_back(backend, rng):
    network = NETWORKS["batch"]
    params, x, *_ = problem(network, rng)
    with backend.scope():
        params, x, batch_stats = map_leaves(
            backend.put, (params, x, some_batch_stats(network, rng))
        )
        context = Context(backend.xp, dense, batch_stats)
        logits, backward, measured = forward(network, params, x, context, xp=backend.xp)
        assert measured == ()
        with pytest.raises(RuntimeError, match="is for prediction only"):
            backward(logits)


def test_parameters_are_dense_layers_and_norms():
    params = init_params(NETWORKS["everything, layer"], 0)
    kinds = [type(entry) for entry in params]
    assert kinds == [tuple, tuple, Dense, Norm, Dense]
    assert [type(entry) for entry in params[0]] == [Dense, Norm]


def test_a_normalization_leaves_the_initial_weights_as_they_are():
    plain, normalized = (
        denses(init_params(Network((4, 3, 3, 2), normalization=kind), 0))
        for kind in (None, "batch")
    )
    for mine, theirs in zip(plain, normalized, strict=True):
        np.testing.assert_array_equal(mine.W, theirs.W)
