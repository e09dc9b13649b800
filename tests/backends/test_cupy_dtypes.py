"""Arrays of several dtypes: CuPy's kernels leave them to the defaults, or bring them to one."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.layers import Norm
from mlp_xp.nn.losses import SoftmaxCrossEntropy, SquaredError
from mlp_xp.optimizers import Adam, init_opt_state


@pytest.fixture
def device(backend):
    if backend.name != "cupy":
        pytest.skip("only CuPy's kernels take no mixed dtypes")
    with backend.scope():
        yield backend


def same(backend, function) -> None:
    """Check that a function of kernels returns the same with the defaults, rounding apart."""
    found, expected = (
        [backend.get(leaf) for leaf in leaves(function(kernels)) if hasattr(leaf, "dtype")]
        for kernels in (backend.kernels, Kernels())
    )
    assert len(found) == len(expected) > 0
    for mine, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=2e-5, atol=2e-6)


@pytest.fixture
def numbers(rng):
    """Return a function that draws an array."""
    return lambda *shape, dtype="float32": np.asarray(rng.standard_normal(shape), dtype)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_gradients_of_activations(device, numbers, activation):
    x, dy = device.put(numbers(5, 4)), device.put(numbers(5, 4, dtype="float64"))

    def run(kernels):
        y, pullback = kernels.activate(activation, x, xp=device.xp)
        return y, pullback(dy)

    same(device, run)


def test_normalization(device, numbers):
    x, dy = device.put(numbers(6, 4)), device.put(numbers(6, 4))
    norm = Norm(*(device.put(numbers(4, dtype="float64")) for _ in range(2)))
    weights = device.put(np.ones(6))

    def run(kernels):
        y, pullback = kernels.layer_norm(norm, x, xp=device.xp)
        z, other_pullback, _ = kernels.batch_norm(norm, x, weights, xp=device.xp)
        return y, z, *pullback(dy, need_dx=True), *other_pullback(dy, need_dx=True)

    same(device, run)


@pytest.mark.parametrize("labels", ["int8", "int16", "uint8", "int32", "int64"])
def test_labels(device, numbers, labels):
    logits = device.put(numbers(6, 4))
    targets = device.put(np.asarray([0, 3, 1, 2, 3, 0], labels))
    loss = SoftmaxCrossEntropy()

    def run(kernels):
        value, pullback = kernels.loss(loss, logits, targets, xp=device.xp)
        return value, pullback(), kernels.accuracy(loss, logits, targets, xp=device.xp)

    same(device, run)


@pytest.mark.parametrize("dtypes", [("float64", "float32"), ("float32", "float64")])
def test_targets_and_weights(device, numbers, dtypes):
    logits, targets = device.put(numbers(6, 4)), device.put(numbers(6, 4, dtype=dtypes[0]))
    weights = device.put(np.asarray([1, 0, 2, 1, 1, 3], dtypes[1]))

    def run(kernels):
        value, pullback = kernels.loss(SquaredError(), logits, targets, weights, xp=device.xp)
        return value, pullback()

    same(device, run)


def test_sums_and_averages(device, numbers):
    total, share = numbers(3), device.put(numbers(3, dtype="float64"))
    p = device.put(numbers(4)), device.put(numbers(2, dtype="float64"))
    rate = device.put(np.asarray(0.25, np.float32))

    def run(kernels):
        moved = kernels.average(tuple(leaf + 1 for leaf in p), p, rate, xp=device.xp)
        return (
            moved,
            kernels.accumulate(device.put(total), rate, share),
            kernels.clip(tuple(leaf * 3 for leaf in p), 0.5, xp=device.xp),
        )

    same(device, run)


def test_state_of_another_dtype(device, numbers):
    p, g, rule = numbers(4, 3), numbers(4, 3), Adam()

    def run(kernels):
        params, grads = (device.put(p),), (device.put(g),)
        state = init_opt_state(rule, params, xp=device.xp)
        state = map_leaves(lambda leaf: device.xp.astype(leaf, device.xp.float64), state)
        coefs = (device.put(np.asarray(0.1, np.float32)),)
        return kernels.update(rule, params, grads, state, coefs, xp=device.xp)

    same(device, run)


def test_products(device, numbers):
    from mlp_xp.backends._cupy.cublaslt import multiply

    a, b = device.put(numbers(5, 4)), device.put(numbers(4, 3))
    assert multiply(a, device.put(numbers(4, 3, dtype="float64"))) is None
    assert multiply(a, b) is not None
    # Rows of a batch begin anywhere: the algorithm must be one for such addresses.
    longer = device.put(numbers(9, 4))
    found = multiply(longer[1:6], b)
    np.testing.assert_allclose(device.get(found), device.get(longer[1:6] @ b), 1e-5, 1e-6)
