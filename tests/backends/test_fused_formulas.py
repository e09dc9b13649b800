"""Formulas that CuPy's backend compiles to fused kernels compute what NumPy computes."""

import operator

import array_api_compat.numpy as np_xp
import numpy as np
import pytest

from mlp_xp.nn import losses

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy")]
X = (5, 5)  # In a square, only the shapes of later operations tell rows from columns.
V, ROW, COLUMN = X[1:], (1, 5), (5, 1)


def ramp(n, xp):
    return xp.astype(xp.arange(n), xp.float32)


# Formulas of arrays with these shapes.
FORMULAS = {
    "sums of columns, for rows": ([X], lambda x, *, xp: x - xp.sum(x, axis=0)[:, None]),
    "exp of sums of columns, for rows": (
        [X],
        lambda x, *, xp: x - xp.exp(xp.sum(x, axis=0))[:, None],
    ),
    "sums of rows, for columns": ([X], lambda x, *, xp: x - xp.sum(x, axis=1)),
    "a row becomes a column": ([X, ROW], lambda x, w, *, xp: x * xp.reshape(w, (-1, 1))),
    "a column becomes a row": ([X, COLUMN], lambda x, w, *, xp: x * xp.reshape(w, (1, -1))),
    "a vector as row and column": ([X, V], lambda x, v, *, xp: x * v + v[:, None]),
    "numbers of rows": ([(3, 5)], lambda x, *, xp: x * ramp(3, xp)[:, None]),
    "numbers of rows and columns": (
        [X],
        lambda x, *, xp: x * ramp(5, xp)[:, None] + ramp(5, xp),
    ),
    "numbers of rows, summed": (
        [X],
        lambda x, *, xp: xp.sum(x * ramp(5, xp)[:, None], axis=1),
    ),
    "a sum of one number": (
        [X, V],
        lambda x, v, *, xp: (x * xp.sum(v), xp.sum(xp.sum(v, keepdims=True)), xp.sum(x, axis=1)),
    ),
    "a sum of a normalized vector": (
        [(3, 5), V],
        lambda x, v, *, xp: (x * xp.sum(v), xp.sum(v / xp.sum(v)), xp.sum(x, axis=1)),
    ),
    "sums beside their inputs": (
        [(3, 5)],
        lambda x, *, xp: (xp.sum(x), xp.sum(x, axis=0), x + 1.0),
    ),
    "both zeros": (
        [X],
        lambda x, *, xp: (xp.where(x > 0.0, x * 0.0, -0.0), xp.where(x > 0.0, x, 0.0)),
    ),
    "NaN among numbers": (
        [X],
        lambda x, *, xp: xp.max(xp.where(x > 1.0, xp.nan, x), axis=1) + xp.inf,
    ),
    "any of fractions": ([X], lambda x, *, xp: (xp.any(x * 0.1, axis=1), xp.all(x * 0.1, axis=0))),
    "a sum of small integers": (
        [X],
        lambda x, *, xp: xp.sum(xp.astype(xp.abs(x) * 90.0, xp.uint8), axis=1),
    ),
    "joined columns of two dtypes": (
        [X],
        lambda x, *, xp: xp.concat([xp.exp(x), xp.astype(xp.tanh(x), xp.float64)], axis=1),
    ),
    "a column beside others": (
        [(6, 3)],
        lambda x, *, xp: xp.sqrt(1.0 + xp.concat([x[:, :1], xp.exp(x[:, 1:])], axis=1) ** 2),
    ),
    "nothing beside a column": (
        [(4, 1)],
        lambda x, *, xp: xp.maximum(xp.concat([x[:, :0], xp.exp(x)], axis=1), 1.0) - x,
    ),
    "constants": (
        [X],
        lambda x, *, xp: (
            xp.zeros((), dtype=xp.float32),
            xp.arange(5),
            xp.asarray([1.5, 2.5], dtype=xp.float32),
            x + 1.0,
        ),
    ),
    "no columns": ([X], lambda x, *, xp: (xp.sum(x[:, :0], axis=1), xp.exp(x[:, 5:]), x + 1.0)),
    "matrices": (
        [(2, 3, 4), (2, 1, 4)],
        lambda x, w, *, xp: (x * w - xp.mean(x, axis=1, keepdims=True), xp.max(x, axis=-1)),
    ),
    "one sample": ([(1, 7)], lambda x, *, xp: (x / xp.sum(x, axis=1, keepdims=True), xp.sum(x))),
    "one column": ([(7, 1)], lambda x, *, xp: (x - xp.mean(x, axis=0), xp.sum(x, axis=1))),
    "a long row": ([(2, 3000)], lambda x, *, xp: x / xp.sum(x, axis=1, keepdims=True)),
    "a position": ([X], lambda x, *, xp: xp.argmax(x, axis=-1)),
    "the position in a vector": ([V], lambda v, *, xp: xp.argmax(v, axis=None)),
    "functions of math.h": (
        [X],
        lambda x, *, xp: xp.tan(x) + xp.sinh(x) + xp.atan2(x, x + 9.0) + x % 2.0,
    ),
}
LAYOUTS = {
    "rows": lambda a: a,
    "columns": lambda a: a.T.copy().T,
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
}


