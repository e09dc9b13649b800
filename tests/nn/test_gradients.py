"""Exactness: every layer and loss against a finite difference and against torch's autograd."""

from __future__ import annotations

import array_api_compat.numpy
import numpy as np
import pytest
from gradient import check_gradient, cross_entropy_of, fourth_power
from helpers import tolerance
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch_reference import TORCH_ACTIVATIONS, torch_each

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.nn.layers import ACTIVATIONS, Dense, dense
from mlp_xp.nn.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Custom,
    Gaussian,
    Huber,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
    mean_loss,
)
from mlp_xp.nn.network import Network, forward, init_params

shapes = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    # The fixture is the backend, the same for all examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Few, with 1 among them: JAX compiles each operation anew for each shape.
sizes = st.sampled_from([1, 3, 8])
seeds = st.integers(0, 2**31)


LOSSES = {
    "softmax": SoftmaxCrossEntropy(),
    "smoothed": SoftmaxCrossEntropy(label_smoothing=0.2),
    "softmax_focal": SoftmaxFocal(),
    "softmax_focal_0.5": SoftmaxFocal(gamma=0.5),
    "softmax_focal_0": SoftmaxFocal(gamma=0.0),
    "binary": BinaryCrossEntropy(),
    "binary_smoothed": BinaryCrossEntropy(label_smoothing=0.2),
    "binary_focal": BinaryFocal(),
    "binary_focal_0.5": BinaryFocal(gamma=0.5),
    "squared": SquaredError(),
    "absolute": AbsoluteError(),
    "huber": Huber(delta=0.5),
    "quantile": Quantile(quantile=0.8),
    "quantiles": Quantile(quantile=(0.1, 0.5, 0.8)),
    "poisson": Poisson(),
    "gaussian": Gaussian(),
    "squared_logistic": Through(SquaredError(), "logistic"),
    "huber_tanh": Through(Huber(delta=0.5), "tanh"),
    "absolute_exp": Through(AbsoluteError(), "exp"),
    "quantile_softplus": Through(Quantile(quantile=0.8), "softplus"),
    "quantiles_softplus": Through(Quantile(quantile=(0.2, 0.7)), "softplus"),
    "squared_relu": Through(SquaredError(), "relu"),
    "squared_identity": Through(SquaredError(), "identity"),
    "custom": Custom(fourth_power),
    "custom_tanh": Custom(fourth_power, "tanh"),
}
# A function of labels or probabilities takes one of them.
CUSTOM_SOFTMAX = {"custom_softmax": Custom(cross_entropy_of, "softmax")}
KINDS = [
    (name, kind)
    for name in LOSSES
    for kind in ("hard", "soft")
    if kind == "hard" or name.startswith(("softmax", "smoothed", "binary", "poisson"))
] + [("custom_softmax", "soft")]
LOSSES |= CUSTOM_SOFTMAX
# Losses whose value is sure to be huge at logits of 10,000, but finite in both precisions.
BOUNDED = [name for name in LOSSES if name not in ("absolute_exp", "custom", "custom_softmax")]


def away_from_0(values: np.ndarray) -> np.ndarray:
    """Keep clear of relu's kink, where no difference quotient is right."""
    return values + np.sign(values) * 0.1


@shapes
@given(batch=sizes, fan_in=sizes, fan_out=sizes, seed=seeds)
def test_dense(backend, batch, fan_in, fan_out, seed):
    rng = np.random.default_rng(seed)
    params = Dense(rng.standard_normal((fan_in, fan_out)), rng.standard_normal(fan_out))
    x, dy = rng.standard_normal((batch, fan_in)), rng.standard_normal((batch, fan_out))

    def function(point):
        weight = backend.put(dy)
        y, pullback = dense(point[0], point[1], xp=backend.xp)
        dx, grads = pullback(weight, need_dx=True)
        return backend.xp.sum(y * weight), (grads, dx)

    check_gradient(backend, function, (params, x), rng)


def test_dense_gives_no_dx_unless_asked(backend):
    with backend.scope():
        one = backend.put(np.ones((2, 2)))
        _, pullback = dense(Dense(one, one[0, :]), one, xp=backend.xp)
        dx, grads = pullback(one, need_dx=False)
    assert dx is None
    assert backend.get(grads.W).tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize("name", ACTIVATIONS)
