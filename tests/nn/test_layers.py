"""Normalization, dropout and the newer activations; test_gradients.py checks all activations."""

from __future__ import annotations

import numpy as np
import pytest
from gradient import check_gradient
from helpers import close, make_backend, tolerance
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlp_xp._utils.tree import map_leaves
from mlp_xp.nn.layers import (
    ACTIVATIONS,
    BatchStats,
    Norm,
    apply_norm,
    batch_norm,
    exp,
    layer_norm,
)
from mlp_xp.optimizers import averaged

shapes = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    # The fixture is the backend, the same for all examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Few, with 1 among them: JAX compiles each operation anew for each shape.
sizes = st.sampled_from([1, 3, 8])
seeds = st.integers(0, 2**31)
# With an epsilon as large as the variance, a batch of 1 has a gradient that can be measured, and a
# formula that forgets epsilon is seen.
EPSILON = 0.5


def norm_problem(rng, batch: int, width: int) -> tuple[Norm, np.ndarray, np.ndarray]:
    """Return parameters, inputs of a mean that is not 0, and a gradient of the output."""
    params = Norm(rng.standard_normal(width), rng.standard_normal(width))
    return params, 3 + 2 * rng.standard_normal((batch, width)), rng.standard_normal((batch, width))


# --- normalization against finite differences ----------------------------------------------------


@shapes
@given(batch=sizes, width=sizes, seed=seeds)
@example(batch=1, width=1, seed=0)
def test_layer_norm(backend, batch, width, seed):
    rng = np.random.default_rng(seed)
    params, x, dy = norm_problem(rng, batch, width)

    def function(point):
        weight = backend.put(dy)
        y, pullback = layer_norm(*point, xp=backend.xp, epsilon=EPSILON)
        dx, grads = pullback(weight, need_dx=True)
        return backend.xp.sum(y * weight), (grads, dx)

    check_gradient(backend, function, (params, x), rng)


@pytest.mark.parametrize("weighted", [False, True])
@shapes
@given(batch=sizes, width=sizes, seed=seeds)
@example(batch=1, width=1, seed=0)
@example(batch=5, width=3, seed=0)
def test_batch_norm(backend, weighted, batch, width, seed):
    rng = np.random.default_rng(seed)
    params, x, dy = norm_problem(rng, batch, width)
    weights = rng.random(batch) + 0.1 if weighted else None

    def function(point):
        weight = backend.put(dy)
        w = None if weights is None else backend.put(weights)
        y, pullback, _ = batch_norm(*point, w, xp=backend.xp, epsilon=EPSILON)
        dx, grads = pullback(weight, need_dx=True)
        return backend.xp.sum(y * weight), (grads, dx)

    check_gradient(backend, function, (params, x), rng)


def test_norms_give_no_dx_unless_asked(backend, rng):
    params, x, dy = norm_problem(rng, 4, 3)
    with backend.scope():
        params, x, dy = map_leaves(backend.put, (params, x, dy))
        for norm in (
            lambda: layer_norm(params, x, xp=backend.xp),
            lambda: batch_norm(params, x, None, xp=backend.xp),
        ):
            pullback = norm()[1]
            dx, grads = pullback(dy, need_dx=False)
            _, same = pullback(dy, need_dx=True)
            assert dx is None
            for mine, other in zip(grads, same, strict=True):
                np.testing.assert_array_equal(backend.get(mine), backend.get(other))


# --- normalization against torch -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["layer", "batch"])
def test_norm_against_torch(torch, backend, kind, dtype, rng):
    batch, width = 12, 7
    params, x, dy = map_leaves(lambda a: a.astype(dtype), norm_problem(rng, batch, width))
    with backend.scope():
        here, there, weight = map_leaves(backend.put, (params, x, dy))
        if kind == "layer":
            y, pullback = layer_norm(here, there, xp=backend.xp)
        else:
            y, pullback, batch_stats = batch_norm(here, there, None, xp=backend.xp)
        dx, grads = pullback(weight, need_dx=True)
        ours = [backend.get(a) for a in (y, dx, grads.scale, grads.shift)]

    with torch.enable_grad():
        f = torch.nn.functional
        free = [torch.tensor(a, requires_grad=True) for a in (x, params.scale, params.shift)]
        if kind == "layer":
            out = f.layer_norm(free[0], (width,), free[1], free[2])
        else:
            mean, variance = (torch.zeros(width, dtype=free[0].dtype) for _ in range(2))
            # With momentum 1 the running statistics are the batch's; torch's variance is unbiased.
            out = f.batch_norm(free[0], mean, variance, free[1], free[2], True, momentum=1.0)
        out.backward(torch.tensor(dy))
    for mine, theirs in zip(ours, [out.detach(), *(a.grad for a in free)], strict=True):
        close(mine, theirs.numpy(), batch * width)
    if kind == "batch":
        close(backend.get(batch_stats.mean), mean.numpy(), batch)
        close(backend.get(batch_stats.variance) * (batch / (batch - 1)), variance.numpy(), batch)


