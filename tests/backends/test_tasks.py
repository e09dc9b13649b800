"""Tasks in machine code compute what the defaults do, and touch nothing beside arrays."""

import gc
import weakref

import numpy as np
import pytest
from helpers import tolerance
from numpy.lib.stride_tricks import as_strided

from mlp_xp._utils.tree import leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledLoop, CompiledStep
from mlp_xp.backends.kernels import Kernels, Scaling, Source
from mlp_xp.nn.layers import Dense
from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_loss
from mlp_xp.optimizers import SGD, Adam

KERNELS, XP = get_backend("numpy").kernels, get_backend("numpy").xp
F32, RULE = np.dtype("float32"), SGD(nesterov=False)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype("f4")


def update(kernels, params, grads, state, rate=None):
    rate = np.asarray(0.1, "f4") if rate is None else rate
    new = kernels.update(RULE, params, grads, (state,), (rate,), xp=XP)
    return (*new.params, *new.opt_state[0])


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("width", [3, 3000])
def test_row_indices_out_of_range_are_an_error(width, kernel, parts, pool_of, rng):
    def step(state, x, rows):
        if kernel:
            return (KERNELS.gather(Source(x, rows), dtype=F32, xp=XP),)
        return (XP.take(x, rows, axis=0),)

    x, good, compiled = normal(rng, 4, width), np.asarray([-4, 3], np.int32), CompiledStep(step)
    words = r"positions must be from -4 to 3, got 1 to 4"
    with pool_of(parts):
        (taken,) = compiled((np.empty((2, width), "f4"),), x, good)
        np.testing.assert_array_equal(taken, x[[0, 3]])
        with pytest.raises(IndexError, match=words):
            compiled((taken,), x, np.asarray([4, 1], np.int32))
        for rows in ([4], [0, -5], [2**31 - 1], [-(2**31)]):
            with pytest.raises(IndexError):
                KERNELS.gather(Source(x, np.asarray(rows, np.int32)), dtype=F32, xp=XP)
        # The earlier results are still there.
        np.testing.assert_array_equal(taken, x[[0, 3]])
        (taken,) = compiled((taken,), x, good[::-1].copy())
    np.testing.assert_array_equal(taken, x[[3, 0]])
    assert compiled.is_traceable


@pytest.mark.parametrize("parts", [0, 1])
def test_steps_beyond_the_given_arrays_are_an_error(parts, pool_of):
    loop = CompiledLoop(lambda i, state, given: (state[0] + given[i, ...],))
    # A step's arguments may be computed after the step has begun.
    computed = CompiledLoop(lambda i, state, given: (state[0] + (given * 2.0)[i, ...],))
    given, state, doubled = np.arange(3.0), (np.zeros(()),), (np.zeros(()),)
    with pool_of(parts):
        state = loop(0, 3, state, given)
        for start, stop in ((0, 4), (3, 9), (-1, 1)):
            words = f"Steps must be from 0 to 2, got {start} to {stop - 1}"
            with pytest.raises(IndexError, match=words):
                loop(start, stop, state, given)
        for each in (given, np.full(3, 10.0)):
            doubled = computed(0, 3, doubled, each)
    assert loop.is_traceable
    assert (float(state[0]), float(doubled[0])) == (3.0, 66.0)


def layouts(rng):
    """Return arrays of 20 rows of 24 numbers that are not contiguous."""
    flat = normal(rng, 2000)
    packed = np.zeros(20, dtype=[("flag", "u1"), ("x", "f4", (24,))])
    packed["x"] = flat[:480].reshape(20, 24)
    return {
        "not aligned": packed["x"],
        "windows": as_strided(flat, (20, 24), (4, 4)),
        "overlapping": as_strided(flat, (20, 24), (40, 4)),
        "backwards": flat[:480].reshape(20, 24)[::-1],
        "one row": np.broadcast_to(flat[:24], (20, 24)),
        "mirrored": flat[:480].reshape(20, 24)[:, ::-1],
        "one number": np.broadcast_to(flat[:1], (20, 24)),
        "apart": flat[:800].reshape(20, 40)[:, 3:27],
        "single": flat[:480].reshape(20, 24)[::-20],
    }


