"""Networks: what they are built of, forward and back, in training and in prediction."""

from dataclasses import replace

import array_api_compat.numpy as xp
import network_cases as cases
import numpy as np
import pytest
from helpers import tolerance
from network_cases import BATCH, NETWORKS, cube, network_data

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.entries import denses, entries
from mlp_xp.nn.layers import Dense, LayerKernels, Norm, dense
from mlp_xp.nn.network import Network, adapt_params, forward, hidden, init_params, with_layers
from mlp_xp.training.inference.inference import predict


def test_weight_initialization_follows_the_activation():
    plain, logistic = "glorot", "glorot-logistic"
    for activation, expected in (
        ("relu", [plain] * 3),
        ("logistic", [logistic] * 3),
        (("tanh", "logistic"), [plain, logistic, logistic]),
        (("logistic", cube), [logistic, plain, plain]),
    ):
        network = Network((4, 5, 6, 2), activation)
        assert [layer[0].start for layer in network.blocks] == expected


def test_ntk_weights_are_initialized_from_the_data(rng):
    network = Network((5, 400, 3), "relu", parametrization="ntk")
    x, params = 3.0 + rng.standard_normal((100, 5)), init_params(network, 0)
    assert [round(float(np.std(layer.W)), 1) for layer in params] == [1.0, 1.0]
    first, last = adapt_params(network, params, x, np.random.RandomState(0).uniform, xp=xp)
    h = x @ first.W / np.sqrt(5)
    np.testing.assert_allclose(h.std(axis=0), 1.0)
    assert np.all((h.min(axis=0) < -first.b) & (-first.b < h.max(axis=0)))
    assert abs(float(np.mean(h + first.b))) < 0.1
    np.testing.assert_allclose((np.maximum(h + first.b, 0) @ last.W / 20).std(axis=0), 1.0)


