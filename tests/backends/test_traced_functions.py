"""Functions of the Array API in a traced step: NumPy's results, and one call of machine code."""

import numpy as np
import pytest
from helpers import tolerance

from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledStep

XP = get_backend("numpy").xp


def assign(x, y):
    z = x * 1.0
    z[0, :] = y[1, :]
    z[..., 1] = 0.5
    z[2:, 2] += x[2:, 0]
    return z


def halve(x):
    (doubled, *_) = (y := XP.asarray(x, copy=True), x)
    doubled *= 0.5
    return x - y


# Functions of float arrays x, y : (6, 5), positions i : (6, 5) from -5 to 4, and x > 0.
ONE_CALL = {
    "clip": lambda x, y, i, b: XP.clip(x, -0.5, 0.5),
    "clip below": lambda x, y, i, b: XP.clip(x, min=0.0),
    "clip above": lambda x, y, i, b: XP.clip(x, max=0.0),
    "clip to arrays": lambda x, y, i, b: XP.clip(x, -abs(y), y[:, :1]),
    "clip integers": lambda x, y, i, b: XP.clip(i, 0, 3),
    "asarray": lambda x, y, i, b: XP.asarray(x, dtype=XP.float64) + XP.asarray(1.0),
    "asarray of a copy": lambda x, y, i, b: halve(x),
    "unstack": lambda x, y, i, b: XP.multiply(*XP.unstack(x[:, :2], axis=1)),
    "iterated": lambda x, y, i, b: sum(row * 2.0 for row in x) / len(x),
    "broadcast_arrays": lambda x, y, i, b: XP.add(*XP.broadcast_arrays(x, y[:, :1])),
    "result_type": lambda x, y, i, b: XP.astype(x, XP.result_type(x, XP.float64)),
    "assigned": lambda x, y, i, b: assign(x, y),
    "mT": lambda x, y, i, b: x.mT @ y,
    "var": lambda x, y, i, b: XP.var(x, axis=-1, correction=1.0),
    "std": lambda x, y, i, b: XP.std(x, axis=0, keepdims=True),
    "vecdot": lambda x, y, i, b: XP.vecdot(x, y),
    "vecdot of columns": lambda x, y, i, b: XP.vecdot(x, y, axis=0),
    "vector_norm": lambda x, y, i, b: XP.linalg.vector_norm(x, axis=-1, keepdims=True),
    "tensordot": lambda x, y, i, b: XP.tensordot(x, y, axes=([0], [0])),
    "matmul with a vector": lambda x, y, i, b: x @ y[0] + y[0, :] @ x.T,
    "matmul of a vector": lambda x, y, i, b: y[0] @ XP.stack([x.T, y.T]),
    "roll": lambda x, y, i, b: XP.roll(x, (1, -2), axis=(0, 1)) + XP.roll(x, 3),
    "diff": lambda x, y, i, b: XP.diff(x, axis=1, n=2),
    "tile": lambda x, y, i, b: XP.tile(x, (2, 1, 3)),
    "repeat": lambda x, y, i, b: XP.repeat(x, 2, axis=0),
    "cumulative_sum": lambda x, y, i, b: XP.cumulative_sum(x, axis=1),
    "cumulative_sum with 0": lambda x, y, i, b: XP.cumulative_sum(x, axis=0, include_initial=True),
    "round": lambda x, y, i, b: XP.round(x * 4.0),
    "positive": lambda x, y, i, b: +x,
    "argmax": lambda x, y, i, b: XP.argmax(x, axis=-1),
    "argmin": lambda x, y, i, b: XP.argmin(XP.where(y > 1.0, XP.nan, x), axis=0),
    "argmax of all": lambda x, y, i, b: XP.argmax(XP.round(x)),
    "any": lambda x, y, i, b: XP.any(b, axis=1),
    "all": lambda x, y, i, b: XP.all(x > -2.0),
    "count_nonzero": lambda x, y, i, b: XP.count_nonzero(b, axis=0) + XP.sum(i, axis=0),
    "sum of integers": lambda x, y, i, b: XP.sum(i, axis=0) * XP.sum(b),
    "int64": lambda x, y, i, b: XP.astype(XP.astype(x * 9.0, XP.int64) + 2**40, x.dtype),
    "int64 to int32": lambda x, y, i, b: XP.astype(XP.astype(i, XP.int64) * 3 - 1, XP.int32),
    "integers": lambda x, y, i, b: XP.maximum(-i, XP.abs(i) - 1) ^ ~XP.minimum(i, 0),
    "equal truth values": lambda x, y, i, b: (b == (y > 0.0)) | (b != (y > 0.0)),
    "where of truth values": lambda x, y, i, b: XP.where(b, y > 0.0, x < -1.0),
    "take": lambda x, y, i, b: XP.take(x, i[:, 0], axis=0),
    "take columns": lambda x, y, i, b: XP.take(x, i[:9, 0], axis=1),
    "take by int64": lambda x, y, i, b: XP.take(x, XP.astype(i[1], XP.int64), axis=-1),
    "take at constants": lambda x, y, i, b: XP.take(x, XP.asarray([0, 2, 1, 4] * 9), axis=1),
    "take_along_axis": lambda x, y, i, b: XP.take_along_axis(x, i[:, :1], axis=1),
    "take_along_axis by int64": lambda x, y, i, b: XP.take_along_axis(x, XP.astype(i, XP.int64)),
    "take_along_axis 0": lambda x, y, i, b: XP.take_along_axis(x, i[:2], axis=0),
    "take whole rows": lambda x, y, i, b: XP.take_along_axis(x, i[:2, :1], axis=0),
    "take in stacks": lambda x, y, i, b: XP.take_along_axis(
        XP.reshape(x[:6, :], (3, 1, 2, 5)), XP.reshape(i[:6, :] & 1, (1, 2, 3, 5))[..., :1], axis=2
    ),
    "take_along_axis of a transposed": lambda x, y, i, b: XP.take_along_axis(x.T, i.T, axis=0),
}  # fmt: skip
# These functions call NumPy in each step.
OTHERS = {
    "sort": lambda x, y, i, b: XP.sort(x, axis=-1, descending=True),
    "inverse": lambda x, y, i, b: XP.linalg.inv(x[:5].T @ x[:5] + XP.eye(5, dtype=x.dtype)),
    "largest singular value": lambda x, y, i, b: XP.linalg.svd(x, full_matrices=False)[1][..., :1],
    "determinant": lambda x, y, i, b: XP.linalg.slogdet(x[:5].T @ x[:5])[1],
    "norm of sizes": lambda x, y, i, b: XP.linalg.vector_norm(x, axis=-1, ord=1),
    "compared with an integer that int32 lacks": lambda x, y, i, b: i < 2**40,
    "joined": lambda x, y, i, b: XP.concat([x, y], axis=None),
}


