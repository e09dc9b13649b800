"""Compile functions of arrays: trace them once, then run them with few kernel launches."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import cupy
import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends._cupy import namespace
from mlp_xp.backends._cupy.kernels.elementwise import Place, Run, make_array, run_elementwise
from mlp_xp.backends._cupy.kernels.rendering import FLOATS, blocks_for, compile_text
from mlp_xp.compiler import FormulaError, Node, in_order, remember
from mlp_xp.compiler.array import TracedArray
from mlp_xp.compiler.formula import evaluate, trace_formula
from mlp_xp.compiler.joined import split_joined
from mlp_xp.compiler.kernel import COLUMN, UnprintableError
from mlp_xp.compiler.namespace import Namespace
from mlp_xp.compiler.print_cuda import (
    COLUMNS,
    OPTIONS,
    THREADS,
    is_elementwise,
    print_launch,
)
from mlp_xp.compiler.schedule import Launch, computed_nodes, is_leaf, is_map, is_printed, schedule

# In a launch that sums over the grid: lines per group of threads, and the most blocks.
_LINES_AT_ONCE, _MOST_BLOCKS = 4, 256
# The code that compiles formulas; all other code belongs to users.
_LIBRARIES = {"mlp_xp", "numpy", "cupy", "array_api_compat", "contextlib", "functools"}


class Plan:
    """The launches that compute some nodes from others.

    Call it with the arrays of the inputs; it returns the arrays of the results.
    """

    def __init__(self, name: str, results: Sequence[Node], inputs: Sequence[Node]) -> None:
        self.inputs = list(inputs)
        # A result that has the elements of another node in another shape needs no launch.
        simple = split_joined(results, inputs)
        self._bases = [_base(node, inputs) for node in simple]
        self._shapes = [node.shape for node in results]
        steps = schedule(self._bases, inputs)
        # Results that are joined are written to parts of the joined array.
        parts = dict[Node, Place]()
        for node in steps:
            if isinstance(node, Node) and node.operation == "concat":
                parts |= _places(node, self._bases, parts)
        by_library = {x for step in steps if isinstance(step, Node) for x in step.operands}
        self._constants = [
            node
            for node in in_order(self._bases, inputs)
            if node.operation == "constant"
            and node not in inputs
            and (node in by_library or not is_printed(node))
        ]
        self._copies: dict[Node, Any] | None = None  # The constants on the device.
        self._steps = [
            _launch(step, name, parts) if isinstance(step, Launch) else _by_library(step)
            for step in steps
        ]

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        if self._copies is None:
            self._copies = {node: cupy.asarray(node.value) for node in self._constants}
        values = dict(zip(self.inputs, arrays, strict=True)) | self._copies
        for step in self._steps:
            step(values)
        return [
            values[node] if values[node].shape == shape else values[node].reshape(shape)
            for node, shape in zip(self._bases, self._shapes, strict=True)
        ]


def _base(node: Node, inputs: Sequence[Node]) -> Node:
    while node not in inputs and node.operation in ("reshape", "index"):
        if node.operands[0].shape and np.prod(node.shape) != np.prod(node.operands[0].shape):
            break
        node = node.operands[0]
    if is_leaf(node) and node not in inputs:  # Constants are copied, since results may be written.
        return Node("broadcast_to", (node,), (node.shape,), node.shape, node.dtype)
    return node


def _places(node: Node, results: Sequence[Node], known: Collection[Node]) -> dict[Node, Place]:
    """Return where a ``concat`` puts its operands, or nothing if they are needed separately."""
    start, places = 0, dict[Node, Place]()
    is_columns = len(node.shape) == 2 and node.settings == (1,)
    for x in node.operands:
        is_part = is_map(x) and x.dtype == node.dtype
        if not is_columns or not is_part or x in places or x in known or x in results:
            return {}
        places[x] = Place(node, slice(start, start + x.shape[1]))
        start += x.shape[1]
    return places


def _by_library(node: Node) -> Run:
    numbers = [x for x in node.operands if x.operation == "number"]

    def run(values: dict[Node, Any]) -> None:
        if node not in values:
            evaluate([*numbers, node], values, xp=namespace)

    return run


def _launch(launch: Launch, name: str, places: Mapping[Node, Place]) -> Run:
    run = run_elementwise if is_elementwise(launch) else _run_raw
    return run(launch, name, places)


def _run_raw(launch: Launch, name: str, places: Mapping[Node, Place]) -> Run:
    grid = launch.grid
    shape = grid.rows, grid.columns
    views = {x for x in grid.known if x.operation == "index" and x.shape == shape}
    printed = print_launch(launch, name, views | places.keys())
    compute = compile_text(printed.text, name, OPTIONS)
    lines, per_block = grid.rows, THREADS // printed.lanes
    if grid.along == COLUMN:
        lines, per_block = grid.columns, COLUMNS
    n_blocks = blocks_for(lines, per_block)
    if any(p.kind == "parts" for p in printed.parameters):
        n_blocks = min(blocks_for(n_blocks, _LINES_AT_ONCE), _MOST_BLOCKS)

    def run(values: dict[Node, Any]) -> None:
        arguments, parts, arrays = [], [], dict[Node, Any]()
        for p in printed.parameters:
            node = p.node
            if node is None:
                is_number = p.kind == "number"
                arguments.append(p.number if is_number else np.int64(getattr(grid, p.kind)))
            elif p.kind == "array":
                arrays[node] = _in_lines(values[node], is_strided=node in views)
                arguments.append(arrays[node])
            elif p.kind == "stride":
                x = arrays[node] if node in arrays else values[node]
                arguments.append(np.int64(x.strides[0] // x.itemsize))
            elif p.kind == "result":
                arguments.append(make_array(node, values, places))
            else:
                values[node] = cupy.empty(n_blocks, node.dtype)
                arguments.append(values[node])
                parts.append(node)
        compute((n_blocks,), (THREADS,), tuple(arguments))
        for node in parts:
            values[node] = add_up(values[node])

    return run


@cache
def _total(shape: tuple[int, ...], dtype: str) -> Plan:
    parts, last = Node("input", (), ("parts",), shape, dtype), len(shape) - 1
    return Plan("mlp_xp_total", [Node("sum", (parts,), ((last,),), shape[:-1], dtype)], [parts])


def add_up(parts: Any) -> Any:
    """Add up the partial sums of all thread blocks along the last axis."""
    if parts.shape[-1] == 1:  # This needs no launch.
        return parts.reshape(parts.shape[:-1])
    (found,) = _total(parts.shape, parts.dtype.name)([parts])
    return found


def _in_lines(array: Any, *, is_strided: bool) -> Any:
    """Return a contiguous array; in a view of a matrix, only each row must be contiguous."""
    if array.flags.c_contiguous:
        return array
    if is_strided and array.strides[1] == array.itemsize:
        return array
    return cupy.ascontiguousarray(array)


class _LoopNamespace(Namespace):
    """A namespace of traced arrays whose functions match what a kernel's loops compute."""

    def argmax(self, x: TracedArray, *, axis: int = -1) -> Any:
        """Return the position of the first NaN, or else of the maximum, using two reductions."""
        axis = 0 if axis is None and x.ndim == 1 else axis
        last = x if axis in (-1, x.ndim - 1) else self.moveaxis(x, axis, -1)
        positions = self.arange(last.shape[-1], dtype="int64")
        is_first = (last == self.max(last, axis=-1, keepdims=True)) | (last != last)
        beyond = self._constant(np.asarray(np.iinfo(np.int64).max))
        return self.min(self.where(is_first, positions, beyond), axis=-1)


