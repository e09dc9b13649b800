"""Print the loops of a schedule in CUDA C.

The text depends on no shape and on no floating-point number: these are parameters, so models of all
sizes share the compiled kernels. Products and sums must not be contracted: compile the text with
`OPTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from mlp_xp.compiler.c_expressions import C_TYPES, reduction_start, reduction_step
from mlp_xp.compiler.cuda_elements import (
    Parameter,
    Parameters,
    constant,
    expression,
    print_element,
)
from mlp_xp.compiler.graph import Node
from mlp_xp.compiler.kernel import COLUMN, FULL, ROW, SCALAR
from mlp_xp.compiler.schedule import Launch, is_map, is_positions

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
# With fewer columns, a column's index plus `THREADS` fits in an int.
_MOST_COLUMNS = 1 << 30
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
    # The template serves all types, so any dtype will do here.
    of = {"dtype": "float32", "of": "float32"}
    structures = [
        _REDUCE.format(Name=how.title(), combine=reduction_step(how, "x", "y", **of))
        for how in reductions
    ]
    return "".join([*structures, _GROUPS if reductions else ""])


class Printed(NamedTuple):
    """The text of a kernel and its parameters; ``lanes`` threads share a line."""

    text: str
    parameters: tuple[Parameter, ...]
    lanes: int


class _Printer:
    """The code of a launch: lines per block, per line of the grid, and per element."""

    def __init__(self, launch: Launch, strided: Collection[Node]) -> None:
        self.launch, self.grid, self.strided = launch, launch.grid, strided
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
        along_row = self.grid.along == ROW
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
        if node in self.grid.known or not node.operands:
            return 0
        below = self.grid.operands_hint(node, hint)
        return max(self.phase(x, below) for x in node.operands)

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
            if node in self.grid.known:
                text = self._load(node, layout)
            else:
                below = self.grid.operands_hint(node, hint)
                text = expression(node, lambda x: self.value(x, phase, below), self.parameters)
            self.names[key] = self.new()
            lines.append(f"const {C_TYPES[node.dtype]} {self.names[key]} = {text};")
        return self.names[key]

    def _at(self, node: Node) -> str:
        """Return the position of an element of the grid in an array."""
        if node in self.strided:
            return f"row * {self.parameters.add('stride', node)} + column"
        return "start + column" if self.grid.along == ROW else "row * columns + column"

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
        result, at = self.parameters.add("result", node), self.outer_index
        if node in self.strided and at == "row":
            at = f"row * {self.parameters.add('stride', node)}"
        self.outer[phase].append(f"if (is_inside && lane == 0) {result}[{at}] = {value};")

    def _shared(self, node: Node) -> str:
        kind = C_TYPES[node.dtype]
        return self.shared.setdefault(kind, f"shared{len(self.shared)}")

    def _accumulate(self, node: Node, name: str, value: str) -> str:
        self.combined.add(node.operation)
        how, kind = node.operation.title(), C_TYPES[node.dtype]
        return f"{name} = {how}::of({name}, ({kind}){value});"

    def _reduce_line(self, node: Node) -> None:
        (x,), kind, name = node.operands, C_TYPES[node.dtype], self.new()
        phase = self.phase(x)
        self._at_least(phase + 1)
        self.outer[phase].append(f"{kind} {name} = {reduction_start(node.operation, node.dtype)};")
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
            if node not in self.grid.known:
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
            f"{kind} {name} = {reduction_start(node.operation, node.dtype)};",
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
        along_row = self.grid.along == ROW
        lanes = THREADS // COLUMNS
        if along_row:  # Without loops along rows, a thread computes a row's number.
            lanes = lanes_for(self.grid.columns) if any(self.inner) else 1
        # A matrix may have 2^31 rows, but only a vector may have 2^31 columns.
        index_type = "int" if along_row and self.grid.columns < _MOST_COLUMNS else "long long"
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
    """Return the number of threads per row; short rows need fewer."""
    return 1 if columns <= 32 else 32 if columns <= 1024 else THREADS


def print_launch(launch: Launch, name: str, strided: Collection[Node]) -> Printed:
    """Return the kernel of a launch; rows of ``strided`` matrices may be apart in memory."""
    return _Printer(launch, strided).print(name)


def is_elementwise(launch: Launch) -> bool:
    """Whether a launch has no reductions, and results of one shape, which is the grid's."""
    grid, shape = launch.grid, launch.targets[0].shape
    return all(is_map(node) and node.shape == shape for node in launch.targets) and (
        math.prod(shape[:-1]),
        *shape[-1:],
    ) == (grid.rows, grid.columns)


def print_elementwise(launch: Launch) -> tuple[str, dict[Parameter, str]]:
    """Return C code for one element of an elementwise launch, whose arrays may have any strides.

    Also return the parameters with their names. The value of an array is its layout. The names of
    results begin with ``new_``.
    """
    grid, parameters = launch.grid, Parameters()

    def load(node: Node, hint: str) -> str | None:
        if node not in grid.known:
            return None
        layout = grid.layout(node, hint)
        if is_positions(node):
            operator = {ROW: "/", COLUMN: "%"}.get(layout)
            at = f"i {operator} {parameters.add('columns')}" if operator else "i"
            return f"({C_TYPES[node.dtype]})({at})"
        return parameters.add("array", node, layout)

    lines, names = print_element(launch.targets, load, parameters, grid)
    for node, name in zip(launch.targets, names, strict=True):
        if node in launch.needed:
            lines.append(f"new_{parameters.add('result', node)} = {name};")
    return "\n".join(lines), parameters.names
