"""`explain` shows the graph, the gradient and the loops of a formula."""

import re
import sys
from functools import partial

import array_api_compat.numpy as xp
import numpy as np
import pytest

from mlp_xp.backends._numpy.kernels.formulas import activation_loops
from mlp_xp.compiler import FormulaError, derive, explain
from mlp_xp.compiler.print_cpu import print_kernel
from mlp_xp.nn.layers import ACTIVATIONS

SCALE = 2.0


def softsign(x, *, xp):
    return x / (1.0 + xp.abs(x))


def softplus(x, *, xp):
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


def scaled(x, *, xp):
    return SCALE * x


def unchanged(x, *, xp):
    return x


def double(x, *, xp):
    return 2.0 * x, lambda dy: 2.0 * dy


def pinball(outputs, targets, *, xp):
    error = targets - outputs
    return xp.sum(xp.where(error > 0.0, 0.9 * error, -0.1 * error), axis=-1)


def prelu(x, slope, *, xp):
    return xp.where(x > 0.0, x, slope * x)


def weighted(outputs, weight, *, xp):
    return weight * outputs**2


def ranked(x, *, xp):
    return x * xp.cumulative_sum(x, axis=-1)


def test_the_graph_has_a_line_for_each_operation():
    found = explain(softsign, (32, 10))
    assert found.graph == (
        "softsign(x: float32[32, 10])\n"
        "    v1 = abs(x)            float32[32, 10]\n"
        "    v2 = add(1.0, v1)      float32[32, 10]\n"
        "    value = divide(x, v2)  float32[32, 10]"
    )
    first, *rest = found.gradient.splitlines()
    assert first == "gradient with respect to x, given dvalue: float32[32, 10]"
    assert "    v7 = sign(x)              float32[32, 10]" in rest
    assert rest[-1].startswith("    dx = add(v3, v8) ")
    assert repr(found) == str(found) == f"{found.graph}\n\n{found.gradient}\n\n{found.loops}"


def test_settings_and_constants_are_shown():
    def formula(x, labels, *, xp):
        shifted = x + xp.asarray([0.5])
        picked = xp.take_along_axis(shifted, labels[:, None], axis=1)
        return picked[:, 0] - xp.max(x * xp.arange(3.0), axis=1)

    graph = explain(formula, (4, 3), np.zeros(4, np.int32), dtype="float64").graph
    assert "formula(x: float64[4, 3], labels: int32[4])" in graph
    for line in (
        "v1 = add(x, [0.5])",
        "v2 = labels[0:4:1, None]",
        "v3 = take_along_axis(v1, v2, 1)",
        "v4 = v3[0:4:1, 0]",
        "v5 = multiply(x, constant[3])",
        "v6 = max(v5, axis=(1,))",
        "value = subtract(v4, v6)",
    ):
        assert re.search(rf"    {re.escape(line)} +float64|{re.escape(line)} +int32", graph), line


def test_gradient_of_a_probability_per_row_has_no_sum():
    def picked(x, labels, *, xp):
        return xp.take_along_axis(x, labels[:, None], axis=1)[:, 0] ** 2

    gradient = explain(picked, (4, 3), np.zeros(4, np.int32)).gradient
    assert "where(" in gradient
    assert "sum(" not in gradient


CASES = [
    (softsign, [(3, 4)]),
    (softplus, [(7,)]),
    (unchanged, [(2, 3)]),
    (double, [(2, 3)]),
    (pinball, [(5, 1), (5, 1)]),
    (prelu, [(3, 4), (4,)]),
    (prelu, [(3, 4), (3, 1)]),
    (prelu, [(3, 4), (1, 1)]),
    (weighted, [(3, 1), (1, 1)]),
    *[(ACTIVATIONS[name], [(3, 4)]) for name in ("gelu", "relu", "tanh")],
]