@pytest.mark.parametrize("widths", [(3, 16, 16, 1), (3, 1, 1), (3, 8, 1, 8, 1)])
@pytest.mark.parametrize("normalization", [None, "layer"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1, 1e-30])
def test_ntk_does_not_scale_rounding_errors(value, normalization, widths):
    network = Network(widths, "relu", normalization, parametrization="ntk")
    x, uniform = np.full((50, 3), value), np.random.RandomState(0).uniform
    params = adapt_params(network, init_params(network, 0), x, uniform, xp=xp)
    params = map_leaves(lambda leaf: leaf.astype(np.float32), params)
    y = forward(network, params, x.astype(np.float32), Context(xp), xp=xp)[0]
    assert np.ptp(y) < 1e-6
    assert np.max(np.abs(y)) < 1.5
    # The other features decide how an output is scaled.
    x[:, 0] += value * np.random.RandomState(1).standard_normal(50)
    first = adapt_params(network, init_params(network, 0), x, uniform, xp=xp)[0]
    if value:
        np.testing.assert_allclose((x @ first.W / 3**0.5).std(axis=0), 1.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_parameters_have_the_right_shapes_and_bounds(name):
    network = NETWORKS[name]
    params = init_params(network, 0)
    pairs = list(zip(network.widths, network.widths[1:], strict=False))
    assert [layer.W.shape for layer in denses(params)] == pairs
    assert [layer.b.shape for layer in denses(params)] == [(fan_out,) for _, fan_out in pairs]
    hidden_widths = network.widths[1:-1] if network.normalization else ()
    norms = [entry for entry in entries(params) if isinstance(entry, Norm)]
    for norm, width in zip(norms, hidden_widths, strict=True):
        assert norm.scale.tolist() == [1.0] * width
        assert norm.shift.tolist() == [0.0] * width
    numerator = 2 if network.activation == "logistic" else 6
    for (fan_in, fan_out), layer in zip(pairs, denses(params), strict=True):
        bound = (numerator / (fan_in + fan_out)) ** 0.5
        assert 0.3 * bound < np.abs(layer.W).max() <= bound
        assert 0.0 < np.abs(layer.b).max() <= bound
    assert {leaf.dtype for leaf in leaves(params)} == {np.dtype("float64")}


def test_with_layers_restores_the_parameter_structure():
    for network in NETWORKS.values():
        params = init_params(network, 0)
        built = with_layers(network, sorted(entries(params), key=lambda e: isinstance(e, Dense)))
        assert all(a is b for a, b in zip(leaves(built), leaves(params), strict=True))
        # The same tree, down to the types: a compiled step would be traced again for another one.
        names = rebuild(params, map(str, range(len(leaves(params)))))
        assert rebuild(built, leaves(names)) == names
        assert repr(rebuild(built, leaves(names))) == repr(names)
    params = init_params(NETWORKS["everything, layer"], 0)
    assert [type(entry) for entry in params] == [tuple, tuple, Dense, Norm, Dense]
    assert [type(entry) for entry in params[0]] == [Dense, Norm]


def test_a_seed_gives_the_same_parameters_with_and_without_normalization():
    network = NETWORKS["everything, batch"]
    first, second, other = (init_params(network, seed) for seed in (1, 1, 2))
    for a, b in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(denses(first)[0].W, denses(other)[0].W)
    plain = init_params(replace(network, normalization=None), 1)
    for mine, theirs in zip(denses(first), denses(plain), strict=True):
        np.testing.assert_array_equal(mine.W, theirs.W)


WRONG = [
    ({"widths": (3,)}, r"`widths` must be the widths.* e\.g\. \(3072, 512, 10\), got \(3,\)"),
    ({"widths": (3, 0, 2)}, r"`widths` must be the widths, at least 1, .* got \(3, 0, 2\)"),
    ({"activation": "sigmoid"}, "`activation` must be one of .*'logistic'.*'sigmoid'"),
    ({"activation": ("relu", "sigmoid")}, "`activation` must be one of .*'sigmoid'"),
    ({"activation": ("relu",)}, "`activation` must be a single .* for each of the 2 hidden"),
    ({"dropout": (0.1, 0.2, 0.3)}, "`dropout` must be a single .* hidden layers, got"),
    ({"dropout": 1.0}, r"`dropout` must be at least 0 and below 1, got 1\.0"),
    ({"dropout": (0.0, -0.1)}, r"`dropout` must be .* got -0\.1"),
    ({"input_dropout": float("nan")}, "`input_dropout` must be .* got nan"),
    ({"normalization": "group"}, "`normalization` must be 'layer', .* 'group'"),
    # Without hidden layers, nothing would use the setting, and a typing error would go unnoticed.
    ({"widths": (3, 2), "activation": "sigmoid"}, "`activation` must .* got 'sigmoid'"),
    ({"widths": (3, 2), "dropout": 2.0}, r"`dropout` must .* got 2\.0"),
    ({"widths": (3, 2), "activation": ("relu",)}, "each of the 0 hidden layers"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_network_errors_say_what_to_do(settings, message):
    with pytest.raises(ValueError, match=message):
        Network(**({"widths": (3, 4, 4, 2)} | settings))


@cases.networks
def test_rows_with_zero_weight_change_nothing(backend, network, rng):
    params, x, labels, weights, keys = network_data(network, rng)
    results = []
    for padding in (0, 3):
        more = 100 * rng.standard_normal((padding, x.shape[1])), labels[:padding], [0.0] * padding
        pairs = zip((x, labels, weights), more, strict=True)
        with backend.scope():
            batch = [np.concatenate(pair) for pair in pairs]
            here = map_leaves(backend.put, (params, *batch, keys))
            value, grads, logits, measured = cases.loss_and_gradients(backend, network, *here)
            found = [value, logits[:BATCH, :], *leaves(grads), *leaves(measured)]
            results.append([backend.get(array) for array in found])
    assert len(results[0]) == 2 + len(leaves(params)) + 2 * len(network.batch_stats_widths)
    for whole, padded in zip(*results, strict=True):
        atol = max(1.0, np.abs(whole).max()) * tolerance("float64", BATCH * max(network.widths))
        np.testing.assert_allclose(padded, whole, rtol=0, atol=atol)


class Spy:
    """A dense layer that notes its inputs, and whether a pullback is asked for their gradients."""

    def __init__(self):
        self.inputs, self.asked = [], []

    def __call__(self, params, x, *, xp):
        self.inputs.append(x)
        y, pull = dense(params, x, xp=xp)

        def pullback(dy, *, need_dx):
            self.asked.append(need_dx)
            return pull(dy, need_dx=need_dx)

        return y, pullback


@cases.networks
def test_no_dx_is_computed_for_the_first_dense_layer(backend, network, rng):
    layer = Spy()
    with backend.scope():
        here = map_leaves(backend.put, network_data(network, rng))
        _, grads, *_ = cases.loss_and_gradients(backend, network, *here, layer=layer)
    assert layer.asked == [True] * (len(network.widths) - 2) + [False]
    shapes = [leaf.shape for leaf in leaves(grads)]
    assert shapes == [leaf.shape for leaf in leaves(here[0])]


@cases.networks
def test_hidden_output_is_the_input_of_the_next_layer(backend, network, rng):
    params, x, *_ = network_data(network, rng)
    batch_stats = cases.some_batch_stats(network, rng)
    with backend.scope():
        params, x, batch_stats = map_leaves(backend.put, (params, x, batch_stats))
        whole = Spy()
        forward(
            network, params, x, Context(backend.xp, LayerKernels(whole), batch_stats), xp=backend.xp
        )
        assert len(whole.inputs) == len(network.widths) - 1
        for depth, expected in enumerate(whole.inputs):
            part = Spy()
            context = Context(backend.xp, LayerKernels(part), batch_stats)
            found = backend.get(hidden(network, params, x, context, depth))
            assert len(part.inputs) == depth
            assert found.shape == (BATCH, network.widths[depth])
            np.testing.assert_array_equal(found, backend.get(expected))


@cases.networks
def test_a_prediction_does_not_depend_on_the_other_samples(backend, network, rng):
    params, x, *_ = network_data(network, rng)
    options = {"batch_stats": cases.some_batch_stats(network, rng), "dtype": "float64"}
    for options["depth"] in (None, len(network.widths) - 2):
        whole = backend.get(predict(backend, network, None, params, x, **options))
        atol = np.abs(whole).max() * tolerance("float64", max(network.widths))
        for rows in (slice(0, 1), slice(-1, None)):
            found = backend.get(predict(backend, network, None, params, x[rows], **options))
            np.testing.assert_allclose(found, whole[rows], rtol=0, atol=atol)


def test_batch_norm_uses_running_statistics_in_prediction(backend, rng):
    network = Network((5, 6, 3), "tanh", "batch", 0.5, 0.5)
    params, x, *_ = network_data(network, rng)
    (batch_stats,) = cases.some_batch_stats(network, rng)
    (W, b), (scale, shift), (V, c) = params
    z = (x @ W + b - batch_stats.mean) / np.sqrt(batch_stats.variance + 1e-5) * scale + shift
    expected = np.tanh(z) @ V + c
    y = predict(backend, network, None, params, x, batch_stats=(batch_stats,), dtype="float64")
    np.testing.assert_allclose(backend.get(y), expected, rtol=0, atol=tolerance("float64", 6))
    with backend.scope():
        params, x, batch_stats = map_leaves(backend.put, (params, x, (batch_stats,)))
        context = Context(backend.xp, LayerKernels(dense), batch_stats)
        logits, pull, measured = forward(network, params, x, context, xp=backend.xp)
        assert measured == ()
        shapes = [grad.shape for grad in leaves(pull(logits, need_dx=False)[1])]
    assert shapes == [param.shape for param in leaves(params)]


def test_dropout_is_only_applied_in_training(backend, rng):
    dropping = Network((5, 6, 6, 3), dropout=0.5, input_dropout=0.5)
    # A rate is for each hidden layer, or one for all.
    assert (dropping.n_keys, Network((5, 6, 6, 3), dropout=(0.0, 0.5)).n_keys) == (3, 1)
    with backend.scope():
        here = map_leaves(backend.put, network_data(dropping, rng))
        expected = backend.get(forward(Network((5, 6, 6, 3)), *here[:2], xp=backend.xp)[0])
        for context in (Context(backend.xp, LayerKernels(dense), keys=here[-1]), None):
            found = backend.get(forward(dropping, *here[:2], context, xp=backend.xp)[0])
            np.testing.assert_array_equal(found, expected)
        trained = backend.get(cases.loss_and_gradients(backend, dropping, *here)[2])
        assert not np.allclose(found, trained, atol=0.01)
