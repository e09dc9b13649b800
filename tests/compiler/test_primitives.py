"""Each row of the table of primitives: its result and its derivative, on every backend."""

import math

import numpy as np
import pytest
from gradient import check_gradient

from mlp_xp.compiler import FormulaError, derive, graph_of
from mlp_xp.compiler.primitives import ELEMENTWISE, PRIMITIVES, UNARY, ZERO
from mlp_xp.optimizers import clip

# The imitation of CuPy has only the functions that the package uses.
pytestmark = pytest.mark.libraries("numpy", "torch", "jax", "array_api_strict")
SHAPE = (4, 3)
# Numbers in the domain of functions that are not defined everywhere.
DOMAINS = {"acosh": (1.5, 3.0), "asin": (-0.8, 0.8), "acos": (-0.8, 0.8), "atanh": (-0.8, 0.8)}
DOMAINS |= dict.fromkeys(("log", "log1p", "log2", "log10", "sqrt", "reciprocal"), (0.3, 3.0))
SPECIAL = np.asarray([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.0, -2.5, 1e30])
BOOLS = ("logical_and", "logical_or", "logical_xor", "logical_not")
INTEGERS = [name for name in ELEMENTWISE if name.startswith("bitwise")]


# The primitives that are not elementwise, as formulas of x : (4, 3).
OTHERS = {
    "sum": [lambda x, *, xp: xp.sum(x, axis=0), lambda x, *, xp: xp.sum(x, keepdims=True)],
    "max": [lambda x, *, xp: xp.max(x, axis=-1)],
    "min": [lambda x, *, xp: xp.min(x, axis=(0, 1))],
    "astype": [lambda x, *, xp: xp.astype(xp.astype(x, xp.float64), x.dtype)],
    "matmul": [
        lambda x, *, xp: x @ xp.matrix_transpose(x),
        lambda x, *, xp: xp.matmul(x, x[0, :]),
        lambda x, *, xp: x[:, 0] @ x,
        lambda x, *, xp: xp.stack([x, 2.0 * x]) @ x.T,
    ],
    "reshape": [lambda x, *, xp: xp.reshape(x * x, (2, -1))],
    "permute_dims": [lambda x, *, xp: x.T + xp.permute_dims(x, (1, 0)) ** 2],
    "broadcast_to": [lambda x, *, xp: xp.broadcast_to(x, (2, *x.shape)) * x],
    "index": [
        lambda x, *, xp: x[1:3, ::2],
        lambda x, *, xp: x[..., -1] * x[:, 0],
        lambda x, *, xp: x[::-1, None, 1:],
        lambda x, *, xp: x[3:0:-2],
        lambda x, *, xp: x[2, 1],
    ],
    "concat": [
        lambda x, *, xp: xp.concat([x, x[:, :1] ** 2], axis=-1),
        lambda x, *, xp: xp.stack([x, xp.sin(x)], axis=1),
    ],
    "flip": [lambda x, *, xp: xp.flip(x, axis=0) * x],
    "take": [
        lambda x, *, xp: xp.take(x, xp.asarray([2, 0, 2, 2]), axis=0),
        lambda x, *, xp: xp.take(x, xp.asarray([1, 1]), axis=1),
    ],
    "take_along_axis": [
        lambda x, *, xp: xp.take_along_axis(x, xp.argsort(x, axis=0)[:2, :], axis=0),
        lambda x, *, xp: xp.sort(x, axis=-1),
    ],
    "cumulative_sum": [lambda x, *, xp: xp.cumulative_sum(x, axis=1)],
    "argmax": [lambda x, *, xp: x[:, 0] * xp.astype(xp.argmax(x, axis=1), x.dtype)],
    "argmin": [lambda x, *, xp: x[:, 0] * xp.astype(xp.argmin(x, axis=-1), x.dtype)],
    "argsort": [lambda x, *, xp: x * xp.astype(xp.argsort(x, axis=-1, descending=True), x.dtype)],
    "any": [lambda x, *, xp: x * xp.astype(xp.any(x > 0, axis=0), x.dtype)],
    "all": [lambda x, *, xp: xp.where(xp.all(x > 0), x, -x)],
}
# Functions of the namespace that are made of primitives.
MADE = {
    "mean": lambda x, *, xp: xp.mean(x, axis=0),
    "var": lambda x, *, xp: xp.var(x, axis=-1, correction=1.0),
    "std": lambda x, *, xp: xp.std(x, axis=0, keepdims=True),
    "clip": lambda x, *, xp: xp.clip(x, -0.5, 0.7),
    "square": lambda x, *, xp: xp.square(x),
    "unstack": lambda x, *, xp: xp.unstack(x, axis=1)[2] * xp.unstack(x, axis=1)[0],
    "roll": lambda x, *, xp: xp.roll(x, 2) * x + xp.roll(x, (1, -1), axis=(0, 1)),
    "diff": lambda x, *, xp: xp.diff(x**2, axis=0, n=2),
    "tile": lambda x, *, xp: xp.tile(x, (2, 1, 3)) ** 2,
    "repeat": lambda x, *, xp: xp.repeat(x, 2, axis=0) ** 2,
    "tensordot": lambda x, *, xp: xp.tensordot(x, x, axes=([0], [0])) + xp.tensordot(x, x),
    "count_nonzero": lambda x, *, xp: x * xp.astype(xp.count_nonzero(x > 0.0, axis=0), x.dtype),
    "vecdot": lambda x, *, xp: xp.vecdot(x, x),
    "vector_norm": lambda x, *, xp: xp.linalg.vector_norm(x, axis=-1),
    "powers": lambda x, *, xp: x**2 + x**3 + (x * x + 1.0) ** -0.5 + 2.0**x,
    "squeeze": lambda x, *, xp: xp.squeeze(xp.expand_dims(x, axis=1), axis=1),
    "created": lambda x, *, xp: x * xp.arange(3, dtype=x.dtype) + xp.eye(4, 3, dtype=x.dtype),
    "like": lambda x, *, xp: x * xp.full_like(x, 3.0) + xp.ones_like(x) - xp.zeros((4, 1)),
    "in place": lambda x, *, xp: _in_place(x),
    "of dtypes": lambda x, *, xp: x * float(xp.finfo(x.dtype).eps) if xp.isdtype(
        x.dtype, "real floating"
    ) else x,
}  # fmt: skip


