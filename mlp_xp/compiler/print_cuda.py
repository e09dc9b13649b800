"""Print the loops of a schedule in CUDA C.

The text depends on no shape and on no floating-point number: these are parameters, so models of all
sizes share the compiled kernels. Products and sums must not be contracted: compile the text with
`OPTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.compiler.c_expressions import C_TYPES, c_expression, c_literal, operands_dtype
from mlp_xp.compiler.graph import Node
from mlp_xp.compiler.kernel import FULL, ROW, SCALAR
from mlp_xp.compiler.schedule import Grid, Launch, is_map, is_positions

# Results agree with NumPy's only if each operation is rounded by itself.
OPTIONS = ("--fmad=false",)
# The threads of a block; sums need a power of two.
THREADS = 256
# The number of blocks that fit a multiprocessor at once: a thread then has at most 64 registers in
# single precision, and 80 in double precision, whose numbers take two.
_BLOCKS, _BLOCKS_OF_DOUBLES = 4, 3
# In a loop along columns, the columns of a block: the smallest memory read, 32 bytes, contains 8
# float32 numbers.
COLUMNS = 8
# The operators by which threads combine what they reduced, and the start values.
_COMBINE = {
    "sum": ("x + y", "0"),
    "max": ("x != x || x > y ? x : y", "LOWEST"),
    "min": ("x != x || x < y ? x : y", "HIGHEST"),
    "any": ("x || y", "0"),
    "all": ("x && y", "1"),
}
PREAMBLE = """#define INFINITY __uint_as_float(0x7f800000u)
#define NAN __uint_as_float(0x7fc00000u)
"""
# All threads of a block must call `reduce`, which combines the values of groups of N threads that
# are APART threads apart. The order is fixed, so results are reproducible.
_REDUCE = """
struct {Name} {{ template <class T> __device__ static T of(T x, T y) {{ return {combine}; }} }};"""
_GROUPS = """
template <class How, int N, int APART, class T> __device__ T reduce(T value, T* shared) {
  if (N == 1) return value;
  const int thread = threadIdx.x, position = thread / APART % N;
  shared[thread] = value;
  __syncthreads();
  for (int step = N / 2; step > 0; step /= 2) {
    if (position < step)
      shared[thread] = How::of(shared[thread], shared[thread + step * APART]);
    __syncthreads();
  }
  const T found = shared[thread - position * APART];
  __syncthreads();
  return found;
}
"""


def functions(reductions: Sequence[str]) -> str:
    """Return functions that reduce values over groups of threads, e.g. ``reduce<Sum, ...>``."""
    structures = [_REDUCE.format(Name=how.title(), combine=_COMBINE[how][0]) for how in reductions]
    return "".join([*structures, _GROUPS if reductions else ""])


class Parameter(NamedTuple):
    """A parameter of a kernel.

    ``kind`` is "array", "result" or "parts" (sums of blocks), each with a node; "number", with a
    value and a dtype; "stride" of the rows of an array; or "rows" or "columns".
    """

    kind: str
    node: Node | None = None
    value: Any = None
    dtype: str = ""


class Printed(NamedTuple):
    """A kernel: its parameters and its code in braces, the operation's text for elementwise ones.

    ``lanes`` is the number of threads that share a line.
    """

    text: str
    parameters: tuple[Parameter, ...]
    lanes: int


class Parameters:
    """The parameters of a kernel, each with a declaration and a name."""

    def __init__(self) -> None:
        self.names: dict[Parameter, str] = {}
        self.declared: list[str] = []

    def add(self, kind: str, node: Node | None = None, value: Any = None, dtype: str = "") -> str:
        """Return the name of a parameter, which is added if it is new."""
        parameter = Parameter(kind, node, value, dtype)
        if parameter in self.names:
            return self.names[parameter]
        name = kind if kind in ("rows", "columns") else f"{kind}_{len(self.names)}"
        if kind == "array":
            assert node is not None
            declared = f"const {C_TYPES[node.dtype]}* {name}"
        elif kind in ("result", "parts"):
            assert node is not None
            declared = f"{C_TYPES[node.dtype]}* {name}"
        elif kind == "number":
            declared = f"{C_TYPES[dtype]} {name}"
        else:
            declared = f"long long {name}"
        self.names[parameter] = name
        self.declared.append(declared)
        return name

    def number(self, value: Any, dtype: str) -> str:
        """Return a number: a parameter if it is floating-point, else a literal."""
        if dtype in ("float32", "float64"):
            return self.add("number", value=float(value), dtype=dtype)
        return c_literal(value, dtype)


def constant(node: Node, parameters: Parameters) -> str | None:
    """Return a constant with one number on the host; None for other nodes."""
    if node.operation == "constant" and node.value.size == 1 and isinstance(node.value, np.ndarray):
        return parameters.number(node.value.reshape(-1)[0], node.dtype)
    return None


def expression(node: Node, name_of: Callable[[Node], str], parameters: Parameters) -> str:
    """Return the C expression of an elementwise node or a view."""
    if node.operation in ("reshape", "index", "broadcast_to"):
        return name_of(node.operands[0])
    names = [
        parameters.number(x.settings[0], operands_dtype(node))
        if x.operation == "number"
        else name_of(x)
        for x in node.operands
    ]
    return c_expression(node, names)


def print_element(
    wanted: Sequence[Node],
    load: Callable[[Node, str], str | None],
    parameters: Parameters,
    grid: Grid | None = None,
    *,
    prefix: str = "v",
) -> tuple[list[str], list[str]]:
    """Return the lines that compute some nodes for one element, and the names of their values.

    ``load(node, hint)`` returns the expression of a node that is known, or None. The grid, if
    given, has the hints. New names begin with the prefix.
    """
    lines = list[str]()
    names: dict[tuple[Node, str], str] = {}

    def value(node: Node, hint: str) -> str:
        if (node, hint) not in names:
            found = constant(node, parameters) or load(node, hint)
            if found is None:
                hint_for = (lambda *_: "") if grid is None else grid.hint_for
                text = expression(node, lambda x: value(x, hint_for(x, node, hint)), parameters)
                found = f"{prefix}{len(lines)}"
                lines.append(f"const {C_TYPES[node.dtype]} {found} = {text};")
            names[node, hint] = found
        return names[node, hint]

    def hint_of(node: Node) -> str:
        return grid.span(node) if grid is not None and len(node.shape) == 1 else ""

    return lines, [value(node, hint_of(node)) for node in wanted]


class _Printer:
    """The lines of a launch's code: of the block, of each line of the grid, and of its elements."""

    def __init__(self, launch: Launch, strided: Collection[Node]) -> None:
        self.launch, self.strided = launch, strided
        self.grid = Grid(launch.along, launch.rows, launch.columns, launch.known)
        for node in launch.targets:
            assert self.grid.add(node, launch.targets)
        self.parameters = Parameters()
        self.block: list[str] = []
        self.outer: list[list[str]] = [[]]
        self.inner: list[list[str]] = [[]]
        self.names: dict[Any, str] = {}
        self.phases: dict[Node, int] = {}
        self.shared: dict[str, str] = {}
        self.combined: set[str] = set()
        self._totals: list[tuple[Node, str]] = []
        self.n_names = 0
        along_row = launch.along == ROW
        self.outer_index, self.inner_index = ("row", "column") if along_row else ("column", "row")
        self.inner_bound = self.parameters.add("columns" if along_row else "rows")
        self.outer_bound = self.parameters.add("rows" if along_row else "columns")

    def new(self) -> str:
        self.n_names += 1
        return f"v{self.n_names}"

    # --- values ----------------------------------------------------------------------------------

    def phase(self, node: Node, hint: str = "") -> int:
        """Return how many reductions along the line come before a node."""
        if node in self.phases:
            return self.phases[node]
        if node in self.launch.known or not node.operands:
            return 0
        hints = (self.grid.hint_for(x, node, hint) for x in node.operands)
        return max(self.phase(x, h) for x, h in zip(node.operands, hints, strict=True))

    def value(self, node: Node, phase: int, hint: str = "") -> str:
        """Return the name of a node's value in the loop of a phase; print what computes it."""
        literal = constant(node, self.parameters)
        if literal is not None:
            return literal
        layout = self.grid.layout(node, hint)
        key: Any = node, hint
        if layout == SCALAR:
            lines = self.block
        elif layout == self.grid.outer:
            phase = self.phase(node, hint)
            lines = self.outer[phase]
        else:
            lines, key = self.inner[phase], (node, hint, phase)
        if node in self.names:
            return self.names[node]
        if key not in self.names:
            if node in self.launch.known:
                text = self._load(node, layout)
            else:
                text = expression(
                    node,
                    lambda x: self.value(x, phase, self.grid.hint_for(x, node, hint)),
                    self.parameters,
                )
            self.names[key] = self.new()
            lines.append(f"const {C_TYPES[node.dtype]} {self.names[key]} = {text};")
        return self.names[key]

    def _at(self, node: Node) -> str:
        """Return the position of an element of the grid in an array."""
        if node in self.strided:
            return f"row * {self.parameters.add('stride', node)} + column"
        return "start + column" if self.launch.along == ROW else "row * columns + column"

    def _load(self, node: Node, layout: str) -> str:
        if is_positions(node):
            at = {FULL: "row * columns + column", SCALAR: "0"}.get(layout, layout)
            return f"({C_TYPES[node.dtype]})({at})"
        array = self.parameters.add("array", node)
        if layout == SCALAR:
            return f"{array}[0]"
        at = self._at(node) if layout == FULL else layout
        guarded = layout == self.grid.outer
        return (
            f"is_inside ? {array}[{at}] : ({C_TYPES[node.dtype]})0" if guarded else f"{array}[{at}]"
        )

    # --- targets ---------------------------------------------------------------------------------

    def add(self, node: Node) -> None:
        """Print what computes a target."""
        if is_map(node):
            if node in self.launch.needed:
                self._store(node)
            return
        kind = self.grid.reduction(node)
        if kind == SCALAR:
            self._reduce_vector(node)
        elif kind == FULL:
            self._add_total(node)
        else:
            self._reduce_line(node)

    def _at_least(self, phase: int) -> None:
        while len(self.inner) <= phase:
            self.outer.append([])
            self.inner.append([])

    def _store(self, node: Node) -> None:
        span = self.grid.span(node)
        hint = span if len(node.shape) == 1 else ""
        if self.grid.layout(node, hint) == self.grid.outer and span == SCALAR:
            span = self.grid.outer  # There is one line.
        phase = self.phase(node, hint)
        value, result = self.value(node, phase, hint), self.parameters.add("result", node)
        if span == FULL:
            self.inner[phase].append(f"{result}[{self._at(node)}] = {value};")
        elif span == SCALAR:
            self.block.append(f"if (blockIdx.x == 0 && threadIdx.x == 0) {result}[0] = {value};")
        else:
            self._store_line(node, value, phase)

    def _store_line(self, node: Node, value: str, phase: int) -> None:
        result = self.parameters.add("result", node)
        self.outer[phase].append(
            f"if (is_inside && lane == 0) {result}[{self.outer_index}] = {value};"
        )

    def _start(self, node: Node) -> str:
        start = _COMBINE[node.operation][1]
        if not start.isupper():
            return start
        sign = -1 if start == "LOWEST" else 1
        if node.dtype.startswith("float"):
            return c_literal(sign * float("inf"), node.dtype)
        bounds = np.iinfo(node.dtype)
        return c_literal(int(bounds.min if sign < 0 else bounds.max), node.dtype)

    def _combine(self, node: Node, x: str, y: str) -> str:
        self.combined.add(node.operation)
        return f"{node.operation.title()}::of({x}, {y})"

    def _shared(self, node: Node) -> str:
        kind = C_TYPES[node.dtype]
        return self.shared.setdefault(kind, f"shared{len(self.shared)}")

    def _accumulate(self, node: Node, name: str, value: str) -> str:
        kind = C_TYPES[node.dtype]
        return f"{name} = {self._combine(node, name, f'({kind}){value}')};"

    def _reduce_line(self, node: Node) -> None:
        (x,), kind, name = node.operands, C_TYPES[node.dtype], self.new()
        phase = self.phase(x)
        self._at_least(phase + 1)
        self.outer[phase].append(f"{kind} {name} = {self._start(node)};")
        self.inner[phase].append(self._accumulate(node, name, self.value(x, phase)))
        self.phases[node], self.names[node] = phase + 1, name
        how = f"{node.operation.title()}, LANES, STRIDE"
        # The lines of the next phase begin with the reduction.
        self.outer[phase + 1].append(f"{name} = reduce<{how}>({name}, {self._shared(node)});")
        if node in self.launch.needed:
            self._store_line(node, name, phase + 1)

    def _reduce_vector(self, node: Node) -> None:
        """Reduce a vector in each block of threads."""
        (x,), kind, name = node.operands, C_TYPES[node.dtype], self.new()
        layout = self.grid.span(x)
        index, bound = ("row", "rows") if layout == ROW else ("column", "columns")
        bound = "1" if layout == SCALAR else self.parameters.add(bound)

        def load(node: Node, hint: str) -> str | None:
            if node in self.names:
                return self.names[node]
            if node not in self.launch.known:
                return None
            if is_positions(node):
                return f"({C_TYPES[node.dtype]}){index}"
            at = index if math.prod(node.shape) > 1 else "0"
            return f"{self.parameters.add('array', node)}[{at}]"

        # Within the loop, the block's own names, which begin with v, must not be hidden.
        lines, (value,) = print_element([x], load, self.parameters, prefix="element_")
        accumulated = self._accumulate(node, name, value)
        body = " ".join([*lines, accumulated])
        how = f"{node.operation.title()}, THREADS, 1"
        self.block += [
            f"{kind} {name} = {self._start(node)};",
            f"for (long long {index} = threadIdx.x; {index} < {bound}; {index} += THREADS) {{",
            f"  {body}",
            "}",
            f"{name} = reduce<{how}>({name}, {self._shared(node)});",
        ]
        self.phases[node], self.names[node] = 0, name
        if node in self.launch.needed:
            result = self.parameters.add("result", node)
            self.block.append(f"if (blockIdx.x == 0 && threadIdx.x == 0) {result}[0] = {name};")

    def _add_total(self, node: Node) -> None:
        (x,), kind, name = node.operands, C_TYPES[node.dtype], self.new()
        span = self.grid.span(x)
        hint = span if len(x.shape) == 1 else ""
        phase = self.phase(x, hint)
        value = self.value(x, phase, hint)
        self.block.append(f"{kind} {name} = 0;")
        if span == FULL:
            self.inner[phase].append(f"{name} += {value};")
        else:
            self.outer[phase].append(f"if (is_inside && lane == 0) {name} += {value};")
        self._totals.append((node, name))

    # --- text ------------------------------------------------------------------------------------

    def print(self, name: str) -> Printed:
        for node in self.launch.targets:
            self.add(node)
        ends = []
        for total, value in self._totals:
            parts, how = self.parameters.add("parts", total), "Sum, THREADS, 1"
            self.combined.add("sum")
            ends += [
                f"{value} = reduce<{how}>({value}, {self._shared(total)});",
                f"if (threadIdx.x == 0) {parts}[blockIdx.x] = {value};",
            ]
        along_row = self.launch.along == ROW
        has_lanes = len(self.inner) > 1 or not along_row
        lanes = lanes_for(self.launch.columns) if along_row and has_lanes else 1
        if not along_row:
            lanes = THREADS // COLUMNS
        # A matrix may have 2^31 rows, but not as many columns.
        index_type = "int" if along_row else "long long"
        loops = [
            "const int lane = threadIdx.x / STRIDE % LANES, n_lines = THREADS / LANES;",
            "for (long long first = (long long)blockIdx.x * n_lines; "
            f"first < {self.outer_bound}; first += (long long)gridDim.x * n_lines) {{",
            f"  const long long {self.outer_index} = first + threadIdx.x / LANES;"
            if along_row
            else f"  const long long {self.outer_index} = first + threadIdx.x % STRIDE;",
            f"  const bool is_inside = {self.outer_index} < {self.outer_bound};",
            f"  const {index_type} n = is_inside ? ({index_type}){self.inner_bound} : 0;",
            *(["  const long long start = row * columns;"] if along_row else []),
        ]
        for outer, inner in zip(self.outer, self.inner, strict=True):
            loops += [f"  {line}" for line in outer]
            if inner:
                index = self.inner_index
                loops.append(
                    f"  for ({index_type} {index} = lane; {index} < n; {index} += LANES) {{"
                )
                loops += [f"    {line}" for line in inner]
                loops.append("  }")
        loops.append("}")
        shared = [f"__shared__ {kind} {array}[THREADS];" for kind, array in self.shared.items()]
        body = "\n".join(f"  {line}" for line in [*shared, *self.block, *loops, *ends])
        sizes = {"THREADS": THREADS, "LANES": lanes, "STRIDE": 1 if along_row else COLUMNS}
        declared = ", ".join(self.parameters.declared)
        n_blocks = _BLOCKS_OF_DOUBLES if "double" in declared else _BLOCKS
        bounds = f"__launch_bounds__(THREADS, {n_blocks})"
        text = "\n".join([
            *(f"#define {key} {value}" for key, value in sizes.items()),
            PREAMBLE,
            functions(sorted(self.combined)),
            f'extern "C" __global__ void {bounds} {name}({declared}) {{',
            body,
            "}",
        ])  # fmt: skip
        return Printed(text, tuple(self.parameters.names), lanes)


