"""Threads compute large operations of a traced step in machine code, with NumPy's results."""

from operator import isub

import numpy as np
import pytest
from helpers import tolerance
from test_kernels import ARRANGEMENTS

from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.runtime.thread_pool import find_tile
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledStep
from mlp_xp.backends._numpy.tracing.program import Program
from mlp_xp.backends.kernels import Kernels, Scaling, Source
from mlp_xp.nn.layers import Dense, Embedding, embed
from mlp_xp.optimizers import SGD

XP = get_backend("numpy").xp
KERNELS, T = get_backend("numpy").kernels, XP.matrix_transpose


def hashed(a):
    bits = XP.arange(a.size, dtype=XP.int32) * 12345
    bits = (bits ^ (bits >> 16)) & 0xFFFF
    return XP.astype(XP.reshape(bits > 30_000, a.shape), a.dtype)


def flat(a):
    return XP.reshape(a, (-1,))


ONES = np.ones(6 * 512 * 24)
# The last operation on two arrays of shape (6, 512, 24), and whether machine code computes it.
OPERATIONS = {
    "sum": (lambda a, b: a + b, True),
    "difference of a row": (lambda a, b: a - b[0, 0], True),
    "product with a number": (lambda a, b: a * 3.0, True),
    "product with a number of NumPy": (lambda a, b: a * a.dtype.type(3.0), True),
    "row of the result": (lambda a, b: isub(c := XP.reshape(a + b, (-1, 24)), c[1]), False),
    "sum of rows": (lambda a, b: XP.sum(XP.reshape(a, (-1, 48)), axis=-2), True),
    "sum of columns": (lambda a, b: XP.sum(XP.reshape(a, (-1, 24)), axis=1), True),
    "total": (lambda a, b: XP.sum(a), True),
    "mean": (lambda a, b: XP.mean(XP.reshape(a, (-1, 24)), axis=-1, keepdims=True), True),
    "product of vectors": (
        lambda a, b: XP.vecdot(XP.reshape(a, (-1,)), XP.reshape(b, (-1,))),
        True,
    ),
    "comparison": (lambda a, b: XP.astype((a > b) & (b < 1.0), a.dtype), True),
    "choice": (lambda a, b: XP.where(a > b, XP.exp(-abs(a)), b), True),
    "square": (lambda a, b: XP.square(a), True),
    "square as a power": (lambda a, b: a**2, True),
    "power": (lambda a, b: XP.abs(a) ** 1.5, True),
    "power by a number of NumPy": (lambda a, b: XP.abs(a) ** a.dtype.type(1.5), True),
    "power of a number": (lambda a, b: 2.0**a, True),
    "not": (lambda a, b: XP.astype(~(a > b), a.dtype), True),
    "ones": (lambda a, b: XP.ones_like(a) * a, True),
    "zeros": (lambda a, b: XP.zeros_like(a), True),
    "sine": (lambda a, b: XP.sin(a), True),
    "function without a loop": (lambda a, b: XP.nextafter(a, b), False),
    "hypot": (lambda a, b: XP.hypot(a, b), True),
    "a b": (lambda a, b: a @ b[:, :24], True),
    "a^T b": (lambda a, b: T(a) @ b, True),
    "a^T b with gaps": (lambda a, b: T(a) @ b[..., :16], True),
    "a b^T": (lambda a, b: a @ T(b), True),
    "a b into a": (lambda a, b: XP.matmul(c := a[:, :24] + 0.0, b[:, :24], out=c), False),
    "a^T b^T": (lambda a, b: T(a)[:, :, :24] @ T(b), True),
    "narrow": (lambda a, b: a @ b[:, :24, :2], True),
    "one output": (lambda a, b: a @ b[:, :24, :1], True),
    "narrow a^T b": (lambda a, b: T(a[..., :3]) @ b[..., :1], True),
    "narrow a b^T": (lambda a, b: a[..., :2] @ T(b[..., :2]), True),
    "one row": (lambda a, b: a[:, :1] @ T(b), True),
    "two matrices": (lambda a, b: a[0] @ b[0, :24], True),
    "two matrices, one output": (lambda a, b: a[0] @ b[0, :24, :1], True),
    "two matrices, a^T b": (lambda a, b: T(a[0]) @ b[1], True),
    "two matrices, a b^T": (lambda a, b: a[0] @ T(b[1]), True),
    "the same matrices": (lambda a, b: a @ b[0, :24], True),
    "stack of stacks": (lambda a, b: XP.reshape(a, (2, 3, 512, 24)) @ b[:3, :24], True),
    "many products": (
        lambda a, b: XP.reshape(a, (-1, 4, 4)) @ XP.reshape(b, (-1, 4, 4)),
        False,
    ),
    "columns": (lambda a, b: XP.reshape(T(a), (-1, 512)), True),
    "columns of slices": (lambda a, b: a[..., :12] * b[..., 12:], True),
    "every second": (lambda a, b: XP.exp(a[..., ::2]) + b[:, :, 1::2], True),
    "one column": (lambda a, b: a[..., 3:4] - b[..., 5:6], True),
    "transposed": (lambda a, b: T(a) + T(b), True),
    "stacks": (lambda a, b: a[:, :1] * b[:1], True),
    "flipped": (lambda a, b: XP.flip(a, axis=1) - XP.flip(b, axis=-1), True),
    "part of the result": (lambda a, b: isub((a + b)[..., 1:7], b[..., :6]), True),
    "overlap": (lambda a, b: isub((c := a + b)[..., 1:7], c[..., :6]), False),
    "more axes than a loop has": (
        lambda a, b: XP.permute_dims(XP.reshape(a, (3, 2, 64, 8, 6, 4)), (4, 2, 0, 5, 1, 3)) * 2.0,
        False,
    ),
    "concatenated": (lambda a, b: XP.concat([a[..., :5], b[..., 7:], a], axis=-1), True),
    "concatenated along rows": (lambda a, b: XP.concat([b[:, 1:], a[:, :7]], axis=1), True),
    "concatenated in one axis": (lambda a, b: XP.concat([a, b[:2]], axis=None), False),
    "taken blocks": (lambda a, b: XP.take(a, XP.asarray([2, 3, 4, -1, -1, 0, 5]), axis=-1), True),
    "taken at a list": (lambda a, b: np.take(a, [0, 2, 1], axis=0), False),
    "product with a constant": (lambda a, b: XP.vecdot(ONES.astype(a.dtype), flat(a)), True),
    "taken numbers": (lambda a, b: XP.take(a, XP.arange(20)[::-1] % 7, axis=1), True),
    "stacked": (lambda a, b: XP.stack([a, b], axis=-1), True),
    "sum of stacks": (lambda a, b: XP.sum(a, axis=0), True),
    "sum in stacks": (lambda a, b: XP.sum(a, axis=-2, keepdims=True), True),
    "sum of two axes": (lambda a, b: XP.sum(a, axis=(0, 2)), True),
    "sum of transposed": (lambda a, b: XP.sum(T(a), axis=-1), True),
    "sum of slices": (lambda a, b: XP.sum(a[..., ::3]), True),
    "largest": (lambda a, b: XP.max(XP.reshape(a, (-1, 24)), axis=-1, keepdims=True), True),
    "largest of slices": (lambda a, b: XP.max(a[..., 2:9], axis=-1), True),
    "smallest in stacks": (lambda a, b: XP.min(a, axis=1), True),
    "smallest": (lambda a, b: XP.min(a), True),
    "product of numbers": (lambda a, b: XP.prod(a[..., :2], axis=-1), True),
    "product of columns": (lambda a, b: XP.prod(a[0, :9, :], axis=0), True),
    "whole numbers": (lambda a, b: XP.astype(XP.astype(a * 100.0, XP.int32), a.dtype), True),
    "zeros and ones": (lambda a, b: XP.ones_like(a) - XP.zeros_like(a), True),
    "order of Fortran": (lambda a, b: np.reshape(a, (-1, 512), order="F") + 0.0, True),
}
for name, how in ARRANGEMENTS.items():
    shape = (-1, int(np.prod(how.shape)))
    split = lambda a, b, how=how, shape=shape: how.split(XP.reshape(a, shape), xp=XP)  # noqa: E731
    OPERATIONS[f"split: {name}"] = split, None if name in ("first", "last") else True


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_in_a_traced_step_match_numpy(name, dtype, pool_of, rng, monkeypatch):
    lower, is_lowered = Program._lower, []

    def spy(program, function, *operands, **options):
        is_lowered.append(lower(program, function, *operands, **options))
        return is_lowered[-1]

    monkeypatch.setattr(Program, "_lower", spy)
    function, expected = OPERATIONS[name]
    a, b = rng.standard_normal((2, 6, 512, 24)).astype(dtype)
    plain = function(a, b)
    compiled = CompiledStep(lambda state, a, b: (function(a, b),))
    with pool_of(2):
        (found,) = compiled((np.zeros_like(plain),), a, b)
    assert compiled.is_traceable
    # A view needs no operation; the last one copies the result to the state.
    assert is_lowered[:-1][-1:] == [value for value in [expected] if value is not None]
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e2 * tolerance(dtype, 24))