def _in_place(x):
    y = 2.0 * x
    same = y
    y *= x
    y -= 1.0
    return same * y  # A write changes every name of an array.


def draw(name, rng, n):
    low, high = DOMAINS.get(name, (-2.0, 2.0))
    arrays = [rng.uniform(low, high, SHAPE) for _ in range(n)]
    if name == "pow":
        arrays[0] = np.abs(arrays[0]) + 0.2
    return arrays


def n_operands(name):
    return 3 if name == "where" else 1 if name in UNARY else 2


def test_every_primitive_is_tested():
    assert set(OTHERS) | set(ELEMENTWISE) | {"prod"} == set(PRIMITIVES)
    assert all(n_operands(name) in (1, 2, 3) for name in ELEMENTWISE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_primitives_match_the_array_library(backend, name, dtype):
    if dtype == "float64" and not backend.has_float64:
        pytest.skip("the device has no float64")
    grid = np.meshgrid(*[SPECIAL.astype(dtype)] * min(n_operands(name), 2), indexing="ij")
    arrays = [np.ascontiguousarray(a) for a in grid]
    if name == "where":
        arrays.insert(0, arrays[0] > 0.0)
    if name in BOOLS:
        arrays = [a > 0.0 for a in arrays]
    if name in INTEGERS:
        arrays = [np.nan_to_num(np.clip(a, 0, 7)).astype(np.int32) for a in arrays]
    with backend.scope(), np.errstate(all="ignore"):
        given = [backend.put(a) for a in arrays]
        xp = backend.xp
        expected = getattr(xp, name)(*given)

        def formula(*operands, xp):
            y = getattr(xp, name)(*operands)
            return y if y.dtype == dtype else xp.astype(y, dtype)  # Formulas return numbers.

        found, _ = derive(formula, *given, xp=xp, n_differentiated=0)
        found, expected = backend.get(found), backend.get(expected)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if ELEMENTWISE[n].derivative is not ZERO])
