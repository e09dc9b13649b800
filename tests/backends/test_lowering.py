"""Threads compute large operations of a traced step in machine code, with NumPy's results."""

import numpy as np
import pytest
from helpers import tolerance
from test_kernels import ARRANGEMENTS

from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledStep
from mlp_xp.backends._numpy.tracing.program import Program

XP = get_backend("numpy").xp
T = XP.matrix_transpose


def subtract_own_row(a, b):
    c = XP.reshape(a + b, (-1, 24))
    c -= c[1]
    return c


# The last operation on two arrays of shape (6, 512, 24), and whether machine code computes it.
OPERATIONS = {
    "sum": (lambda a, b: a + b, True),
    "difference of a row": (lambda a, b: a - b[0, 0], True),
    "product with a number": (lambda a, b: a * 3.0, True),
    "row of the result": (subtract_own_row, False),
    "sum of rows": (lambda a, b: XP.sum(XP.reshape(a, (-1, 24)), axis=-2), True),
    "sum of columns": (lambda a, b: XP.sum(XP.reshape(a, (-1, 24)), axis=1), False),
    "a b": (lambda a, b: a @ b[:, :24], True),
    "a^T b": (lambda a, b: T(a) @ b, True),
    "a b^T": (lambda a, b: a @ T(b), True),
    "a^T b^T": (lambda a, b: T(a)[:, :, :24] @ T(b), False),
    "narrow": (lambda a, b: a @ b[:, :24, :2], False),
    "columns": (lambda a, b: XP.reshape(T(a), (-1, 512)), False),
}
for name, how in ARRANGEMENTS.items():
    shape = (-1, int(np.prod(how.shape)))
    split = lambda a, b, how=how, shape=shape: how.split(XP.reshape(a, shape), xp=XP)  # noqa: E731
    OPERATIONS[f"split: {name}"] = split, None if name in ("first", "last") else True


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_a_traced_step(name, dtype, pool_of, rng, monkeypatch):
    lower, is_lowered = Program._lower, []

    def spy(program, function, *operands):
        is_lowered.append(lower(program, function, *operands))
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
