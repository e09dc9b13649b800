"""The C expression of each elementwise primitive computes NumPy's result."""

import ctypes

import array_api_compat.numpy as xp
import c_compiler
import numpy as np
import pytest

from mlp_xp.compiler.c_expressions import C_TYPES, c_expression, c_literal, operands_dtype
from mlp_xp.compiler.graph import Node
from mlp_xp.compiler.kernel import UnprintableError, input_node
from mlp_xp.compiler.primitives import ELEMENTWISE, PRIMITIVES, UNARY

FLOATS, INTEGERS = ("float32", "float64"), ("int32", "int64", "uint8", "uint32", "int16")
NUMBERS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.0, -1.0, -2.5, 3.5, 7.0, 88.5, 710.25]
NUMBERS += [1e30, -1e-40, 1e-9, 2.0**24 + 2]
# Operations that NumPy does not define for a kind of dtype.
NOT_FLOAT = {name for name in ELEMENTWISE if name.startswith("bitwise")}
NOT_INTEGER = {name for name, row in ELEMENTWISE.items() if row.result == "float"}
NOT_INTEGER |= {"pow", "isfinite", "isinf", "isnan"}
OF_BOOL = {name for name in ELEMENTWISE if name.startswith(("logical", "bitwise_"))}
OF_BOOL -= {"bitwise_left_shift", "bitwise_right_shift"}
OF_BOOL |= {"add", "multiply", "maximum", "minimum", "equal", "not_equal", "less", "greater_equal"}
HEADER = "#include <math.h>\n"


def n_operands(name):
    return 3 if name == "where" else 1 if name in UNARY else 2


def make_node(name, dtype):
    dtypes = [dtype] * n_operands(name)
    if name == "where":
        dtypes[0] = "bool"
    result = "bool" if ELEMENTWISE[name].result == "bool" else dtype
    return Node(name, tuple(map(input_node, range(3), dtypes)), (), (), result)


def printed(node, name):
    """Return a C function that computes a node for n elements of arrays."""
    types = [C_TYPES[x.dtype] for x in node.operands]
    arrays = "".join(f", const {kind} *x{i}" for i, kind in enumerate(types))
    reads = "".join(f"{kind} v{i} = x{i}[i]; " for i, kind in enumerate(types))
    value = c_expression(node, [f"v{i}" for i in range(len(types))])
    y = C_TYPES[node.dtype]
    return (
        f"void {name}(int n, {y} *y{arrays});\nvoid {name}(int n, {y} *y{arrays}) {{\n"
        f"  int i; for (i = 0; i < n; ++i) {{ {reads}y[i] = ({y}){value}; }}\n}}\n"
    )


def call(function, dtype, *arrays):
    y = np.empty(arrays[0].shape, dtype)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (y, *arrays)]
    function(ctypes.c_int(y.size), *pointers)
    return y


def operands_of(name, dtype):
    kind = np.dtype(dtype).kind
    if kind == "f":
        numbers = np.asarray(NUMBERS).astype(dtype)
    elif kind == "b":
        numbers = np.asarray([False, True])
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        numbers = [low, low + 1, high, high - 1, 0, 1, 2, 7, 33, 100]
        numbers += [-1, -2, -7, -100] if low else []
        numbers = np.asarray(numbers).astype(dtype)
    grid = [np.ascontiguousarray(a) for a in np.meshgrid(numbers, numbers)]
    return [grid[0] > 0, *grid] if name == "where" else grid[: n_operands(name)]