def test_derivatives_of_elementwise_functions_match_finite_differences(backend, name, rng):
    arrays = draw(name, rng, n_operands(name))
    if name == "where":
        arrays[0] = arrays[0] > 0.0
    # The second operand is broadcast.
    arrays = [a if i == 0 or name == "where" else a[:, :1] for i, a in enumerate(arrays)]
    first = 1 if name == "where" else 0
    weight = rng.standard_normal(SHAPE)

    def function(point):
        xp = backend.xp
        condition = [backend.put(a) for a in arrays[:first]]

        def formula(*operands, xp):
            return getattr(xp, name)(*condition, *operands)

        y, pullback = derive(formula, *point, xp=xp)
        dy = backend.put(weight)
        return xp.sum(y * dy), pullback(dy)

    check_gradient(backend, function, tuple(arrays[first:]), rng)


@pytest.mark.parametrize(
    "formula",
    [f for formulas in OTHERS.values() for f in formulas] + list(MADE.values()),
    ids=[f"{k}-{i}" for k, v in OTHERS.items() for i in range(len(v))] + list(MADE),
)
def test_derivatives_of_other_functions_match_finite_differences(backend, formula, rng):
    x = rng.permutation(np.linspace(-2.0, 2.1, 12)).reshape(SHAPE)
    weights = {}

    def function(point):
        xp = backend.xp
        y, pullback = derive(formula, *point, xp=xp)
        dy = weights.setdefault("dy", rng.standard_normal(tuple(y.shape)))
        dy = backend.put(dy)
        return xp.sum(y * dy), pullback(dy)

    check_gradient(backend, function, (x,), rng)


@pytest.mark.parametrize("formula", [
    lambda x, *, xp: xp.sum(x, axis=0),
    lambda x, *, xp: xp.max(x, axis=1),
    lambda x, *, xp: xp.concat([x, x]),
    lambda x, *, xp: xp.take(x, xp.asarray([1]), axis=1),
    lambda x, *, xp: x.T @ x,
    lambda x, *, xp: x[:0, 1:],
])  # fmt: skip
def test_gradients_of_empty_arrays_have_the_right_shape(backend, formula):
    with backend.scope():
        x = backend.put(np.zeros((0, 3)))
        y, pullback = derive(formula, x, xp=backend.xp)
        assert pullback(backend.xp.ones_like(y))[0].shape == (0, 3)


def test_tied_maxima_and_minima_share_the_gradient(backend):
    with backend.scope():
        xp = backend.xp
        x = backend.put(np.asarray([0.0, 1.0, 1.0]))
        ones = xp.ones_like(x)
        _, pull = derive(lambda x, *, xp: xp.maximum(x, 0.0), x, xp=xp)
        assert backend.get(pull(ones)[0]).tolist() == [0.0, 1.0, 1.0]  # Relu's gradient.
        _, pull = derive(lambda a, b, *, xp: xp.minimum(a, b), x, x + 0.0, xp=xp)
        assert backend.get(pull(ones)[0]).tolist() == [0.5, 0.5, 0.5]
        _, pull = derive(lambda x, *, xp: xp.max(x, axis=0), x, xp=xp)
        assert backend.get(pull(backend.put(np.asarray(6.0)))[0]).tolist() == [0.0, 3.0, 3.0]


def test_gradients_at_edge_cases(backend):
    xp = backend.xp
    cases = [
        (lambda x, *, xp: x**0 + x, [0.0, 2.0], [1.0, 1.0]),
        (lambda x, *, xp: x ** xp.asarray([0.0, 2.0]), [0.0, 3.0], [0.0, 6.0]),
        (lambda x, *, xp: xp.take(x, xp.asarray([-1, 0]), axis=0), [1.0, 2.0, 3.0], [1, 0, 1]),
        (lambda x, *, xp: x * xp.where(x > 0.0, 1.0, 0.25), [-1.0, 2.0], [0.25, 1.0]),
        (lambda x, *, xp: sum(row * 2.0 for row in x), [1.0, 2.0], [2.0, 2.0]),
        (lambda x, *, xp: x * np.float64(3.0), [1.0, 2.0], [3.0, 3.0]),
        (lambda x, *, xp: xp.zeros((0, 2)) + x, [[1.0, 2.0]], [[0.0, 0.0]]),
        (lambda x, *, xp: xp.sin(x * 2) * xp.asarray([1.0, 3.0]), [0.0, 0.0], [2.0, 6.0]),
    ]
    with backend.scope():
        for formula, x, expected in cases:
            y, pullback = derive(formula, backend.put(np.asarray(x), "float32"), xp=xp)
            (dx,) = pullback(xp.ones_like(y))
            assert y.dtype == dx.dtype == xp.float32
            np.testing.assert_allclose(backend.get(dx), expected)
        x = backend.put(np.asarray([1.0, 2.0]), "float32")
        if backend.has_float64:  # A constant of another dtype changes the value's dtype only.
            y, pullback = derive(lambda x, *, xp: x * np.asarray([3.0, 4.0]), x, xp=xp)
            assert (y.dtype, pullback(y)[0].dtype) == (xp.float64, xp.float32)
        with pytest.raises(FormulaError, match=r"`.*`\): axis=None must be one axis of an array"):
            derive(lambda x, *, xp: xp.cumulative_sum(x[:, None]), x, xp=xp)


