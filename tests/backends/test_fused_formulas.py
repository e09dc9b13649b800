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
    """Return the results of NumPy and of fused kernels for equal arrays."""
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
def test_fused_formulas_match_the_default(backend, name, layout, rng):
    shapes, function = FORMULAS[name]
    arrays = [LAYOUTS[layout](rng.standard_normal(shape).astype("float32")) for shape in shapes]
    expected, found = compute_both(backend, function, *arrays)
    for plain, mine in zip(expected, found, strict=True):
        assert mine.shape == np.shape(plain)
        assert mine.dtype == plain.dtype or mine.dtype.kind in "iu"  # The imitation sums in int64.
        np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-5)
        if mine.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(mine[mine == 0]), np.signbit(plain[mine == 0]))


def test_constant_results_can_be_modified_without_side_effects(backend):
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


def test_untraceable_formulas_run_unfused(backend):
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


def test_compiler_bugs_raise_instead_of_falling_back(backend, monkeypatch):
    """Formulas would be computed slowly, and nobody would notice."""
    from mlp_xp.backends._cupy.kernels import fusion

    def doubled(x, *, xp):
        return x * 2.0

    monkeypatch.setattr(fusion, "schedule", operator.truediv)
    with backend.scope():
        x = backend.xp.ones((2, 2), dtype=backend.xp.float32)
        with pytest.raises(TypeError, match="unsupported operand type"):
            activate(backend, doubled, x)


def launched(monkeypatch):
    """Return a list of what is launched from here on: names and sources."""
    import cupy

    found = []
    launch = cupy.RawKernel.__call__

    def record(kernel, *arguments, **options):
        found.append((kernel.name, kernel.code))
        return launch(kernel, *arguments, **options)

    monkeypatch.setattr(cupy.RawKernel, "__call__", record)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 3, 4, 2048, 5001])
def test_threads_load_16_bytes_at_once_if_aligned(backend, n, dtype, rng, monkeypatch):
    """The imitation's processor stops, too, at 16 bytes whose address is no multiple of 16."""
    found = launched(monkeypatch)
    x, y = (rng.standard_normal(n + 1).astype(dtype) for _ in range(2))
    with backend.scope():
        a, b = map(backend.xp.asarray, (x, y))
        for start in (0, 1):
            part = slice(start, start + n)
            activated, pullback = backend.kernels.activate("tanh", a[part], xp=backend.xp)
            np.testing.assert_allclose(backend.get(activated), np.tanh(x[part]), rtol=1e-5)
            gradient = y[part] * (1.0 - np.tanh(x[part]) ** 2)
            np.testing.assert_allclose(backend.get(pullback(b[part])), gradient, 1e-4, 1e-5)
        rate = backend.xp.asarray(np.asarray(0.5, dtype))
        backend.kernels.average((b[1:],), (a[1:],), rate, xp=backend.xp)
        np.testing.assert_allclose(backend.get(b)[1:], (x + y)[1:] / 2.0, rtol=1e-5, atol=1e-6)
        assert float(b[0]) == y[0]
    assert {name for name, _ in found} == {"mlp_xp_tanh", "mlp_xp_tanh_gradient", "mlp_xp_average"}
    for _, code in found:
        assert "if (is_whole) return *(const Pack<T>*)x;" in code
        assert f"#define WIDTH {4 if dtype == 'float32' else 2}" in code
        assert "% 16 == 0;" in code


def test_norm_of_many_gradients_is_correct(backend, rng, monkeypatch):
    """Each block adds up the sums of all blocks, unless a launch did so before."""
    from mlp_xp.backends._cupy.kernels import update

    g = rng.standard_normal(20_000).astype("float32")
    for most in (update._MOST_PARTS, 3):
        monkeypatch.setattr(update, "_MOST_PARTS", most)
        with backend.scope():
            (clipped,), norm = backend.kernels.clip((backend.put(g.copy()),), 1.0, xp=backend.xp)
            assert float(norm) == pytest.approx(np.linalg.norm(g), rel=1e-5)
            found = backend.get(clipped)
        np.testing.assert_allclose(found, g / np.linalg.norm(g), rtol=1e-5)


class Größe(losses.Loss):
    """A loss whose name is no name in C."""

    output = "identity"

    def losses(self, logits, targets, *, xp):
        return xp.sum(xp.abs(logits - targets), axis=-1)

    def activate(self, logits, *, xp):
        return logits


def test_kernel_names_are_ascii(backend, monkeypatch):
    found = launched(monkeypatch)
    with backend.scope():
        x = backend.put(np.arange(48.0, dtype=np.float32).reshape(16, 3))
        value, _ = backend.kernels.loss(Größe(), x, x + 1.0, xp=backend.xp)
        assert float(value) == 3.0
    assert found
    assert all(name.isascii() and code.isascii() for name, code in found)