def trace(function: Callable[..., Any], arguments: Tree) -> tuple[Any, list[Node]]:
    """Call ``function(*arguments, xp=...)`` with traced arrays; return the result and inputs."""
    names = [""] * len(arguments)
    return trace_formula(function, *arguments, names=names, make_namespace=_LoopNamespace)


def is_of_formula(error: Exception) -> bool:
    """Whether an error means that a formula cannot be compiled; others are compiler bugs.

    Any error in a user's code counts, since a formula with a pullback need not be traceable.
    """
    if isinstance(error, FormulaError | UnprintableError):
        return True
    frames = traceback.walk_tb(error.__traceback__)
    modules = {str(frame.f_globals.get("__name__")) for frame, _ in frames}
    return not {name.partition(".")[0] for name in modules} <= _LIBRARIES


class Fused:
    """A function of arrays, compiled for some shapes and dtypes."""

    def __init__(self, name: str, function: Callable[..., Any], arguments: Tree) -> None:
        out, inputs = trace(function, arguments)
        self._out, self._plan = out, Plan(name, nodes_of(out), inputs)

    def __call__(self, *arguments: Any) -> Any:
        return _rebuild(self._out, self._plan(_arrays(arguments)))


class Differentiable:
    """A function that also returns a pullback, compiled for some shapes and dtypes.

    ``function`` returns (y, pullback) or (y, pullback, more). ``variants`` are the keyword
    arguments with which the pullback is called.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: Tree,
        variants: Sequence[dict[str, Any]],
    ) -> None:
        (y, self._pull, *more), inputs = trace(function, arguments)
        self._name, self._out = name, (y, tuple(more))
        results = nodes_of(self._out)
        self._n_results = len(results)
        # The pullback recomputes what is elementwise.
        known = [*inputs, *results]
        backward = [x for options in variants for x in nodes_of(self._gradient(y.dtype, options))]
        needed = set(in_order(backward, known))
        saved = [x for x in computed_nodes(in_order(results, inputs)) if x in needed]
        self._forward = Plan(name, [*results, *saved], inputs)
        self._known = [*known, *saved]  # The pullback's arguments before dy.
        self._backward: dict[Any, tuple[Tree, Plan]] = {}

    def _gradient(self, dtype: str, options: dict[str, Any]) -> Tree:
        """Return the traced pullback of a gradient with a dtype."""
        return self._pull(TracedArray(self._cotangent(dtype)), **options)

    def _cotangent(self, dtype: str) -> Node:
        return Node("input", (), ("dy",), self._out[0].shape, dtype)

    def _pullback(self, dtype: str, options: dict[str, Any]) -> tuple[Tree, Plan]:
        key = dtype, *sorted(options.items())
        if key not in self._backward:
            grads = self._gradient(dtype, options)
            known = [*self._known, self._cotangent(dtype)]
            self._backward[key] = grads, Plan(f"{self._name}_gradient", nodes_of(grads), known)
        return self._backward[key]

    def __call__(self, *arguments: Any) -> tuple[Any, Callable[..., Any], list[Any]]:
        """Return y, its pullback, and the function's other results."""
        inputs = _arrays(arguments)
        found = self._forward(inputs)
        y, more = _rebuild(self._out, found[: self._n_results])

        def pullback(dy: Any, **options: Any) -> Any:
            grads, plan = self._pullback(dy.dtype.name, options)
            return _rebuild(grads, plan([*inputs, *found, dy]))

        return y, pullback, more