@pytest.mark.parametrize(("formula", "shapes"), CASES)
def test_shown_loops_are_python_code_for_value_and_gradient(formula, shapes, rng):
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    found = explain(formula, *arrays)
    names = re.findall(r"(\w+): float32\[", found.graph.splitlines()[0])
    value = formula(*arrays, xp=xp)
    if isinstance(value, tuple):
        value, pullback = value
        dvalue = rng.standard_normal(value.shape).astype(np.float32)
        expected = pullback(dvalue)
    else:
        value, pullback = derive(formula, *arrays, xp=xp)
        dvalue = rng.standard_normal(value.shape).astype(np.float32)
        expected = pullback(dvalue, 1)[0]
    results = {"value": np.zeros_like(value), f"d{names[0]}": np.zeros_like(arrays[0])}
    given = dict(zip(names, arrays, strict=True)) | {"dvalue": dvalue} | results
    if "ndindex" not in found.loops:
        given = {name: array.reshape(-1) for name, array in given.items()}
    elif len(names) == 2 and arrays[1].size < arrays[0].size:
        given[names[1]] = arrays[1].reshape(-1)  # A row, a column or one number.
    functions = {name: getattr(np, name) for name in ("abs", "exp", "log1p", "ndindex", "where")}
    loops = {**vars(np), **functions, **given, "total": 0.0, "range": range}
    loops["astype"] = lambda x, dtype: dtype(x)
    exec(found.loops, loops)
    np.testing.assert_allclose(given[f"d{names[0]}"].reshape(expected.shape), expected, 1e-5)
    if len(names) == 1:
        np.testing.assert_allclose(given["value"].reshape(value.shape), value, 1e-5)
    else:
        assert loops["total"] == pytest.approx(np.sum(value * dvalue), rel=1e-4)


@pytest.mark.parametrize("function", [*sorted(set(ACTIVATIONS) - {"identity"}), softsign])
def test_explain_shows_the_loops_that_a_fit_runs(function):
    loops = activation_loops(function, (32, 10), "float32")
    found = explain(ACTIVATIONS.get(function, function), (32, 10))
    kernels = (loops.forward.kernel, loops.backward.kernel)
    assert found.llvm == tuple(print_kernel(kernel).text for kernel in kernels)


def test_parameters_with_defaults_are_not_array_arguments():
    def quantile(outputs, targets, level=0.75, *, xp, slope=2.0):
        return level * (targets - outputs)

    for formula, level in ((quantile, 0.75), (partial(quantile, level=0.5), 0.5)):
        found = explain(formula, (5, 1), (5, 1))
        assert "(outputs: float32[5, 1], targets: float32[5, 1])" in found.graph
        assert f"value = multiply({level}, v1)" in found.graph


def test_a_formula_that_is_not_a_single_loop_says_why():
    found = explain(ranked, (32, 10))
    assert found.loops.startswith("no single loop: cumulative_sum has no CPU expression")
    assert found.loops.endswith("(not elementwise: cumulative_sum, flip)")
    assert found.llvm == found.assembly() == ()
    assert "value = multiply(x, v1)" in found.graph


def test_assembly_is_for_this_processor_and_calls_no_library():
    pytest.importorskip("llvmlite")
    forward, backward = explain(softplus, (32, 10)).assembly()
    assert re.search(r"^formula_\w+:", forward, re.MULTILINE)
    assert forward != backward
    assert not re.search("expf|log1pf|@PLT", forward + backward)


def test_without_llvmlite_everything_but_the_assembly_is_shown(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    found = explain(softplus, (32, 10))
    assert "for i in range(320):  # forward" in str(found)
    assert found.llvm[0].startswith("declare float @llvm.")
    with pytest.raises(ImportError, match=r"'llvmlite' is not installed: type .*\[fast\]"):
        found.assembly()


def test_each_call_traces_the_formula_again(monkeypatch):
    assert "multiply(2.0, x)" in explain(scaled, (2, 1)).graph
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert "multiply(3.0, x)" in explain(scaled, (2, 1)).graph


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["relu", (2,)], TypeError, r"`formula` must be a function such as f\(x, \*, xp\), got"),
        (
            [pinball, (32, 1)],
            TypeError,
            r"shape of each argument of pinball \(outputs, targets\), got 1; "
            r"e.g. explain\(pinball, \(32, 1\), \(32, 1\)\)\.",
        ),
        ([softsign, 3], TypeError, r"must be a shape, such as \(32, 1\), or an array, got 3\."),
        ([softsign, [0.5]], TypeError, r"or an array, got \[0\.5\]\."),
        ([lambda x, *, xp: x if x > 0 else -x, (2,)], FormulaError, r"fails in line \d+ of test_"),
        ([lambda x, *, xp: xp.ones_like(x), (2,)], FormulaError, "does not depend on its x"),
    ],
)
def test_explain_errors_say_what_to_type(arguments, error, message):
    with pytest.raises(error, match=message):
        explain(*arguments)


def test_an_unknown_dtype_is_an_error():
    with pytest.raises(ValueError, match=r"`dtype` must be one of \['bfloat16', .* got 'int8'\."):
        explain(softsign, (2,), dtype="int8")