def compute_both(backend, function, *arrays):
    """Return the results on NumPy, and those of fused kernels, of equal arrays."""
    from mlp_xp.backends._cupy.kernels.fusion import Fused

    with backend.scope(), np.errstate(all="ignore"):
        expected = function(*arrays, xp=np_xp)
        given = [backend.xp.asarray(array) for array in arrays]
        found = Fused("mlp_xp_formula", function, tuple(given))(*given)
        found = found if isinstance(found, tuple) else (found,)
        expected = expected if isinstance(expected, tuple) else (expected,)
        return expected, [backend.get(array) for array in found]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(backend, name, layout, rng):
    shapes, function = FORMULAS[name]
    arrays = [LAYOUTS[layout](rng.standard_normal(shape).astype("float32")) for shape in shapes]
    expected, found = compute_both(backend, function, *arrays)
    for plain, mine in zip(expected, found, strict=True):
        assert mine.shape == np.shape(plain)
        assert mine.dtype == plain.dtype or mine.dtype.kind in "iu"  # The imitation sums in int64.
        np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-5)
        if mine.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(mine[mine == 0]), np.signbit(plain[mine == 0]))


def test_results_are_no_constants_of_the_formula(backend):
    from mlp_xp.backends._cupy.kernels.fusion import Fused

    def one(x, *, xp):
        return xp.ones((), dtype=xp.float32), x * 2.0

    with backend.scope():
        x = backend.xp.ones((2, 2), dtype=backend.xp.float32)
        fused = Fused("mlp_xp_formula", one, (x,))
        first, _ = fused(x)
        first += 1.0
        assert float(fused(x)[0]) == 1.0


def activate(backend, function, x):
    y, pullback = backend.kernels.activate(function, x, xp=backend.xp)
    return backend.get(y), backend.get(pullback(x))


def test_a_formula_that_cannot_be_traced_runs_all_the_same(backend):
    def by_method(x, *, xp):
        return x.astype("float32") * 2.0, lambda dy: dy * 2.0

    def by_library(x, *, xp):
        import cupy

        return cupy.multiply(x, 2.0), lambda dy: cupy.multiply(dy, 2.0)

    def branches(x, *, xp):
        factor = 2.0 if float(x[0, 0]) > 0.0 else 3.0
        return x * factor, lambda dy: dy * factor

    with backend.scope():
        x = backend.xp.ones((2, 2), dtype=backend.xp.float32)
        for function in (by_method, by_library, branches):
            for found in activate(backend, function, x):
                np.testing.assert_array_equal(found, 2.0)


def test_a_mistake_of_the_compiler_is_an_error(backend, monkeypatch):
    """Formulas would be computed slowly, and nobody would notice."""
    from mlp_xp.backends._cupy.kernels import fusion

    def doubled(x, *, xp):
        return x * 2.0

    monkeypatch.setattr(fusion, "schedule", operator.truediv)
    with backend.scope():
        x = backend.xp.ones((2, 2), dtype=backend.xp.float32)
        with pytest.raises(TypeError, match="unsupported operand type"):
            activate(backend, doubled, x)


class Größe(losses.Loss):
    """A loss whose name is no name in C."""

    output = "identity"

    def losses(self, logits, targets, *, xp):
        return xp.sum(xp.abs(logits - targets), axis=-1)

    def activate(self, logits, *, xp):
        return logits


def test_names_of_kernels_are_ascii(backend, monkeypatch):
    import cupy

    names = []
    made = cupy.RawKernel

    def record(code, name, options):
        names.append(name)
        assert code.isascii()
        return made(code, name, options)

    monkeypatch.setattr(cupy, "RawKernel", record)
    with backend.scope():
        x = backend.put(np.arange(48.0, dtype=np.float32).reshape(16, 3))
        value, _ = backend.kernels.loss(Größe(), x, x + 1.0, xp=backend.xp)
        assert float(value) == 3.0
    assert all(name.isascii() for name in names)
