"""Products in bfloat16: what is rounded, what is not, and who refuses."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import small
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mlp_xp import MLPClassifier
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend, installed
from mlp_xp.backends.kernels import Kernels, Scaling
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.layers import Dense, Norm, dense
from mlp_xp.nn.losses import SoftmaxCrossEntropy, SquaredError
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import SGD
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.inputs import Batch
from mlp_xp.training.rules import Rules
from mlp_xp.training.step import make_gradient
from mlp_xp.training.trainer import Trainer

# The distance from 1 to the next number of bfloat16: 8 bits, the first one implied.
EPS = 2.0**-7
WITHOUT = ("numpy", "array_api_strict")


@pytest.fixture(params=["torch", "jax"])
def plain(request):
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return get_backend(request.param)


def rounded(array):
    """Round float32 to bfloat16, to nearest and then to even, in plain integers."""
    bits = np.asarray(array, np.float32).view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + 0x7FFF + odd) & np.uint32(0xFFFF0000)).view(np.float32)


def test_a_backend_with_other_products_is_another_one(plain):
    bf16 = plain.with_bf16()
    assert bf16 == plain.with_bf16()
    assert bf16 != plain
    assert (bf16.name, bf16.device) == (plain.name, plain.device)
    assert bf16.kernels._replace(gather=plain.kernels.gather) == plain.kernels


# 1025 x 300 is large enough for memory that is used again.
@pytest.mark.parametrize(("rows", "fan_in", "fan_out"), [(3, 5, 4), (1025, 300, 129)])
def test_a_layer_computes_in_the_dtype_of_its_input(plain, rows, fan_in, fan_out, rng):
    shapes = (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out)
    x, W, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    backend = plain.with_bf16()
    xp = backend.xp
    with backend.scope():
        x16, W32, b32, dy32 = (backend.put(array) for array in (x, W, b, dy))
        x16 = xp.astype(x16, xp.bfloat16)
        y, pullback = backend.kernels.dense(Dense(W32, b32), x16, xp=xp)
        dx, grads = pullback(dy32, need_dx=True)
        none, again = pullback(dy32, need_dx=False)
        arrays = (y, dx, *grads)
        assert all(array.dtype == xp.bfloat16 for array in arrays)
        found = [np.asarray(backend.get(array), np.float32) for array in arrays]
        assert none is None
        # A second call writes to memory of its own.
        np.testing.assert_array_equal(np.asarray(backend.get(again.W), np.float32), found[2])
        np.testing.assert_array_equal(backend.get(W32), W)
    expected, plain_pullback = dense(Dense(rounded(W), rounded(b)), rounded(x), xp=np)
    expected_dx, expected_grads = plain_pullback(rounded(dy), need_dx=True)
    # Sums are in float32 and are rounded once, or twice where a bias is added.
    for mine, exact in zip(found, (expected, expected_dx, *expected_grads), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=EPS, atol=EPS / 4 * np.abs(exact).max())


def test_only_the_input_of_a_step_is_rounded_behind_its_scaling(plain, rng):
    backend = plain.with_bf16()
    xp, gather = backend.xp, backend.kernels.gather
    with backend.scope():
        x = backend.put(rng.standard_normal((6, 3)).astype(np.float32))
        scaling = Scaling(*(backend.put(np.full(3, v, np.float32)) for v in (1000.0, 0.5)))
        found = gather(x, None, scaling, dtype=xp.float32, xp=xp)
        assert found.dtype == xp.bfloat16
        exact = (backend.get(x) - 1000) * np.float32(0.5)
        np.testing.assert_array_equal(np.asarray(backend.get(found), np.float32), rounded(exact))
        double = xp.astype(x, xp.float64)
        assert gather(double, None, None, dtype=xp.float64, xp=xp).dtype == xp.float64


@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_moments_are_not_rounded(plain, normalization, rng):
    width = 64
    norm = Network((4, width, 2), normalization=normalization).blocks[0][1]
    params = Norm(np.ones(width, np.float32), np.zeros(width, np.float32))
    x = rounded(rng.standard_normal((256, width)) + 3.0)
    backend = plain.with_bf16()
    xp = backend.xp
    context = Context(xp, backend.kernels.dense, is_training=True)
    with backend.scope():
        x16 = xp.astype(backend.put(x), xp.bfloat16)
        y, pullback, measured = norm(map_leaves(backend.put, params), x16, context)
        dx, grads = pullback(xp.ones_like(y), need_dx=True)
        assert (y.dtype, dx.dtype) == (xp.bfloat16, xp.bfloat16)
        assert all(leaf.dtype == xp.float32 for leaf in leaves((grads, measured)))
        batch_stats = [backend.get(leaf) for leaf in leaves(measured)]
    if normalization == "batch":
        np.testing.assert_allclose(batch_stats[0], x.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(batch_stats[1], x.var(axis=0), rtol=1e-4)


def test_gradients_agree_with_those_of_float32(plain, rng):
    # Smooth: a relu that rounding switches changes a gradient by more than rounding does.
    network = Network((20, 32, 16, 3), activation="tanh")
    start = map_leaves(lambda leaf: leaf.astype(np.float32), init_params(network, 0))
    x = rng.standard_normal((64, 20)).astype(np.float32)
    y = rng.integers(3, size=64).astype(np.int32)

    def gradient(backend):
        function = make_gradient(network, SoftmaxCrossEntropy(), backend.kernels, xp=backend.xp)
        with backend.scope():
            params = map_leaves(backend.put, start)
            batch = Batch(backend.put(x), backend.put(y), None, None)
            value, grads = function(params, batch, None)
            return float(value), [backend.get(leaf) for leaf in leaves(grads)]

    (loss, grads), (expected_loss, expected) = gradient(plain.with_bf16()), gradient(plain)
    assert loss == pytest.approx(expected_loss, rel=4 * EPS)
    for mine, exact in zip(grads, expected, strict=True):
        error = np.linalg.norm(mine - exact) / np.linalg.norm(exact)
        assert 0 < error < 4 * EPS


def test_updates_too_small_for_bfloat16_are_kept(plain):
    """A weight of 1 that moves by 1e-5 a step: in bfloat16 it would never move."""
    backend, rule = plain.with_bf16(), SGD(momentum=0.0)
    rules = Rules(Network((1, 1)), SquaredError(), rule, learning_rate=1e-5)
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    trainer = Trainer(backend, rules, params=(Dense(one, zero),), dtype="float32")
    data = place(backend, np.ones((64, 1), np.float32), np.zeros((64, 1), np.float32), "float32")
    for _ in range(50):
        trainer.run_epoch(data, plan_epoch(64, 64), n_epochs=50)
    W = backend.get(trainer.learned[0].W)
    assert W.dtype == np.float32
    # Each step moves it by the rate times the error, which stays near 1.
    assert W[0, 0] == pytest.approx(1 - 50e-5, abs=2e-5)
    assert rounded(W)[0, 0] == 1.0


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_it_learns_as_well_as_float32(plain, solver):
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.uint8)
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)

    def errors(precision):
        wrong = 0
        for seed in range(3):
            model = MLPClassifier(
                (64,), solver=solver, learning_rate="cosine", learning_rate_init=0.01,
                max_iter=12, n_iter_no_change=np.inf, backend=plain.name, precision=precision,
                input_scaling="standardize", random_state=seed, batch_size=64,
            )  # fmt: skip
            wrong += int(np.sum(model.fit(X, y).predict(X_test) != y_test))
        return wrong

    exact, rough = errors("float32"), errors("bf16")
    # Of 1350 predictions; the standard deviation of such a count is about its root.
    assert exact < 80
    assert abs(rough - exact) <= 3 * exact**0.5


def test_predictions_are_float32s(problem, plain):
    X, y = problem()
    model = small(backend=plain.name, precision="bf16").fit(X, y)
    assert model.coefs_[0].dtype == np.float32
    proba = model.predict_proba(X)
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    elsewhere = model.to("numpy")
    np.testing.assert_allclose(elsewhere.predict_proba(X), proba, rtol=1e-4, atol=1e-6)


def test_a_fit_goes_on_in_another_precision(problem, plain):
    X, y = problem()
    model = small(backend=plain.name, precision="float32").fit(X, y)
    model.set_params(precision="bf16").partial_fit(X, y)
    model.set_params(precision="float32").partial_fit(X, y)
    assert model.n_iter_ == 7
    with pytest.raises(ValueError, match="precision='float32', and the settings now say 'float64'"):
        model.set_params(precision="float64").partial_fit(X, y)


def test_fits_of_both_precisions_differ(problem, plain):
    X, y = problem()
    coefs = [
        small(backend=plain.name, precision=precision).fit(X, y).coefs_[0]
        for precision in ("float32", "bf16", "bf16")
    ]
    assert np.abs(coefs[1] - coefs[0]).max() > 0
    np.testing.assert_array_equal(coefs[1], coefs[2])


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT)
def test_a_backend_without_such_products_says_what_to_type(problem, name):
    X, y = problem()
    model = small(backend=name, precision="bf16")
    message = (
        f"precision is 'bf16', and backend '{name}' has no products in bfloat16: use "
        "backend='torch' or 'jax', or precision='float32'"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")


def test_data_on_numpy_are_rejected_without_a_backend(problem):
    with pytest.raises(ValueError, match="backend 'numpy' has no products in bfloat16"):
        small(precision="bf16").fit(*problem())


def test_lbfgs_is_rejected(problem, plain):
    message = "precision is 'bf16', and solver 'lbfgs' needs .*: set precision='float32', or use"
    with pytest.raises(ValueError, match=message):
        small(backend=plain.name, precision="bf16", solver="lbfgs").fit(*problem())


def test_kernels_of_other_backends_stay():
    assert get_backend("array_api_strict").kernels == Kernels()