@pytest.mark.parametrize("name", layouts(np.random.default_rng(0)))
def test_kernels_accept_rows_in_any_memory_layout(name, pool_of, rng, capfd):
    x = layouts(rng)[name]
    W, b, dy = normal(rng, 24, 32), normal(rng, 32), normal(rng, len(x), 32)
    rows, scaling = np.asarray([0, -1, 0], np.int32), Scaling(x[0], x[-1])
    labels, results = np.zeros(len(x), np.int32), []
    for kernels, parts in ((KERNELS, 1), (KERNELS, 2), (Kernels(), 0)):
        params, state = (np.ones(x.shape, "f4"),), (np.zeros(x.shape, "f4"),)
        with pool_of(parts):
            y, pullback = kernels.dense(Dense(W, b), x, xp=XP)
            active, back = kernels.activate("logistic", x, xp=XP)
            value, pull = kernels.loss(SoftmaxCrossEntropy(), x, labels, xp=XP)
            found = [y, *leaves(pullback(dy, need_dx=True)), active, value, pull()]
            found += [back(x), back(x[:1]), back(np.asfortranarray(x))]
            if name in ("backwards", "mirrored", "apart"):  # An update may write to gradients.
                found += update(kernels, params, (layouts(np.random.default_rng(0))[name],), state)
            results.append([*found, kernels.gather(Source(x, rows, scaling), dtype=F32, xp=XP)])
    for found in results[:2]:
        for mine, plain in zip(found, results[2], strict=True):
            atol = np.abs(plain).max() * tolerance("float32", 32)
            np.testing.assert_allclose(mine, plain, rtol=0, atol=atol)
    assert "illegal value" not in "".join(capfd.readouterr())  # The BLAS's message.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [32, 100, 144])
@pytest.mark.parametrize("fan_in", [24, 259])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize(("is_apart", "n_samples"), [(False, 40), (False, 200), (True, 200)])
def test_fused_updates_compute_gradients_of_any_size(
    is_apart, n_samples, fan_in, width, dtype, parts, pool_of, rng
):
    """A fused update computes the gradient itself only from contiguous rows."""

    def step(state, x, dy):
        W, b, v, c = state
        # Not arguments, whose memory may differ in the next call.
        x, dy = (XP.concat([-x, x], axis=1)[:, 3 : fan_in + 3], -dy) if is_apart else (-x, -dy)
        _, pullback = KERNELS.dense(Dense(W, b), x, xp=XP)
        _, grads = pullback(dy, need_dx=False)
        return update(KERNELS, Dense(W, b), grads, Dense(v, c), np.asarray(0.1, dtype))

    x, dy = (rng.standard_normal((n_samples, n)).astype(dtype) for n in (fan_in, width))
    zeros = tuple(np.zeros(shape, dtype) for shape in ((fan_in, width), (width,)) * 2)
    compiled = CompiledStep(step)
    with pool_of(parts):
        W = compiled(zeros, x, dy)[0]
    assert compiled.is_traceable
    taken = np.concatenate([x, -x], axis=1)[:, 3 : fan_in + 3] if is_apart else x
    expected = -0.1 * taken.T @ dy
    atol = np.abs(expected).max() * tolerance(dtype, n_samples)
    np.testing.assert_allclose(W, expected, atol=atol)


@pytest.mark.parametrize("parts", [0, 1])
@pytest.mark.parametrize("side", [4, 200])
def test_gradients_can_change_address_and_be_overwritten_between_calls(side, parts, pool_of):
    """An argument that a rule overwrites has its own values again when the traced step runs."""

    def run(kernels, plan):
        step = plan(lambda state, g: update(kernels, state[:1], (g,), state[1:]))
        state = tuple(np.zeros((side, side), "f4") for _ in range(2))
        with pool_of(parts):
            for value in (1.0, 2.0, 3.0):
                state = step(state, np.full((side, side), value, "f4"))
        return state[0]

    np.testing.assert_array_equal(run(KERNELS, CompiledStep), run(Kernels(), lambda step: step))