@shapes
@given(batch=sizes, width=sizes, seed=seeds)
def test_activation(backend, name, batch, width, seed):
    rng = np.random.default_rng(seed)
    x, dy = away_from_0(rng.standard_normal((batch, width))), rng.standard_normal((batch, width))

    def function(point):
        weight = backend.put(dy)
        y, pullback = ACTIVATIONS[name](point[0], xp=backend.xp)
        return backend.xp.sum(y * weight), (pullback(weight),)

    check_gradient(backend, function, (x,), rng)


def targets_for(name: str, kind: str, logits: np.ndarray, rng) -> np.ndarray:
    """Return targets; those of a loss with a kink lie away from it."""
    batch, loss = len(logits), LOSSES[name]
    outputs = logits.shape[1] // loss.outputs_per_target
    if name.startswith("binary"):
        return (
            rng.integers(0, 2, (batch, outputs)).astype(float)
            if kind == "hard"
            else rng.random((batch, outputs))
        )
    if name == "poisson":
        return rng.poisson(1.5, (batch, outputs)) + (0.0 if kind == "hard" else 0.3)
    if not name.startswith(("softmax", "smoothed", "custom_softmax")):
        errors = rng.choice([0.2, 0.3, 0.4, 0.6, 1.0, 3.0], (batch, outputs))
        errors *= rng.choice([-1, 1], (batch, outputs))
        values = loss.activate(logits, xp=array_api_compat.numpy)
        return loss.point(values, xp=array_api_compat.numpy) - errors
    if kind == "hard":
        return rng.integers(0, outputs, batch).astype(np.int32)
    return rng.dirichlet(np.ones(outputs), batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "kind"), KINDS)
@shapes
@given(batch=sizes, outputs=sizes, seed=seeds)
def test_loss(backend, name, kind, weighted, batch, outputs, seed):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((batch, outputs * LOSSES[name].outputs_per_target))
    if name in (
        "absolute_exp",
        "gaussian",
        "custom",
        "squared_relu",
    ):  # Steep far out, or with a kink at 0.
        logits = away_from_0(logits / 3)
    targets = targets_for(name, kind, logits, rng)
    weights = rng.random(batch) + 0.1 if weighted else None

    def function(point):
        weight = None if weights is None else backend.put(weights)
        value, pullback = mean_loss(
            LOSSES[name], point[0], backend.put(targets), weight, xp=backend.xp
        )
        return value, (pullback(),)

    check_gradient(backend, function, (logits,), rng)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("batch", [1, 6])
def test_network(backend, activation, inputs, outputs, batch, rng):
    """The chain as a whole, with one feature, one output and one sample among the shapes."""
    network = Network((inputs, 7, 4, outputs), activation)
    x = rng.standard_normal((batch, inputs))
    labels = rng.integers(0, outputs, batch).astype(np.int32)

    def function(point):
        logits, backward, _ = forward(network, point, backend.put(x), xp=backend.xp)
        value, pullback = mean_loss(
            SoftmaxCrossEntropy(), logits, backend.put(labels), xp=backend.xp
        )
        return value, backward(pullback())

    check_gradient(backend, function, init_params(network, 3), rng)


# --- against torch's autograd --------------------------------------------------------------------


def torch_loss(torch, name, logits, targets, weights):
    each = torch_each(torch, LOSSES[name], logits, targets)
    return torch.sum(each * weights) / torch.sum(weights)


@pytest.mark.parametrize(("name", "kind"), KINDS)
@shapes
@given(
    batch=sizes,
    inputs=sizes,
    outputs=sizes,
    activation=st.sampled_from(list(ACTIVATIONS)),
    seed=seeds,
)
@example(batch=1, inputs=5, outputs=4, activation="gelu", seed=0)
@example(batch=7, inputs=1, outputs=4, activation="silu", seed=0)
@example(batch=7, inputs=5, outputs=1, activation="logistic", seed=0)
@example(batch=1, inputs=1, outputs=1, activation="relu", seed=0)
def test_against_autograd(torch, backend, name, kind, batch, inputs, outputs, activation, seed):
    rng = np.random.default_rng(seed)
    n_outputs = outputs * LOSSES[name].outputs_per_target
    network = Network((inputs, 6, n_outputs), activation)
    params = init_params(network, seed)
    x, weights = rng.standard_normal((batch, inputs)), rng.random(batch) + 0.1
    targets = targets_for(name, kind, rng.standard_normal((batch, n_outputs)), rng)

    with backend.scope():
        put = backend.put
        logits, backward, _ = forward(network, map_leaves(put, params), put(x), xp=backend.xp)
        value, pullback = mean_loss(LOSSES[name], logits, put(targets), put(weights), xp=backend.xp)
        grads = [backend.get(g) for g in leaves(backward(pullback()))]
        value = float(backend.get(value))

    with torch.enable_grad():
        free = [torch.tensor(leaf, requires_grad=True) for leaf in leaves(params)]
        hidden = TORCH_ACTIVATIONS[activation](torch, torch.tensor(x) @ free[0] + free[1])
        out = hidden @ free[2] + free[3]
        expected = torch_loss(torch, name, out, torch.tensor(targets), torch.tensor(weights))
        expected.backward()

    assert value == pytest.approx(
        float(expected.detach()), rel=tolerance("float64", batch * outputs), abs=1e-14
    )
    for grad, leaf in zip(grads, free, strict=True):
        scale = float(leaf.grad.abs().max()) + 1.0
        np.testing.assert_allclose(
            grad, leaf.grad.numpy(), rtol=0, atol=scale * tolerance("float64", batch)
        )