def _arrays(tree: Tree) -> list[Any]:
    return [x for x in leaves(tree) if x is not None]


def nodes_of(tree: Tree) -> list[Node]:
    """Return the nodes of a tree of traced arrays; for None, return no nodes."""
    return [x.node for x in _arrays(tree)]


def _rebuild(tree: Tree, arrays: Sequence[Any]) -> Tree:
    remaining = iter(arrays)
    return map_leaves(lambda x: None if x is None else next(remaining), tree)


class _BuiltIn:
    """A cache for the compiled versions of a built-in function."""


@cache
def _built_in(key: Any) -> _BuiltIn:
    return _BuiltIn()


def fused(owner: Any, key: Any, arguments: Tree, make: Callable[[], Any]) -> Any:
    """Return a compiled function, or None if it cannot be compiled for these arguments.

    It is kept as long as its owner, e.g. a formula or a loss, for each key and the arguments'
    layouts. The owner None stands for the built-in function that the key names.
    """
    arrays = _arrays(arguments)
    if not arrays or arrays[0].dtype.str not in FLOATS:
        return None
    for array in arrays:
        if not isinstance(array, cupy.ndarray) or array.size == 0:
            return None
    layouts = tuple(x if x is None else (x.shape, x.dtype.str) for x in leaves(arguments))
    device = cupy.cuda.runtime.getDevice()

    def made() -> Any:
        try:
            return make()
        except Exception as error:  # Errors of a formula recur when it runs without being compiled.
            if not is_of_formula(error):
                raise
            return None

    return remember(_built_in(key) if owner is None else owner, (key, layouts, device), made)
