"""Kernels by jobs in machine code return what the defaults return."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tolerance

from mlp_xp._utils.tree import leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.layers import Dense, dense
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.optimizers import Adam

XP, KERNELS = get_backend("numpy").xp, get_backend("numpy").kernels


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 7, 128, 600])
@pytest.mark.parametrize(
    ("fan_in", "fan_out"),
    [(800, 64), (300, 64), (259, 112), (65, 100), (70, 33), (30, 16), (9, 7), (1, 1)],
)
def test_the_dense_job_does_what_the_default_does(
    fan_in, fan_out, rows, dtype, parts, pool_of, rng
):
    shapes = (rows, 2 * fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out)
    wide, W, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    for x in (np.ascontiguousarray(wide[:, :fan_in]), wide[:, fan_in:]):
        for slope in (dy, np.asfortranarray(dy)):
            with pool_of(parts):
                y, pullback = KERNELS.dense(Dense(W, b), x, xp=XP)
                found = [y, *leaves(pullback(slope, need_dx=True))]
            plain, pull = dense(Dense(W, b), x, xp=XP)
            for mine, theirs in zip(found, [plain, *leaves(pull(dy, need_dx=True))], strict=True):
                assert mine.dtype == dtype
                atol = np.abs(theirs).max() * tolerance(dtype, max(fan_in, rows))
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("other", ["float32", "float64"])
def test_a_slope_of_another_dtype_is_converted(other, pool_of, rng):
    """A user's own loss may give one: it is compared with a finite difference in float64 only."""
    dtype = {"float32": "float64", "float64": "float32"}[other]
    shapes = (40, 30), (30, 16), (16,)
    x, W, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    dy = rng.standard_normal((40, 16)).astype(other)
    with pool_of(1):
        y, pullback = KERNELS.dense(Dense(W, b), x, xp=XP)
        rectified, back = KERNELS.activate("relu", y, xp=XP)
        found = [*leaves(pullback(dy, need_dx=True)), back(dy)]
    expected = [dy @ W.T, x.T @ dy, np.sum(dy, 0), dy * (rectified > 0)]
    for mine, plain in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, plain, rtol=0, atol=1e-3)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["relu", "logistic", "tanh"])
def test_activations_by_jobs_do_what_the_defaults_do(name, dtype, parts, pool_of, rng):
    x, dy = (4.0 * rng.standard_normal((2, 300, 128))).astype(dtype)
    x[0, :8] = dy[1, :8] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e4, -1e4, -90.0]
    plain, pull = Kernels().activate(name, x, xp=XP)
    with np.errstate(invalid="ignore"):
        expected = pull(dy)
    for slope in (dy, np.asfortranarray(dy)):
        with pool_of(parts):
            y, pullback = KERNELS.activate(name, x, xp=XP)
            dx = pullback(slope)
        tol = tolerance(dtype)
        np.testing.assert_allclose(y, plain, rtol=tol, atol=np.finfo(dtype).tiny * 10)
        np.testing.assert_allclose(dx, expected, rtol=tol, atol=tol)
        assert y.dtype == dx.dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n_rows", [6, 16, 37])
def test_the_softmax_job_does_what_the_loss_does(n_rows, smoothing, dtype, pool_of, rng):
    """It passes over 16 rows at a time; large logits keep the digits of their differences."""
    loss, dtype = SoftmaxCrossEntropy(smoothing), np.dtype(dtype)
    logits = (30.0 * rng.standard_normal((n_rows, 10))).astype(dtype)
    logits[-1] = 1e5 - np.arange(10)
    logits[-2, 3] = -np.inf
    labels = rng.integers(0, 10, n_rows).astype(np.int32)
    for no_classes in ((3, 4), (-1, 10), (-(2**31), 2**31 - 1)):
        labels[1], labels[-3] = no_classes
        for weights in (None, rng.random(n_rows).astype(dtype), np.zeros(n_rows, dtype)):
            with pool_of(1):
                found, pullback = KERNELS.loss(loss, logits, labels, weights, xp=XP)
            value, pull = mean_loss(loss, logits, labels, weights, xp=XP)
            tol = 30 * np.finfo(dtype).eps
            np.testing.assert_allclose(found, value, rtol=tol)
            np.testing.assert_allclose(pullback(), pull(), rtol=tol, atol=tol / n_rows)
    logits[2, 5] = np.nan
    with pool_of(1):
        found, pullback = KERNELS.loss(loss, logits, labels, None, xp=XP)
    assert np.isnan(found)
    is_nan = np.isnan(pullback())
    assert is_nan[2].all()
    assert is_nan.sum() == 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_divides_by_the_root_of_any_number(dtype, pool_of, rng):
    """The loop computes roots by itself where it can; 1,003 numbers leave a part of a vector."""
    dtype = np.dtype(dtype)
    info = np.finfo(dtype)
    squares = (2.0 ** rng.uniform(info.minexp, info.maxexp - 1, 1_003)).astype(dtype)
    squares[:7] = [0.0, np.inf, np.nan, info.tiny, info.max, info.smallest_subnormal, 1.0]
    zeros, ones = np.zeros_like(squares), np.ones_like(squares)
    optimizer, rate = Adam(beta_1=0.5, beta_2=0.5, epsilon=0.0), (np.asarray(1.0, dtype),)
    with pool_of(1):
        state = ((ones,), (squares.copy(),))
        new = KERNELS.update(optimizer, (zeros.copy(),), (zeros,), state, rate, xp=XP)
    with np.errstate(divide="ignore"):
        expected = dtype.type(-0.5) / np.sqrt(dtype.type(0.5) * squares)
    np.testing.assert_allclose(new.params[0], expected, rtol=2 * info.eps)