def test_gradients_at_infinity_and_at_the_zero_vector(backend):
    xp, inf = backend.xp, math.inf
    cases = [
        (inf, inf, [0.5, 0.5]),
        (-inf, -inf, [0.5, 0.5]),
        (2.0, 2.0, [0.5, 0.5]),
        (-inf, 1.0, [0.0, 1.0]),
        (inf, 1.0, [1.0, 0.0]),
        (1000.0, -1000.0, [1.0, 0.0]),
        (0.0, math.log(3.0), [0.25, 0.75]),
    ]
    with backend.scope():
        a, b = (backend.put(np.asarray(column)) for column in list(zip(*cases, strict=True))[:2])
        y, pullback = derive(lambda a, b, *, xp: xp.logaddexp(a, b), a, b, xp=xp)
        found = np.stack([backend.get(da) for da in pullback(xp.ones_like(y))], axis=-1)
        rtol = 1e-12 if y.dtype == getattr(xp, "float64", None) else 1e-6
        np.testing.assert_allclose(found, [weights for *_, weights in cases], rtol=rtol)
        x = backend.put(np.asarray([[3.0, 4.0], [0.0, 0.0]]))
        norm = lambda x, *, xp: xp.linalg.vector_norm(x, axis=-1)  # noqa: E731
        y, pullback = derive(norm, x, xp=xp)
        assert backend.get(y).tolist() == [5.0, 0.0]
        expected = [[0.6, 0.8], [0.0, 0.0]]
        np.testing.assert_allclose(backend.get(pullback(xp.ones_like(y))[0]), expected, rtol=1e-6)


def test_identical_formulas_have_equal_graphs():
    def graph(function):
        return graph_of(function, np.zeros((2, 3)), names=["x"], n_differentiated=1, what="f")

    def other(y, *, xp):
        doubled = 2.0 * y
        return xp.tanh(doubled)

    first, second = graph(lambda x, *, xp: xp.tanh(2.0 * x)), graph(other)
    assert first.result == second.result
    assert first.gradients == second.gradients
    assert first.result != graph(lambda x, *, xp: xp.tanh(3.0 * x)).result


def test_no_two_gradients_share_memory(backend):
    """Clipping and penalties overwrite gradients."""

    def function(a, b, c, d, x, *, xp):
        return x + a + xp.reshape(b, (1, -1)) + xp.sum(c) + d

    xp = backend.xp
    with backend.scope():
        vectors = [backend.put(np.full(3, 2.0), "float32") for _ in range(3)]
        x, d = (backend.put(np.ones((4, 3)), "float32") for _ in range(2))
        _, pullback = derive(function, *vectors, d, x, xp=xp)
        clipped, norm = clip(pullback(xp.ones_like(x)), 1.0, xp=xp)
        a, b, c, d, x = (backend.get(gradient) for gradient in clipped)
    assert float(norm) == pytest.approx(math.sqrt(2 * 3 * 4**2 + 3 * 12**2 + 2 * 12))
    np.testing.assert_allclose(np.stack([a, b, c / 3.0]), 4.0 / float(norm), rtol=1e-6)
    np.testing.assert_allclose(np.stack([d, x]), 1.0 / float(norm), rtol=1e-6)