def names_of(dtype):
    excluded = {"f": NOT_FLOAT, "b": set(ELEMENTWISE) - OF_BOOL}
    return set(ELEMENTWISE) - excluded.get(np.dtype(dtype).kind, NOT_INTEGER)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return the functions of all primitives and dtypes."""
    functions = [
        printed(make_node(name, dtype), f"{name}_{dtype}")
        for dtype in (*FLOATS, *INTEGERS, "bool")
        for name in sorted(names_of(dtype))
    ]
    source = HEADER + "".join(functions)
    return c_compiler.build_library(source, tmp_path_factory.mktemp("c"))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_c_expressions_match_numpy(library, name, dtype):
    node = make_node(name, dtype)
    if name not in names_of(dtype):
        if np.dtype(dtype).kind == "f":
            with pytest.raises(UnprintableError, match=f"{name} has no C expression for {dtype}"):
                c_expression(node, list("abc")[: n_operands(name)])
        return
    given = operands_of(name, dtype)
    with np.errstate(all="ignore"):
        expected = getattr(xp, name)(*given)
    found = call(getattr(library, f"{name}_{dtype}"), node.dtype, *given)
    if np.dtype(dtype).kind != "f" or ELEMENTWISE[name].result == "bool":
        np.testing.assert_array_equal(found, expected)
        return
    np.testing.assert_allclose(found, expected, rtol=16 * np.finfo(dtype).eps, atol=0)
    is_zero = (expected == 0.0) & ~np.isin(name, ["maximum", "minimum"])  # NumPy's sign varies.
    np.testing.assert_array_equal(np.signbit(found[is_zero]), np.signbit(expected[is_zero]))


def test_conversions_truncate_and_stay_within_the_dtype(tmp_path):
    numbers = np.asarray([0.0, -0.5, 2.9, -2.9, 126.5, 127.0])
    beyond = np.asarray([np.nan, np.inf, -np.inf, 1e30, -1e30])
    dtypes = ("float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool")
    nodes = {
        (given, dtype): Node("astype", (input_node(0, given),), (dtype,), (), dtype)
        for given in (*FLOATS, "int32", "bool")
        for dtype in dtypes
    }
    source = "".join(printed(node, f"{a}_to_{b}") for (a, b), node in nodes.items())
    library = c_compiler.build_library(HEADER + source, tmp_path)
    for given, dtype in nodes:
        function = getattr(library, f"{given}_to_{dtype}")
        x = numbers.astype(given)
        x = np.abs(x) if dtype.startswith("uint") else x
        np.testing.assert_array_equal(call(function, dtype, x), x.astype(dtype))
        if given in FLOATS and "int" in dtype:
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            found = call(function, dtype, beyond.astype(given))
            assert found.tolist() == [0, high, low, high, low]


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
def test_literals_are_exact(dtype, tmp_path):
    kind = np.dtype(dtype).kind
    if kind == "f":
        tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
        numbers = np.asarray([*NUMBERS, 0.1, -1 / 3, tiny, -huge, 1e22, 123456789.0], dtype)
    else:
        numbers = np.unique(operands_of("add", dtype)[0])
    literals = ", ".join(c_literal(number, dtype) for number in numbers)
    kind = C_TYPES[dtype]
    source = (
        f"void fill(int n, {kind} *y);\nvoid fill(int n, {kind} *y) {{\n"
        f"  const {kind} x[] = {{{literals}}};\n  int i; for (i = 0; i < n; ++i) y[i] = x[i];\n}}\n"
    )
    library = c_compiler.build_library(HEADER + source, tmp_path)
    found = np.empty_like(numbers)
    library.fill(ctypes.c_int(len(numbers)), ctypes.c_void_p(found.ctypes.data))
    np.testing.assert_array_equal(found, numbers)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(numbers)) if kind == "f" else None


def test_operands_are_converted_to_their_common_dtype():
    x, n = input_node(0, "float32"), input_node(1, "float64")
    two = Node("number", (), (2,), (), "int")
    assert operands_dtype(Node("add", (x, two), (), (), "float32")) == "float32"
    assert c_expression(Node("add", (x, two), (), (), "float32"), ["x", "2.0f"]) == "(x + 2.0f)"
    mixed = Node("pow", (x, n), (), (), "float64")
    assert c_expression(mixed, ["x", "n"]) == "pow(((double)x), n)"


def test_operation_without_a_c_expression_is_an_error():
    for name in sorted(set(PRIMITIVES) - set(ELEMENTWISE) - {"astype"}):
        with pytest.raises(UnprintableError, match=f"{name} has no C expression for float32"):
            c_expression(Node(name, (input_node(0, "float32"),), (), (), "float32"), ["x"])
    for make in (lambda: c_literal(1.0, "float16"), lambda: c_expression(
        make_node("exp", "bfloat16"), ["x"]
    )):  # fmt: skip
        with pytest.raises(UnprintableError, match=r"C has no type for b?float16"):
            make()
