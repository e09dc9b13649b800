"""Graphs as C: each primitive, fusion, views and memory, compared with NumPy."""

import ctypes

import array_api_compat.numpy as xp
import c_compiler
import numpy as np
import pytest
from test_primitives import MADE, OTHERS

from mlp_xp.compiler.array import TracedArray
from mlp_xp.compiler.c_expressions import C_TYPES
from mlp_xp.compiler.folding import fold
from mlp_xp.compiler.formula import evaluate, trace_formula
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.print_c import print_c

RNG = np.random.default_rng(0)
X = RNG.permutation(np.linspace(-2.0, 2.1, 12)).reshape(4, 3)
W = RNG.standard_normal((3, 10))
DEEP = RNG.standard_normal((13, 7))
TABLE = RNG.standard_normal((5, 2))


def softmax(x, *, xp):
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def members(x, *, xp):
    """Several matrices, with one row for each."""
    y = xp.matmul(x[:, None, :] * xp.asarray(RNG_STACK[:, :, :1]), xp.asarray(RNG_STACK))
    return xp.tanh(y + xp.asarray(RNG_STACK[:, 0, :])[:, None, :])


RNG_STACK = RNG.standard_normal((4, 3, 5))
FORMULAS = {
    **{f"{name}_{i}": f for name, formulas in OTHERS.items() for i, f in enumerate(formulas)},
    **{name.replace(" ", "_"): formula for name, formula in MADE.items()},
    "prod": lambda x, *, xp: xp.prod(x, axis=0),
    "layer": lambda x, *, xp: xp.maximum(x @ xp.asarray(W) + xp.asarray(W[0]), 0.0),
    "row": lambda x, *, xp: xp.reshape(x, (1, -1)) @ xp.asarray(DEEP[:12]) + xp.asarray(DEEP[12]),
    "gram": lambda x, *, xp: x @ x.T,
    "column": lambda x, *, xp: xp.asarray(DEEP[:12].T) @ xp.reshape(x, (12, 1)),
    "softmax": softmax,
    "members": members,
    "shared": lambda x, *, xp: xp.exp(x) + xp.sum(xp.exp(x)) + xp.exp(x)[::-1],
    "copied": lambda x, *, xp: xp.reshape(x.T, (2, 6)) + xp.reshape(x, (2, 6)),
    "embedded": lambda x, *, xp: xp.take(
        xp.asarray(TABLE), xp.astype(xp.reshape(x, (-1,)) * 9.0, xp.int32), axis=0
    ),
    "ranked": lambda x, *, xp: xp.sort(x, axis=0, descending=True) + xp.sort(x, axis=0),
    "constant": lambda x, *, xp: xp.asarray(W) * 2.0 + 0.0 * x[0, 0],
    "unchanged": lambda x, *, xp: x,
    "transposed": lambda x, *, xp: xp.concat([x.T @ x, xp.flip(x.T, axis=1)], axis=1),
}  # fmt: skip


def printed(formula, name, dtype, arrays):
    """Return a C function that computes a formula of arrays, and the size of its result."""
    result, inputs = trace_formula(formula, *arrays, names=["x"] * len(arrays))
    (node,) = fold([result.node], {})
    names = {x: f"x{i}" for i, x in enumerate(inputs)}
    function = print_c([node], names, name, dtype)
    kind = C_TYPES[dtype]
    parameters = ", ".join([*(f"const {kind} *{x}" for x in names.values()), f"{kind} *out"])
    work = f"{kind} work[{max(function.work_size, 1)}]; (void)work;"
    return "\n".join([
        *function.constants,
        f"void {name}({parameters});",
        f"void {name}({parameters}) {{ {work}",
        *([] if node in names or in_order([node], names)[0] in names else ["(void)x0;"]),
        *function.body,
        "}\n",
    ])  # fmt: skip


def run(function, shape, dtype, *arrays):
    out = np.full(shape, np.nan, dtype)
    arrays = [np.ascontiguousarray(array, dtype) for array in arrays]
    function(*(ctypes.c_void_p(array.ctypes.data) for array in (*arrays, out)))
    return out


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return the functions of all formulas."""
    text = "".join(
        printed(formula, f"f_{name}_{dtype}", dtype, [X.astype(dtype)])
        for name, formula in FORMULAS.items()
        for dtype in ("float32", "float64")
        if not (name.startswith("astype") and dtype == "float32")  # It is summed in float64.
    )
    return c_compiler.build_library(f"#include <math.h>\n{text}", tmp_path_factory.mktemp("c"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_match_numpy(library, name, dtype):
    if name.startswith("astype") and dtype == "float32":
        return
    with np.errstate(all="ignore"):
        expected = evaluated(FORMULAS[name], X.astype(dtype))
    found = run(getattr(library, f"f_{name}_{dtype}"), expected.shape, dtype, X)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def evaluated(formula, *arrays):
    """Return the result of a formula; positions outside of an array become the nearest."""
    result, inputs = trace_formula(formula, *arrays, names=["x"] * len(arrays))
    values = dict(zip(inputs, arrays, strict=True))
    library = type("Clipping", (), {"__getattr__": lambda _, name: getattr(xp, name)})()
    library.take = lambda x, i, axis: np.take(
        x, np.clip(np.where(i < 0, i + x.shape[axis], i), 0, x.shape[axis] - 1), axis=axis
    )
    evaluate(in_order([result.node]), values, xp=library)
    return np.asarray(values[result.node])


def test_int8_products_add_whole_vectors_without_overflow(tmp_path):
    """The weights are in memory column by column, and so are read in order."""
    weights = np.asarray(np.linspace(-128, 127, 32 * 37).reshape(32, 37), np.int8)
    weights[:, 0] = -128

    def formula(x, *, xp):
        columns = xp.asarray(np.ascontiguousarray(weights.T))
        pair = xp.astype(x, xp.int16).node, xp.matrix_transpose(columns).node
        product = Node("matmul", pair, (), (x.shape[0], weights.shape[1]), "int32")
        return xp.astype(TracedArray(product), xp.float32)

    x = np.asarray([[-128] * 32, [127] * 32, range(-16, 16)], np.float32)
    result, inputs = trace_formula(formula, x, names=["x"])
    function = print_c([result.node], {inputs[0]: "x"}, "product", "float32")
    assert len([line for line in function.body if "for (int k = 0; k < 32; ++k) {" in line]) == 2
    source = "\n".join(["void product(const float *x, float *out);", *function.constants])
    source += f"\nvoid product(const float *x, float *out) {{ float work[{3 * 37}]; (void)work;\n"
    library = c_compiler.build_library("\n".join([source, *function.body, "}\n"]), tmp_path)
    expected = x.astype(int) @ weights.astype(int)
    found = run(library.product, expected.shape, "float32", x)
    np.testing.assert_array_equal(found, expected)