def test_apply_norm_against_torch(torch, backend, rng):
    params, x, dy = norm_problem(rng, 6, 4)
    batch_stats = BatchStats(rng.standard_normal(4), rng.random(4))
    with backend.scope():
        given = map_leaves(backend.put, (params, batch_stats, x))
        y, pullback = apply_norm(*given, xp=backend.xp)
        dx, grads = pullback(backend.put(dy), need_dx=True)
        assert pullback(backend.put(dy), need_dx=False)[0] is None
        ours = [backend.get(a) for a in (y, dx, *grads)]
    free = [torch.tensor(a, requires_grad=True) for a in (x, *params)]
    stats = map(torch.tensor, batch_stats)
    out = torch.nn.functional.batch_norm(free[0], *stats, *free[1:], training=False)
    out.backward(torch.tensor(dy))
    for mine, theirs in zip(ours, [out.detach(), *(a.grad for a in free)], strict=True):
        close(mine, theirs.numpy(), 6)


def test_apply_norm_does_what_batch_norm_does(backend, rng):
    params, x, _ = norm_problem(rng, 6, 4)
    with backend.scope():
        params, x, weights = map_leaves(backend.put, (params, x, rng.random(6)))
        y, _, batch_stats = batch_norm(params, x, weights, xp=backend.xp, epsilon=EPSILON)
        same, _ = apply_norm(params, batch_stats, x, xp=backend.xp, epsilon=EPSILON)
        close(backend.get(same), backend.get(y), 1)


# --- weights -------------------------------------------------------------------------------------


def run_batch_norm(backend, params, x, weights, dy) -> list[np.ndarray]:
    with backend.scope():
        params, x, dy = map_leaves(backend.put, (params, x, dy))
        w = None if weights is None else backend.put(weights)
        y, pullback, batch_stats = batch_norm(params, x, w, xp=backend.xp)
        dx, grads = pullback(dy, need_dx=True)
        return [backend.get(a) for a in (y, dx, *grads, *batch_stats)]


def test_padding_changes_nothing(backend, rng):
    params, x, dy = norm_problem(rng, 5, 4)
    weights = rng.random(5) + 0.1
    padded = [np.concatenate([a, fill]) for a, fill in (
        (x, np.full((3, 4), 1e3)), (weights, np.zeros(3)), (dy, np.zeros((3, 4)))
    )]  # fmt: skip
    alone = run_batch_norm(backend, params, x, weights, dy)
    filled = run_batch_norm(backend, params, *padded)
    for mine, theirs in zip(filled, alone, strict=True):
        close(mine[: len(theirs)] if mine.ndim == 2 else mine, theirs, 5)
    assert not filled[1][5:].any()