def test_learning_rate_can_have_another_dtype(pool_of):
    """A plan knows where a number lies and not what it is."""
    ones = (np.ones(4, "f4"),)
    step = lambda state, rate: update(KERNELS, state[:1], ones, state[1:], rate[0])  # noqa: E731
    with pool_of(1):
        p, _ = CompiledStep(step)((np.zeros(4, "f4"), np.zeros(4, "f4")), np.asarray([0.5]))
    assert p.tolist() == [-0.5] * 4


@pytest.mark.parametrize("other", ["float32", "float64"])
def test_gradient_in_another_dtype_is_converted(other, pool_of, rng):
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


def bad_calls(rng):
    """Return kernel calls with arguments that do not fit together, and each default."""
    x, W, b, dy = normal(rng, 5, 6), normal(rng, 6, 32), normal(rng, 32), normal(rng, 5, 32)
    labels, loss, ones = np.zeros(5, np.int32), SoftmaxCrossEntropy(), np.ones(1, "f4")

    def pull(kernels, dy):
        return kernels.dense(Dense(W, b), x, xp=XP)[1](dy, need_dx=True)

    read_only = W.copy()
    read_only.flags.writeable = False
    return {
        "weights of fewer rows": lambda k: k.dense(Dense(W[:4], b), x, xp=XP),
        "a short bias": lambda k: k.dense(Dense(W, b[:3]), x, xp=XP),
        "no features": lambda k: k.dense(Dense(W[:0], b), x[:, :0], xp=XP),
        "a narrow slope": lambda k: pull(k, dy[:, :3]),
        "a short slope": lambda k: pull(k, dy[:3]),
        "a short slope of an activation": lambda k: k.activate("relu", x, xp=XP)[1](x[:3]),
        "a slope of one row": lambda k: k.activate("relu", x, xp=XP)[1](x[0]),
        "few labels": lambda k: k.loss(loss, x, labels[:3], xp=XP),
        "few weights": lambda k: k.loss(loss, x, labels, np.ones(3, "f4"), xp=XP),
        "no classes": lambda k: k.loss(loss, x[:, :0], labels, xp=XP),
        "one shift": lambda k: k.gather(Source(x, None, Scaling(ones, ones)), dtype=F32, xp=XP),
        "float16": lambda k: k.gather(Source(x.astype("u1"), labels), dtype=np.dtype("f2"), xp=XP),
        "rows of rows": lambda k: k.gather(Source(x, labels[:, None]), dtype=F32, xp=XP),
        "few gradients": lambda k: update(k, (W.copy(),), (W[:3],), (W.copy(),)),
        "small state": lambda k: update(k, (W.copy(),), (W,), (W[:3].copy(),)),
        "read-only weights": lambda k: update(k, (read_only,), (W,), (W.copy(),)),
    }


