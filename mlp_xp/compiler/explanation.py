"""Show how a formula is compiled: its graph, its gradient and its loops, as text."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.optional import check_installed
from mlp_xp.compiler.array import FLOATS, TracedArray, dtype_name
from mlp_xp.compiler.formula import check_formula, forget, graph_of, trace_both
from mlp_xp.compiler.graph import Layout, Node, in_order
from mlp_xp.compiler.kernel import COLUMN, FULL, ROW, SCALAR, UnprintableError, make_kernel
from mlp_xp.compiler.primitives import ELEMENTWISE, REDUCTIONS

Names = dict[Node, str]


@dataclass(frozen=True, repr=False)
class Explanation:
    """How a formula is compiled; its text shows the graph, the gradient and the loops.

    Attributes
    ----------
    graph : str
        The operations of the formula, each with the dtype and the shape of its result.
    gradient : str
        The other operations that the gradient needs.
    loops : str
        The loops as Python code, or why the formula is not a single loop.
    llvm : tuple of str
        The loops in LLVM's intermediate representation; empty if the formula is not a single loop.
    """

    graph: str
    gradient: str
    loops: str
    llvm: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n\n".join((self.graph, self.gradient, self.loops))

    def assembly(self) -> tuple[str, ...]:
        """Return the optimized machine code of the loops for this processor; needs llvmlite."""
        check_installed("llvmlite", extra="fast")
        from mlp_xp.compiler.llvm import assembly

        return tuple(map(assembly, self.llvm))


def explain(
    formula: Callable[..., Any], *arguments: Array | Sequence[int], dtype: Any = "float32"
) -> Explanation:
    """Return the graph, the gradient and the loops of an activation or a loss, as text.

    Parameters
    ----------
    formula : callable
        ``formula(x, *, xp)`` for an activation, or ``formula(outputs, targets, *, xp)`` for a loss.
        It may return a pullback too.
    *arguments : tuple of int or array
        The shape of each argument, or an array with its shape and dtype.
    dtype : dtype, default="float32"
        The dtype of arguments that are given as shapes.

    Returns
    -------
    Explanation
        Its text shows the graph, the gradient with respect to the first argument, and the loops
        that compute them on NumPy: for an activation one for each pass, for a loss one for both.
        ``llvm`` and ``assembly()`` return the code of the loops.

    Raises
    ------
    FormulaError
        If the formula cannot be traced or differentiated; the message has the line.

    Examples
    --------
    >>> from mlp_xp.compiler import explain
    >>> def squared_relu(x, *, xp):
    ...     return xp.maximum(x, 0.0) ** 2
    >>> explain(squared_relu, (32, 10))
    squared_relu(x: float32[32, 10])
        v1 = maximum(x, 0.0)      float32[32, 10]
        value = multiply(v1, v1)  float32[32, 10]
    <BLANKLINE>
    gradient with respect to x, given dvalue: float32[32, 10]
        v2 = greater(x, 0.0)       bool[32, 10]
        v3 = multiply(dvalue, v1)  float32[32, 10]
        v4 = add(v3, v3)           float32[32, 10]
        dx = where(v2, v4, 0.0)    float32[32, 10]
    <BLANKLINE>
    for i in range(320):  # forward
        v1 = maximum(x[i], 0.0)
        value[i] = multiply(v1, v1)
    <BLANKLINE>
    for i in range(320):  # backward
        v2 = greater(x[i], 0.0)
        v1 = maximum(x[i], 0.0)
        v3 = multiply(dvalue[i], v1)
        v4 = add(v3, v3)
        dx[i] = where(v2, v4, 0.0)
    """
    if not callable(formula):
        raise TypeError(f"`formula` must be a function such as f(x, *, xp), got {formula!r}.")
    title = getattr(formula, "__name__", None) or type(formula).__name__
    parameters = inspect.signature(formula).parameters.values()
    names = [p.name for p in parameters if p.default is p.empty and p.name != "xp"]
    if len(names) != len(arguments):
        raise TypeError(
            f"explain needs the shape of each argument of {title} ({', '.join(names)}), got "
            f"{len(arguments)}; e.g. explain({title}{', (32, 1)' * len(names)})."
        )
    if dtype_name(dtype) not in FLOATS:
        raise ValueError(f"`dtype` must be one of {list(FLOATS)}, got {dtype!r}.")
    layouts = [_layout(argument, dtype_name(dtype)) for argument in arguments]
    inputs, dvalue, value, gradient = _trace(formula, layouts, names, f"formula {title}")
    forward = _operations([value], inputs)
    backward = _operations([gradient], [*inputs, dvalue, *forward])
    inner = [x for x in forward if x != value] + [x for x in backward if x != gradient]
    known = {gradient: f"d{names[0]}", value: "value"}
    known |= {node: f"v{i}" for i, node in enumerate(inner, start=1)}
    known |= zip((*inputs, dvalue), (*names, "dvalue"), strict=True)
    given = ", ".join(f"{known[x]}: {_type(x)}" for x in inputs)
    top = f"gradient with respect to {names[0]}, given dvalue: {_type(dvalue)}"
    return Explanation(
        _listing(f"{title}({given})", forward, "value", value, known),
        _listing(top, backward, f"d{names[0]}", gradient, known),
        *_loops(inputs, dvalue, value, gradient, known),
    )


def _layout(argument: Any, dtype: str) -> Layout:
    if hasattr(argument, "dtype"):
        return Layout(tuple(argument.shape), dtype_name(argument.dtype))
    try:
        return Layout(tuple(map(operator.index, argument)), dtype)
    except TypeError:
        raise TypeError(
            f"An argument must be a shape, such as (32, 1), or an array, got {argument!r}."
        ) from None


def _trace(
    formula: Callable[..., Any], layouts: Sequence[Any], names: Sequence[str], what: str
) -> tuple[list[Node], Node, Node, Node]:
    """Return the inputs, the gradient with respect to the value, the value, and the gradient."""
    forget(formula)
    check_formula(formula, *layouts, names=names, what=what)
    graph = graph_of(formula, *layouts, names=names, n_differentiated=1, what=what)
    if graph is not None:
        (gradient,) = graph.gradients
        assert gradient is not None  # Otherwise, `check_formula` raises an error.
        return list(graph.inputs), graph.cotangent, graph.result, gradient
    inputs, dy, value, own_gradient = trace_both(formula, *layouts, names=names)
    assert own_gradient is not None  # Otherwise, there would be a graph.
    return inputs, dy, value, own_gradient


def _operations(results: Sequence[Node], known: Sequence[Node]) -> list[Node]:
    """Return the operations that results need besides known nodes, in order."""
    return [node for node in in_order(results, known) if node.operands and node not in known]


def _type(node: Node) -> str:
    return f"{node.dtype}{list(node.shape)}"


def _text(node: Node, names: Names) -> str:
    """Return the name of a node, or the value of a number or of a small constant."""
    if node in names:
        return names[node]
    value = node.settings[0] if node.operation == "number" else node.value
    return str(value) if math.prod(node.shape) == 1 else f"constant{list(node.shape)}"


def _call(node: Node, names: Names) -> str:
    operands = [_text(operand, names) for operand in node.operands]
    if node.operation == "index":
        key = (":".join(map(str, k)) if isinstance(k, tuple) else str(k) for k in node.settings)
        return f"{operands[0]}[{', '.join(key)}]"
    axis = "axis=" if node.operation in REDUCTIONS else ""
    return f"{node.operation}({', '.join([*operands, *(f'{axis}{s}' for s in node.settings)])})"


def _listing(title: str, operations: Sequence[Node], name: str, result: Node, names: Names) -> str:
    """Return one line for each operation, and one for a result that is an input or a number."""
    lines = [(f"{names[node]} = {_call(node, names)}", node) for node in operations]
    if result not in operations:
        lines.append((f"{name} = {_text(result, names)}", result))
    width = max(len(line) for line, _ in lines)
    return "\n".join([title, *(f"    {line:{width}}  {_type(node)}" for line, node in lines)])


def _loops(
    inputs: Sequence[Node], dvalue: Node, value: Node, gradient: Node, names: Names
) -> tuple[str, tuple[str, ...]]:
    """Return the loops as Python code and as LLVM IR."""
    x = inputs[0]
    # The gradient reads the value instead of x if it can.
    read = x if x in in_order([gradient], [value]) else value
    passes: list[tuple[Any, ...]] = [
        ("forward", [x], "value", value),
        ("backward", [read, dvalue], f"d{names[x]}", gradient),
    ]
    if len(inputs) > 1:  # A step needs a loss and its gradient together.
        total = (TracedArray(value) * TracedArray(dvalue)).node
        passes = [("forward and backward", [*inputs, dvalue], f"d{names[x]}", gradient, total)]
    try:
        python, llvm = zip(*(_loop(names, *each) for each in passes), strict=True)
    except UnprintableError as error:
        operations = {node.operation for node in _operations([value, gradient], ())}
        others = ", ".join(sorted(operations - {*ELEMENTWISE, "astype"}))
        return f"no single loop: {error}{others and f' (not elementwise: {others})'}", ()
    return "\n\n".join(python), llvm


def _loop(
    names: Names, title: str, read: list[Node], name: str, result: Node, total: Node | None = None
) -> tuple[str, str]:
    from mlp_xp.compiler.print_cpu import print_kernel  # Avoid this import in short fits.

    kernel, (rows, columns) = make_kernel(read, [result], total)
    at, span = "i, j", f"ndindex({rows}, {columns})"
    if kernel.is_flat:
        at, span = "i", f"range({rows * columns})"
    index = {FULL: at, ROW: "i", COLUMN: "j", SCALAR: "0"}
    lines = [f"for {at} in {span}:  # {title}"]
    places = zip(read, kernel.layouts, strict=False)
    values = {node: f"{names[node]}[{index[layout]}]" for node, layout in places}
    for node in _operations([result] if total is None else [result, total], read):
        if node.operation not in ELEMENTWISE and node.operation != "astype":
            values[node] = _text(node.operands[0], values)  # Only the shape changes.
        elif node == total:
            lines.append(f"total += {_call(node, values)}")
        else:
            line = _call(node, values)
            values[node] = f"{name}[{at}]" if node == result else names[node]
            lines.append(f"{values[node]} = {line}")
    if values.get(result) != f"{name}[{at}]":
        lines.append(f"{name}[{at}] = {_text(result, values)}")
    return "\n    ".join(lines), print_kernel(kernel).text