def test_a_weight_of_2_counts_a_row_twice(backend, rng):
    params, x, dy = norm_problem(rng, 4, 3)
    twice = np.asarray([0, 0, 1, 2, 3])
    weighted = run_batch_norm(backend, params, x, np.asarray([2.0, 1.0, 1.0, 1.0]), dy)
    halved = dy[twice] / np.asarray([2, 2, 1, 1, 1])[:, None]
    doubled = run_batch_norm(backend, params, x[twice], None, halved)
    close(doubled[0], weighted[0][twice], 5)
    close(doubled[1][0] + doubled[1][1], weighted[1][0], 5)
    for mine, theirs in zip(doubled[2:], weighted[2:], strict=True):
        close(mine, theirs, 5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_that_are_all_0_give_finite_numbers(backend, rng, dtype):
    params, x, dy = map_leaves(lambda a: a.astype(dtype), norm_problem(rng, 4, 3))
    with np.errstate(all="raise"):
        results = run_batch_norm(backend, params, x, np.zeros(4, dtype=dtype), 0 * dy)
    assert all(np.isfinite(a).all() and a.dtype == dtype for a in results)
    assert not any(a.any() for a in results[1:])


def test_a_constant_feature_gives_finite_numbers(backend):
    params, x = Norm(np.ones(3), np.full(3, 7.0)), np.full((4, 3), 5.0)
    with backend.scope():
        here, there, dy = map_leaves(backend.put, (params, x, np.ones((4, 3))))
        for y, pullback, *_ in (
            layer_norm(here, there, xp=backend.xp),
            batch_norm(here, there, None, xp=backend.xp),
        ):
            assert (backend.get(y) == 7.0).all()
            assert np.isfinite(backend.get(pullback(dy, need_dx=True)[0])).all()


@pytest.mark.parametrize("as_array", [False, True])
def test_running_moments(backend, as_array):
    old = BatchStats(np.asarray([0.0, 1.0]), np.asarray([1.0, 1.0]))
    new = BatchStats(np.asarray([10.0, 1.0]), np.asarray([3.0, 0.0]))
    with backend.scope():
        before, batch = map_leaves(backend.put, (old, new))
        rate = backend.put(np.asarray(0.1)) if as_array else 0.1
        moved = map_leaves(backend.get, averaged(before, batch, rate, xp=backend.xp))
        np.testing.assert_allclose(moved.mean, [1.0, 1.0], rtol=1e-15)
        np.testing.assert_allclose(moved.variance, [1.2, 0.9], rtol=1e-15)
        for kept, start in zip(batch, new, strict=True):
            np.testing.assert_array_equal(backend.get(kept), start)


# --- activations ---------------------------------------------------------------------------------

AGAINST = {
    # torch turns softplus into the identity above a threshold, 20 by default.
    "softplus": lambda torch, x: torch.nn.functional.softplus(x, threshold=500),
    "leaky_relu": lambda torch, x: torch.nn.functional.leaky_relu(x),
    "elu": lambda torch, x: torch.nn.functional.elu(x),
    "exp": lambda torch, x: torch.exp(x),
}
FUNCTIONS = ACTIVATIONS | {"exp": exp}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", AGAINST)
def test_activation_against_torch(torch, backend, name, dtype, rng):
    x = np.concatenate([[0.0, 1e-3, -1e-3, 30.0, -30.0], 3 * rng.standard_normal(40)]).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    with backend.scope():
        y, pullback = FUNCTIONS[name](backend.put(x), xp=backend.xp)
        y, dx = backend.get(y), backend.get(pullback(backend.put(dy)))
    with torch.enable_grad():
        free = torch.tensor(x, requires_grad=True)
        out = AGAINST[name](torch, free)
        out.backward(torch.tensor(dy))
    # Relative to each element, so that small outputs are accurate too.
    np.testing.assert_allclose(y, out.detach().numpy(), rtol=tolerance(dtype), atol=0)
    close(dx / np.maximum(y, 1), free.grad.numpy() / np.maximum(y, 1), 1)
    assert y.dtype == dx.dtype == dtype


def test_exp_is_no_choice_for_hidden_layers():
    assert "exp" not in ACTIVATIONS
    assert {"softplus", "leaky_relu", "elu"} <= set(ACTIVATIONS)


@shapes
@given(batch=sizes, width=sizes, seed=seeds)
def test_exp(backend, batch, width, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((batch, width)), rng.standard_normal((batch, width))

    def function(point):
        weight = backend.put(dy)
        y, pullback = exp(point[0], xp=backend.xp)
        return backend.xp.sum(y * weight), (pullback(weight),)

    check_gradient(backend, function, (x,), rng)


def test_norms_write_to_no_input(rng):
    backend = make_backend("numpy")
    params, x, dy = norm_problem(rng, 6, 4)
    weights, batch_stats = rng.random(6), BatchStats(rng.standard_normal(4), rng.random(4))
    for array in (*params, x, dy, weights, *batch_stats):
        array.flags.writeable = False
    for y, pullback, *_ in (
        layer_norm(params, x, xp=backend.xp),
        batch_norm(params, x, weights, xp=backend.xp),
        batch_norm(params, x, None, xp=backend.xp),
    ):
        pullback(dy, need_dx=True)
        assert y is not x
    apply_norm(params, batch_stats, x, xp=backend.xp)