# --- at the edges --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_extremes(backend, name, dtype):
    with backend.scope(), np.errstate(all="raise", under="ignore"):
        x = backend.put(np.asarray([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype))
        y, pullback = ACTIVATIONS[name](x, xp=backend.xp)
        dx = pullback(backend.xp.ones_like(y))
        assert np.isfinite(backend.get(y)).all()
        assert np.isfinite(backend.get(dx)).all()
        assert str(backend.get(dx).dtype) == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BOUNDED)
def test_losses_at_extremes(backend, name, dtype):
    logits = np.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], dtype=dtype)
    logits = np.tile(logits, LOSSES[name].outputs_per_target)
    targets = np.asarray([[0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=dtype)
    with backend.scope(), np.errstate(all="raise", under="ignore"):
        value, pullback = mean_loss(
            LOSSES[name], backend.put(logits), backend.put(targets), xp=backend.xp
        )
        dlogits = backend.get(pullback())
        p = backend.get(LOSSES[name].activate(backend.put(logits), xp=backend.xp))
        assert np.isfinite(float(backend.get(value)))
        assert np.isfinite(dlogits).all()
        assert np.isfinite(p).all()
    if name == "softmax":
        # p of the first row's target is clipped to eps, of the others it is 1/2 and 1/3.
        expected = (-np.log(np.finfo(dtype).eps) + np.log(2) + np.log(3)) / 3
        assert float(backend.get(value)) == pytest.approx(expected, rel=tolerance(dtype))


def test_weights_that_are_all_0_give_no_nan(backend):
    with backend.scope():
        logits, weights = backend.put(np.ones((2, 3))), backend.put(np.zeros(2))
        labels = backend.put(np.zeros(2, dtype=np.int32))
        value, pullback = mean_loss(SoftmaxCrossEntropy(), logits, labels, weights, xp=backend.xp)
        assert float(backend.get(value)) == 0.0
        assert not backend.get(pullback()).any()


# --- properties ----------------------------------------------------------------------------------


def test_permuting_a_batch_permutes_the_output(backend, rng):
    network = Network((4, 8, 3), "gelu")
    x, order = rng.standard_normal((6, 4)), rng.permutation(6)
    with backend.scope():
        params = map_leaves(backend.put, init_params(network, 0))
        y, permuted = (
            backend.get(forward(network, params, backend.put(rows), xp=backend.xp)[0])
            for rows in (x, x[order])
        )
    np.testing.assert_allclose(permuted, y[order], rtol=tolerance("float64", 8))


def test_gradients_of_shards_add_up(backend, rng):
    network = Network((4, 8, 3), "tanh")
    x, labels = rng.standard_normal((6, 4)), rng.integers(0, 3, 6).astype(np.int32)

    def gradient(rows: slice) -> list[np.ndarray]:
        with backend.scope():
            params = map_leaves(backend.put, init_params(network, 0))
            logits, backward, _ = forward(network, params, backend.put(x[rows]), xp=backend.xp)
            target = backend.put(labels[rows])
            _, pullback = mean_loss(SoftmaxCrossEntropy(), logits, target, xp=backend.xp)
            return [backend.get(g) for g in leaves(backward(pullback()))]

    whole, first, second = gradient(slice(0, 6)), gradient(slice(0, 2)), gradient(slice(2, 6))
    for all_, a, b in zip(whole, first, second, strict=True):
        np.testing.assert_allclose(all_, (2 * a + 4 * b) / 6, atol=tolerance("float64", 6))