def test_integers_are_copied_to_the_state(pool_of):
    a = np.arange(5, dtype="i4")
    compiled = CompiledStep(lambda state, a: ((a ^ 7) + 1,))
    with pool_of(2):
        (found,) = compiled((np.zeros(5, "i4"),), a)
    assert compiled.is_traceable
    np.testing.assert_array_equal(found, [8, 7, 6, 5, 4])


def test_indices_are_not_checked_before_they_are_computed(pool_of, monkeypatch, rng):
    def step(state, table, rows, codes):
        """Take rows at positions that a kernel computes; while tracing, its result is not set."""
        taken = KERNELS.gather(Source(codes, rows), dtype=codes.dtype, xp=XP)
        return (XP.take(table, XP.astype(taken[:, 0], XP.int32), axis=0),)

    name = "mlp_xp.backends._numpy.tracing.program.empty"
    monkeypatch.setattr(name, lambda shape, dtype: np.full(shape, -(2**31), dtype))
    table, codes = rng.standard_normal((12, 3)), rng.integers(0, 12, (40, 2)).astype("f8")
    compiled = CompiledStep(step)
    with pool_of(2):
        (found,) = compiled((np.zeros((40, 3)),), table, np.arange(40, dtype="i4"), codes)
    assert compiled.is_traceable
    np.testing.assert_array_equal(found, table[codes[:, 0].astype(int)])