def run(function, given, pool_of):
    plain = function(*given)
    # Operands are results of the step, so they have no values while it is traced.
    compiled = CompiledStep(lambda state, x, y, i, b: (function(x * 1.0, y * 1.0, i ^ 0, b & b),))
    with pool_of(2):
        (found,) = compiled((np.zeros_like(plain),), *given)
    assert compiled.is_traceable
    assert found.dtype == plain.dtype
    return found, plain, compiled.programs[0].step_range(0, 1) is not None


@pytest.mark.parametrize("n", [6, 60_000])  # Large results are not computed in a trace.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*ONE_CALL, *OTHERS])
def test_array_functions_in_a_traced_step_match_numpy(name, dtype, n, pool_of, rng):
    if n > 6 and name in ("unstack", "iterated", "take_along_axis of a transposed"):
        n = 600
    x, y = rng.standard_normal((2, n, 5)).astype(dtype)
    i = rng.integers(-5, 5, (n, 5)).astype("i4")
    given = x, y, i, x > 0.0
    found, plain, is_one_call = run({**ONE_CALL, **OTHERS}[name], given, pool_of)
    assert is_one_call == (name in ONE_CALL)
    np.testing.assert_allclose(found, plain, rtol=1e-3 if dtype == "float32" else 1e-9,
                               atol=1e3 * tolerance(dtype, 24))  # fmt: skip


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("function", [XP.take_along_axis, lambda x, i: XP.take(x, i[1], axis=1)])
def test_indices_out_of_range_are_an_error_in_a_traced_step(function, dtype, pool_of, rng):
    x = rng.standard_normal((6, 5))
    positions = np.zeros((6, 5), dtype)
    compiled = CompiledStep(lambda state, x, i: (function(x * 1.0, i ^ 0),))
    expected = function(x, positions)
    with pool_of(2):
        (found,) = compiled((np.zeros_like(expected),), x, positions)
        np.testing.assert_array_equal(found, expected)
        for wrong in (5, -6, np.iinfo(dtype).max):
            positions[1, 3] = wrong
            with pytest.raises(IndexError, match=r"positions must be from -5 to 4, got "):
                compiled((np.zeros_like(expected),), x, positions)
    assert compiled.is_traceable


def test_functions_with_value_dependent_shapes_are_not_traced(pool_of):
    for function in (XP.unique_values, lambda x: XP.nonzero(x)[0], lambda x: x[x > 0.0]):
        compiled = CompiledStep(lambda state, x, f=function: (state[0] + len(f(x)),))
        with pool_of(2):
            for x, n in ((np.ones(3), 1), (np.arange(1.0, 4.0), 3)):
                (found,) = compiled((np.zeros(()),), x)
                assert float(found) == (n if function is XP.unique_values else 3)
        assert not compiled.is_traceable