@pytest.mark.parametrize("name", bad_calls(np.random.default_rng(0)))
def test_invalid_calls_behave_like_the_default_kernels(name, pool_of):
    def outcome(kernels):
        try:
            return [np.asarray(a) for a in leaves(call(kernels)) if not callable(a)]
        except (ValueError, IndexError) as error:
            return [type(error)]

    call = bad_calls(np.random.default_rng(0))[name]
    with pool_of(1):
        found = outcome(KERNELS)
    for mine, plain in zip(found, outcome(Kernels()), strict=True):
        if isinstance(plain, np.ndarray):
            np.testing.assert_allclose(mine, plain, atol=1e-5)
            assert mine.dtype == plain.dtype
        else:
            assert mine == plain


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n_rows", [6, 16, 37])
def test_compiled_softmax_loss_matches_the_default(n_rows, smoothing, dtype, pool_of, rng):
    """The loop takes 16 rows at a time, and large logits keep the digits of their differences."""
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
def test_adam_square_root_is_accurate_for_all_magnitudes(dtype, pool_of, rng):
    """The loop computes roots by itself where it can; 1,003 numbers leave a part of a vector."""
    dtype = np.dtype(dtype)
    info = np.finfo(dtype)
    squares = (2.0 ** rng.uniform(info.minexp, info.maxexp - 1, 1_003)).astype(dtype)
    squares[:7] = [0.0, np.inf, np.nan, info.tiny, info.max, info.smallest_subnormal, 1.0]
    zeros, ones = np.zeros_like(squares), np.ones_like(squares)
    optimizer, rate = Adam(beta_1=0.5, beta_2=0.5, epsilon=0.0), (np.asarray(1.0, dtype),)
    with pool_of(1), np.errstate(divide="ignore"):
        state = ((ones,), (squares.copy(),))
        new = KERNELS.update(optimizer, (zeros.copy(),), (zeros,), state, rate, xp=XP)
        expected = dtype.type(-0.5) / np.sqrt(dtype.type(0.5) * squares)
    np.testing.assert_allclose(new.params[0], expected, rtol=2 * info.eps)


@pytest.mark.parametrize("parts", [0, 1])
def test_compiled_step_keeps_few_programs(parts, pool_of):
    """Each program holds memory."""
    compiled = CompiledStep(lambda s, x: (s[0] + XP.sum(x * 2.0),))
    state, total = (np.zeros(()),), 0.0
    with pool_of(parts):
        for n in (*range(1, 30), *range(1, 30)):
            state = compiled(state, np.ones(n))
            total += 2.0 * n
            assert len(compiled.programs) <= 8
    assert compiled.is_traceable
    assert float(state[0]) == total


@pytest.mark.parametrize("parts", [0, 1])
@pytest.mark.parametrize("many", [False, True])
def test_a_compiled_step_does_not_keep_its_arguments(many, parts, pool_of, new_objects):
    """Data may be most of the memory there is."""

    def step(state, x, rows):
        taken = KERNELS.gather(Source(x, rows), dtype=F32, xp=XP)
        part = XP.reshape(x, (-1, 10))[:3, :]
        return (state[0] + XP.sum(taken) + XP.sum(part),)

    compiled, bounds, rows = CompiledStep(step), (), np.zeros(5, np.int32)
    if many:
        compiled = CompiledLoop(lambda i, s, x, rows: step(s, x, rows[i, ...]))
        bounds, rows = (0, 2), np.zeros((2, 5), np.int32)
    with pool_of(parts):
        for _ in range(2):
            given = np.ones((2000, 20), "f4")
            place = weakref.ref(given)
            compiled(*bounds, (np.zeros((), "f4"),), given, rows)
            assert compiled.is_traceable
            del given
            gc.collect()
            assert place() is None


def test_memory_layout_of_arguments_can_change_between_calls(pool_of):
    """Machine code goes by the layout of the first call."""

    def step(state, x):
        taken = KERNELS.gather(Source(x, None, Scaling(*np.ones((2, 20), "f4"))), dtype=F32, xp=XP)
        return (state[0] + XP.sum(taken),)

    compiled, x = CompiledStep(step), np.arange(40_000, dtype="f4").reshape(2000, 20) % 7
    packed = np.zeros(2000, dtype=[("flag", "u1"), ("x", "f4", (20,))])
    packed["x"] = x
    shifted = np.zeros(x.nbytes + 1, "u1")[1:].view("f4").reshape(x.shape)
    shifted[...] = x
    state, total = (np.zeros((), "f4"),), 0.0
    with pool_of(1):
        for each in (x, x[::-1], np.asfortranarray(x), packed["x"], shifted, x):
            state = compiled(state, each)
            total += float(np.sum(x) - x.size)
    assert float(state[0]) == total
    assert compiled.is_traceable