@pytest.mark.parametrize("width", [1, 7, 8, 2051])  # Rows of bytes may end within a word.
@pytest.mark.parametrize("n_rows", [5, 40])
def test_bytes_are_gathered_and_scaled_by_machine_code(n_rows, width, pool_of, rng):
    x = rng.integers(0, 256, (50, width), np.uint8)
    rows = rng.integers(-50, 50, n_rows).astype("i4")
    shift, scale = rng.standard_normal((2, width)).astype("f4")
    expected = (x[rows].astype("f4") - shift) * scale

    def step(state, x, rows, shift, scale):
        source = Source(x, rows, Scaling(shift, scale))
        return (KERNELS.gather(source, dtype=np.dtype("f4"), xp=XP),)

    compiled = CompiledStep(step)
    for n_threads in (1, 2):
        with pool_of(n_threads):
            (found,) = compiled((np.zeros_like(expected),), x, rows, shift, scale)
            assert compiled.programs[-1].step_range(0, 1) is not None
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_an_embedding_are_added_in_order(dtype, pool_of, rng):
    table, dy = rng.standard_normal((6, 3)), rng.standard_normal((40, 6))
    table, dy = table.astype(dtype), dy.astype(dtype)
    dy[3, 1], dy[5, 0] = np.nan, np.inf
    positions = rng.integers(-6, 5, (40, 2)).astype("i4")  # One row has no samples.
    positions[positions == -1] = 0

    def step(state, positions, dy):
        y, pullback = embed(
            Embedding(state[0]), positions, sum_rows=KERNELS.sum_rows_of_table, xp=XP
        )
        return pullback(dy, need_dx=False)[1].table, y * 1.0

    expected = np.zeros_like(table)
    np.add.at(expected, positions.reshape(-1), dy.reshape(-1, 3))
    compiled = CompiledStep(step)
    with pool_of(2):
        found = compiled((table.copy(), np.zeros_like(dy)), positions, dy)
        assert compiled.programs[0].step_range(0, 1) is not None
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], table[positions].reshape(40, 6))