def lanes_for(columns: int) -> int:
    """Return the number of threads that share a row: few if it is short."""
    return 1 if columns <= 32 else 32 if columns <= 1024 else THREADS


def print_launch(launch: Launch, name: str, strided: Collection[Node]) -> Printed:
    """Return the kernel of a launch; rows of ``strided`` matrices may be apart in memory."""
    return _Printer(launch, strided).print(name)


def is_elementwise(launch: Launch) -> bool:
    """Whether a launch has no reductions, and results of one shape."""
    shapes = {node.shape for node in launch.targets}
    return len(shapes) == 1 and all(map(is_map, launch.targets))


def print_elementwise(launch: Launch) -> tuple[str, dict[Parameter, str], dict[Node, str]]:
    """Return C code for one element of an elementwise launch, whose arrays may have any strides.

    Also return the parameters with their names, and the layouts of the arrays.
    """
    grid = Grid(launch.along, launch.rows, launch.columns, launch.known)
    for node in launch.targets:
        assert grid.add(node, launch.targets)
    parameters, layouts = Parameters(), dict[Node, str]()

    def load(node: Node, hint: str) -> str | None:
        if node not in launch.known:
            return None
        layout = grid.layout(node, hint)
        if is_positions(node):
            at = "i" if layout == FULL else f"i % {parameters.add('columns')}"
            return f"({C_TYPES[node.dtype]})({at})"
        assert layouts.setdefault(node, layout) == layout
        return parameters.add("array", node)

    lines, names = print_element(launch.targets, load, parameters, grid)
    for node, name in zip(launch.targets, names, strict=True):
        if node in launch.needed:
            lines.append(f"{parameters.add('result', node)} = {name};")
    return "\n".join(lines), parameters.names, layouts
