"""Exactness: every layer and loss against a finite difference and against torch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
from gradient import check_gradient
from helpers import tolerance
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlp_xp.layers import ACTIVATIONS, Dense, dense
from mlp_xp.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from mlp_xp.network import Network, backward, forward, init_params
from mlp_xp.tree import leaves, map_leaves

shapes = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    # The fixture is the backend, the same for all examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31)
LOSSES = {
    "softmax": SoftmaxCrossEntropy(),
    "smoothed": SoftmaxCrossEntropy(label_smoothing=0.2),
    "binary": BinaryCrossEntropy(),
    "squared": SquaredError(),
}


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


def targets_for(name: str, kind: str, batch: int, outputs: int, rng) -> np.ndarray:
    if name == "squared":
        return rng.standard_normal((batch, outputs))
    if name == "binary":
        return (
            rng.integers(0, 2, (batch, outputs)).astype(float)
            if kind == "hard"
            else rng.random((batch, outputs))
        )
    if kind == "hard":
        return rng.integers(0, outputs, batch).astype(np.int32)
    return rng.dirichlet(np.ones(outputs), batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("name", LOSSES)
@shapes
@given(batch=sizes, outputs=sizes, seed=seeds)
def test_loss(backend, name, kind, weighted, batch, outputs, seed):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((batch, outputs))
    targets = targets_for(name, kind, batch, outputs, rng)
    weights = rng.random(batch) + 0.1 if weighted else None

    def function(point):
        weight = None if weights is None else backend.put(weights)
        value, pullback = LOSSES[name](point[0], backend.put(targets), weight, xp=backend.xp)
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
        logits, pullbacks = forward(network, point, backend.put(x), xp=backend.xp)
        value, pullback = SoftmaxCrossEntropy()(logits, backend.put(labels), xp=backend.xp)
        return value, backward(pullbacks, pullback())

    check_gradient(backend, function, init_params(network, 3), rng)


# --- against torch's autograd --------------------------------------------------------------------

TORCH_ACTIVATIONS = {
    "identity": lambda torch, x: x,
    "logistic": lambda torch, x: torch.sigmoid(x),
    "tanh": lambda torch, x: torch.tanh(x),
    "relu": lambda torch, x: torch.relu(x),
    "gelu": lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": lambda torch, x: torch.nn.functional.silu(x),
}


def torch_loss(torch, name, logits, targets, weights):
    f = torch.nn.functional
    if name == "squared":
        each = 0.5 * torch.sum((logits - targets) ** 2, dim=1)
    elif name == "binary":
        each = f.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    else:
        smoothing = LOSSES[name].label_smoothing
        if targets.ndim == 1:
            targets = targets.long()
        each = f.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    return torch.sum(each * weights) / torch.sum(weights)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("name", LOSSES)
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
    network = Network((inputs, 6, outputs), activation)
    params = init_params(network, seed)
    x, weights = rng.standard_normal((batch, inputs)), rng.random(batch) + 0.1
    targets = targets_for(name, kind, batch, outputs, rng)

    with backend.scope():
        put = backend.put
        logits, pullbacks = forward(network, map_leaves(put, params), put(x), xp=backend.xp)
        value, pullback = LOSSES[name](logits, put(targets), put(weights), xp=backend.xp)
        grads = [backend.get(g) for g in leaves(backward(pullbacks, pullback()))]
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
@pytest.mark.parametrize("name", LOSSES)
def test_losses_at_extremes(backend, name, dtype):
    logits = np.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], dtype=dtype)
    targets = np.asarray([[0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=dtype)
    with backend.scope(), np.errstate(all="raise", under="ignore"):
        value, pullback = LOSSES[name](backend.put(logits), backend.put(targets), xp=backend.xp)
        dlogits = backend.get(pullback())
        p = backend.get(LOSSES[name].activate(backend.put(logits), xp=backend.xp))
        assert np.isfinite(float(backend.get(value)))
        assert np.isfinite(dlogits).all()
        assert np.isfinite(p).all()
    if name == "softmax":
        # log(p) of the first row's target is -2e4, of the second's -log(2), of the third's -log(3).
        expected = (2e4 + np.log(2) + np.log(3)) / 3
        assert float(backend.get(value)) == pytest.approx(expected, rel=tolerance(dtype))


def test_weights_that_are_all_0_give_no_nan(backend):
    with backend.scope():
        logits, weights = backend.put(np.ones((2, 3))), backend.put(np.zeros(2))
        labels = backend.put(np.zeros(2, dtype=np.int32))
        value, pullback = SoftmaxCrossEntropy()(logits, labels, weights, xp=backend.xp)
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
            logits, pullbacks = forward(network, params, backend.put(x[rows]), xp=backend.xp)
            _, pullback = SoftmaxCrossEntropy()(logits, backend.put(labels[rows]), xp=backend.xp)
            return [backend.get(g) for g in leaves(backward(pullbacks, pullback()))]

    whole, first, second = gradient(slice(0, 6)), gradient(slice(0, 2)), gradient(slice(2, 6))
    for all_, a, b in zip(whole, first, second, strict=True):
        np.testing.assert_allclose(all_, (2 * a + 4 * b) / 6, atol=tolerance("float64", 6))
