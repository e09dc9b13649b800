"""Networks: what they are built of, forward and back, in training and in prediction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import array_api_compat.numpy
import numpy as np
import pytest
from gradient import check_gradient
from helpers import tolerance
from network_cases import (
    BATCH,
    NETWORKS,
    cube,
    loss_and_gradients,
    network_data,
    networks,
)
from torch_reference import TORCH_ACTIVATIONS

from mlp_xp._utils.random import seeded
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.nn.blocks import Activate, Affine, BatchNorm, Dropout, LayerNorm, Residual
from mlp_xp.nn.layers import Dense, Norm, dense, dropout
from mlp_xp.nn.network import (
    Network,
    denses,
    init_params,
    norms,
    with_layers,
)

# --- what a network is made of -------------------------------------------------------------------


def test_the_blocks_are_in_order():
    network = Network((4, 5, 5, 2), ("tanh", cube), "batch", (0.5, 0.2), 0.1, residual=True)
    first = (
        Dropout(0.1, 0),
        Affine(4, 5),
        BatchNorm(5, 0),
        Activate("tanh"),
        Dropout(0.5, 1),
    )
    inner = (Affine(5, 5), BatchNorm(5, 1), Activate(cube), Dropout(0.2, 2))
    assert network.blocks == (first, (Residual(inner),), (Affine(5, 2),))
    assert (network.n_keys, network.batch_stats_widths) == (3, (5, 5))
    layer = replace(network, normalization="layer", dropout=(0.0, 0.2), residual=False)
    assert layer.blocks[0] == (Dropout(0.1, 0), Affine(4, 5), LayerNorm(5), Activate("tanh"))
    assert layer.blocks[1] == (Affine(5, 5), LayerNorm(5), Activate(cube), Dropout(0.2, 1))
    assert (layer.n_keys, layer.batch_stats_widths) == (2, ())


def test_one_setting_serves_all_hidden_layers():
    one = Network((4, 5, 6, 2), "tanh", dropout=0.5)
    each = Network((4, 5, 6, 2), ("tanh", "tanh"), dropout=(0.5, 0.5))
    assert one.blocks == each.blocks
    assert hash(each) == hash(replace(each))
    # The output layer has neither.
    assert one.blocks[-1] == (Affine(6, 2),)


def test_only_layers_as_wide_as_their_input_are_residual():
    network = Network((4, 4, 5, 5, 5), residual=True)
    kinds = [type(layer[0]) for layer in network.blocks]
    assert kinds == [Residual, Affine, Residual, Affine]


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
    params, *data = network_data(network, rng)
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
    params, x, labels, weights, keys = network_data(network, rng)
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
    params, x, labels, weights, keys = network_data(network, rng)
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
        here = map_leaves(backend.put, network_data(network, rng))
        _, grads, *_ = loss_and_gradients(backend, network, *here, layer=layer)
    assert asked == [True] * (len(network.widths) - 2) + [False]
    shapes = [leaf.shape for leaf in leaves(grads)]
    assert shapes == [leaf.shape for leaf in leaves(here[0])]


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


def test_a_generator_that_is_seeded_again_starts_anew():
    for seed in (3, 2**32 - 1, 3):
        mine, theirs = seeded(seed), np.random.RandomState(seed)
        # An odd number of normal numbers leaves one for the next draw.
        for draw in ("normal", "uniform", "normal"):
            numbers, expected = (getattr(own, draw)(size=3) for own in (mine, theirs))
            np.testing.assert_array_equal(numbers, expected)
    with pytest.raises(ValueError, match="Seed must be between"):
        seeded(-1)


def test_each_thread_has_a_generator_of_its_own():
    mine = seeded(0)
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(seeded, 1).result()
    assert mine is not theirs
    assert mine.random_sample() == np.random.RandomState(0).random_sample()