def test_reductions_return_nan_and_infinities(pool_of, rng):
    a = rng.standard_normal((40, 7)).astype("f4")
    a[3, 2], a[4, 0], a[5, 6], a[6] = np.nan, np.inf, -np.inf, -np.inf
    a[7, 0] = a[8, 6] = np.nan

    def step(state, a):
        return XP.max(a, axis=-1), XP.min(a, axis=-1), XP.max(a, axis=0)

    compiled = CompiledStep(step)
    with pool_of(2):
        found = compiled(tuple(np.zeros(n, "f4") for n in (40, 40, 7)), a)
    assert compiled.is_traceable
    for mine, expected in zip(found, step((), a), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("given", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_dtype_conversions_match_numpy(dtype, given, pool_of, rng):
    a = (rng.standard_normal((5, 9)) * 3.0).astype(given)
    compiled = CompiledStep(lambda state, a: (XP.astype(a[:, 1:], getattr(XP, dtype)),))
    with pool_of(2):
        (found,) = compiled((np.zeros((5, 8), dtype),), a)
        assert compiled.programs[0].step_range(0, 1) is not None
    np.testing.assert_array_equal(found, a[:, 1:].astype(dtype))


def test_sums_do_not_depend_on_the_number_of_threads(pool_of, rng):
    """Sums of rows, of blocks with a remainder, and of products."""

    def step(state, a):
        rows, flat = XP.sum(a, axis=-1), XP.reshape(a, (-1,))
        return rows, XP.sum(a) + XP.vecdot(flat, flat)

    a = rng.standard_normal((301, 107)).astype("f4")
    found = []
    for n_threads in (1, 2, 3):
        with pool_of(n_threads):
            compiled = CompiledStep(step)
            found.append(compiled((np.zeros(301, "f4"), np.zeros((), "f4")), a))
        assert compiled.is_traceable
    for results in zip(*found, step((), a), strict=True):
        *mine, plain = results
        np.testing.assert_array_equal(mine, [mine[0]] * 3)
        np.testing.assert_allclose(mine[0], plain, rtol=1e-4, atol=1e-4)


def test_products_do_not_depend_on_the_number_of_threads(pool_of, rng):
    """Products of two matrices, also with long sums or one output, and of stacks.

    Without AVX2, products are the BLAS's, which orders sums by the number of rows of a part.
    """

    def step(state, x, W, dy):
        stack = XP.reshape(x, (3, -1, 2048))
        return x @ W, T(x) @ dy, x @ W[:, 0:1], T(x) @ dy[:, 0:1], stack @ W, T(stack) @ stack

    shapes = (96, 2048), (2048, 48), (96, 48)
    x, W, dy = (rng.standard_normal(shape).astype("f4") for shape in shapes)
    plain, found = step((), x, W, dy), []
    for n_threads in (1, 2, 3):
        with pool_of(n_threads):
            compiled = CompiledStep(step)
            found.append(compiled(tuple(map(np.zeros_like, plain)), x, W, dy))
        assert compiled.is_traceable
    for results in zip(*found, plain, strict=True):
        *mine, expected = results
        if find_tile() is not None:
            np.testing.assert_array_equal(mine, [mine[0]] * 3)
        np.testing.assert_allclose(mine, [expected] * 3, rtol=1e-3, atol=1e-3)


def scale(dW, dy):
    dW *= 0.5


def change_factor(dW, dy):
    dy += 1.0


def sum_squares(dW, dy):
    return XP.sum(dW * dW, axis=0)


@pytest.mark.parametrize("use", [scale, change_factor, sum_squares])
def test_a_gradient_that_other_operations_use_is_computed(use, pool_of, rng):
    def step(state, x, dy, kernels=KERNELS):
        W, b, velocity = state
        _, pullback = kernels.dense(Dense(W, b), x * 1.0, xp=XP)
        dy = dy * 1.0
        dW = pullback(dy, need_dx=False)[1].W
        total = use(dW, dy)
        rate = np.asarray(0.1, "f4")
        new = kernels.update(SGD(), (W,), (dW,), ((velocity,),), (rate,), xp=XP)
        return new.params[0], b if total is None else total, new.opt_state[0][0]

    shapes = (200, 256), (200, 160), (256, 160)
    x, dy, W = (rng.standard_normal(shape).astype("f4") for shape in shapes)
    state = W, np.zeros(160, "f4"), np.zeros_like(W)
    plain = step([array.copy() for array in state], x, dy, Kernels())
    compiled = CompiledStep(step)
    with pool_of(2):
        found = compiled(state, x, dy)
    assert compiled.is_traceable
    for mine, expected in zip(found, plain, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-3)
