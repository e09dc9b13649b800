"""Print a graph as the body of a C function, for predictions without Python.

Each statement computes an array with loops: a chain of elementwise primitives, a sum or another
reduction of one, a matrix product, or a copy. Loops have constant bounds, and the innermost loop of
a product is over neighboring numbers, so compilers vectorize it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mlp_xp.compiler.c_expressions import (
    c_literal,
    c_literals,
    c_type,
    print_node,
    reduction_start,
    reduction_step,
)
from mlp_xp.compiler.c_loops import VIEWS, Buffer, Loops, View, new_view, place_buffers, row_major
from mlp_xp.compiler.c_statements import STATEMENTS
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.kernel import UnprintableError
from mlp_xp.compiler.primitives import ELEMENTWISE, REDUCTIONS

_FUSED = {*ELEMENTWISE, "astype"}
_LINE = 96


class Function(NamedTuple):
    """The C text of a graph.

    Attributes
    ----------
    constants : list of str
        Definitions of the arrays that the function reads.
    body : list of str
        Statements, which read the inputs and write ``out`` and ``work``.
    work_size : int
        How many numbers ``work`` must have.
    local_bytes : int
        The memory of arrays of other dtypes, which are local variables.
    constant_bytes : int
        The memory of all constants.
    """

    constants: list[str]
    body: list[str]
    work_size: int
    local_bytes: int
    constant_bytes: int


def print_c(
    results: Sequence[Node], inputs: Mapping[Node, str], prefix: str, dtype: str
) -> Function:
    """Return the C code that writes all results to the array ``out``, in order.

    Parameters
    ----------
    results : sequence of Node
        Constants should be folded; see `mlp_xp.compiler.folding.fold`.
    inputs : dict of Node to str
        The name of each input's array in C.
    prefix : str
        Names of constants begin with it.
    dtype : str
        The dtype of ``out`` and ``work``.

    Raises
    ------
    UnprintableError
        If a primitive or a dtype has no C form.
    """
    return _Printer(results, inputs, prefix, dtype).function()


class _Printer:
    """The statements of a graph, in order; it is a `Writer` of `mlp_xp.compiler.c_statements`."""

    def __init__(
        self, results: Sequence[Node], inputs: Mapping[Node, str], prefix: str, dtype: str
    ) -> None:
        self._prefix, self._dtype, self._results = prefix, dtype, list(results)
        self._order = in_order(results)
        self._users: dict[Node, list[Node]] = defaultdict(list)
        for node in self._order:
            for operand in node.operands:
                self._users[operand].append(node)
        self._biases = self._find_biases()
        self._stored = self._choose_stored()
        # The arrays of inputs and of the stored nodes printed so far.
        self._views = {node: new_view(name, node) for node, name in inputs.items()}
        self._constants: dict[Node, str] = {}
        self._definitions: list[str] = []
        self._lines: list[str] = []
        self._declared: list[str] = []
        self._buffers: dict[str, Buffer] = {}
        self._n_arrays = self._n_values = self._position = self._local_bytes = 0

    def function(self) -> Function:
        """Print all statements, then place their arrays in the work space."""
        for node in self._order:
            if node in self._stored and node not in self._views:
                self._position += 1
                self._print(node)
        self._position += 1
        start = 0
        for node in self._results:
            self.store(node, View("out", self._dtype, node.shape, row_major(node.shape), start))
            start += _size(node)
        offsets, work_size = place_buffers(self._buffers.values())
        kind = c_type(self._dtype)
        pointers = [f"{kind} *const {name} = work + {at};" for name, at in offsets.items()]
        body = [*pointers, *self._declared, *self._lines]
        n_bytes = sum(np.asarray(node.value).nbytes for node in self._constants)
        return Function(self._definitions, body, work_size, self._local_bytes, n_bytes)

    def _print(self, node: Node) -> None:
        name = node.operation
        if name in VIEWS:
            self._views[node] = VIEWS[name](self._viewed(node), node)
        elif node in self._biases:
            product, _ = self._biases[node]
            self._views[node] = self._views[product]
        elif name in _FUSED:
            target = self._allocate(node)
            self.store(node, target)
            self._views[node] = target
        elif name in REDUCTIONS:
            self._reduce(node)
        elif name in STATEMENTS:
            STATEMENTS[name](self, node)
        else:
            raise UnprintableError(f"{name} has no C form")

    # --- which nodes have arrays -----------------------------------------------------------------

    def _find_biases(self) -> dict[Node, tuple[Node, Node]]:
        """Return the product and the constant of each sum of both, if only it uses the product."""
        found = {}
        for node in self._order:
            pairs = (node.operands, node.operands[::-1]) if node.operation == "add" else ()
            for product, other in pairs:
                if (
                    product.operation == "matmul"
                    and other.operation == "constant"
                    and len(self._users[product]) == 1
                    and product not in self._results
                    and (product.shape, product.dtype) == (node.shape, node.dtype)
                ):
                    found[node] = product, other
        return found

    def _choose_stored(self) -> set[Node]:
        """Return the nodes that have arrays; others are computed where one statement reads them."""
        stored: set[Node] = set()
        statements: dict[Node, set[Node]] = {}  # In which statements a node is computed.
        for node in reversed(self._order):
            if node.operation in ("constant", "number"):
                continue
            users = self._users[node]
            can_fuse = node.operation in _FUSED and node not in self._biases
            if can_fuse and not users:
                statements[node] = {node}  # A result, which is written to `out` at once.
                continue
            found = {x for user in users for x in statements.get(user, {user})}
            is_shared = len(found) > 1 or node in self._results
            if can_fuse and not is_shared and all(_fuses(user, node) for user in users):
                statements[node] = found
            else:
                stored.add(node)
        return stored

    # --- arrays ----------------------------------------------------------------------------------

    def _allocate(self, node: Node) -> View:
        name = f"a{self._n_arrays}"
        self._n_arrays += 1
        if node.dtype == self._dtype:
            self._buffers[name] = Buffer(name, _size(node), self._position, self._position)
        else:
            self._declared.append(f"{c_type(node.dtype)} {name}[{_size(node)}];")
            self._local_bytes += _size(node) * np.dtype(node.dtype).itemsize
        return new_view(name, node)

    def new(self, node: Node) -> View:
        """Return a new array for a node's result."""
        view = self._views[node] = self._allocate(node)
        return view

    def read(self, node: Node) -> View:
        """Return the array of a stored node or a constant."""
        if node.operation == "constant":
            return self._constant(node)
        view = self._views[node]
        if view.name in self._buffers:
            buffer = self._buffers[view.name]
            self._buffers[view.name] = buffer._replace(end=self._position)
        return view

    def _constant(self, node: Node) -> View:
        if node not in self._constants:
            name = self._constants[node] = f"{self._prefix}_c{len(self._constants)}"
            head = f"static const {c_type(node.dtype)} {name}[{_size(node)}] = {{"
            literals = c_literals(np.asarray(node.value), node.dtype)
            self._definitions += [head, *wrap(literals), "};"]
        return new_view(self._constants[node], node)

    def bias(self, node: Node) -> Node | None:
        """Return the constant with which a product's sums begin, or None."""
        (user,) = self._users[node][:1] or [node]
        return self._biases[user][1] if user in self._biases else None

    def add(self, lines: Sequence[str]) -> None:
        """Add lines of C."""
        self._lines += lines

    def _viewed(self, node: Node) -> View:
        """Return the operand of a view, as a copy if a reshape needs one."""
        (x,) = node.operands
        view = self.read(x)
        if node.operation == "reshape" and not view.is_contiguous:
            copy = self._allocate(x)
            self.store(x, copy)
            return copy
        return view

    # --- loops over elements ---------------------------------------------------------------------

    def store(self, node: Node, target: View) -> None:
        """Print the loop that computes a node, or copies its array, into an array."""
        views = self._operands_of(node)
        loops = Loops("i", node.shape, range(len(node.shape)), [target, *views.values()])
        lines, value = self._element(node, views, loops)
        if target.name in self._buffers and not target.offset:
            # An element is read before it is written, so the target may have an operand's memory.
            alike = {v.name for v in views.values() if (v.strides, v.offset) == (target.strides, 0)}
            others = {
                v.name for v in views.values() if (v.strides, v.offset) != (target.strides, 0)
            }
            buffer = self._buffers[target.name]
            self._buffers[target.name] = buffer._replace(reused=frozenset(alike - others))
        cast = "" if node.dtype == target.dtype else f"({c_type(target.dtype)})"
        self._lines += loops.around([*lines, f"{target.at(loops)} = {cast}{value};"])

    def _operands_of(self, node: Node) -> dict[Node, View]:
        """Return the arrays that a statement reads to compute a node, in the node's shape."""
        order = in_order([node], self._views)
        arrays = [x for x in order if x in self._views or _is_array(x)]
        return {x: self.read(x).broadcast(node.shape) for x in arrays}

    def _element(
        self, node: Node, views: Mapping[Node, View], *loops: Loops
    ) -> tuple[list[str], str]:
        """Return the lines that compute an element of a node, and the element's name."""
        lines: list[str] = []
        names: dict[Node, str] = {}
        for x in in_order([node], views):
            if x.operation == "number":
                continue
            if x.operation == "constant" and x not in views:
                names[x] = c_literal(np.asarray(x.value).reshape(-1)[0], x.dtype)
                continue
            text = views[x].at(*loops) if x in views else print_node(x, names.__getitem__)
            names[x] = f"v{self._n_values}"
            self._n_values += 1
            lines.append(f"const {c_type(x.dtype)} {names[x]} = {text};")
        return lines, names[node]

    def _reduce(self, node: Node) -> None:
        (x,), (axes,) = node.operands, node.settings
        kept = [i for i in range(len(x.shape)) if i not in axes]
        views = self._operands_of(x)
        target = self.new(node)
        strides = dict(zip(kept, target.strides, strict=True))
        spread = target._replace(
            shape=x.shape, strides=tuple(strides.get(i, 0) for i in range(len(x.shape)))
        )
        outer = Loops("i", x.shape, kept, [spread, *views.values()])
        inner = Loops("k", x.shape, axes, views.values())
        lines, value = self._element(x, views, outer, inner)
        step = reduction_step(node.operation, "total", value, dtype=node.dtype, of=x.dtype)
        self._lines += outer.around([
            f"{c_type(node.dtype)} total = {reduction_start(node.operation, node.dtype)};",
            *inner.around([*lines, f"total = {step};"]),
            f"{spread.at(outer)} = total;",
        ])  # fmt: skip


def _fuses(user: Node, node: Node) -> bool:
    """Whether the statement of a user can compute a node."""
    if user.operation in REDUCTIONS or user.operation == "concat":
        return True
    return user.operation in _FUSED and user.shape == node.shape


def _is_array(node: Node) -> bool:
    return node.operation == "constant" and _size(node) != 1


def _size(node: Node) -> int:
    return int(np.prod(node.shape, dtype=np.int64))


def wrap(items: Sequence[str], width: int = _LINE) -> list[str]:
    """Return items, separated by commas, in indented lines."""
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) > width:
            lines.append(f"    {line.rstrip()}")
            line = ""
        line += f"{item}, "
    return [*lines, f"    {line.rstrip(', ')}"]
