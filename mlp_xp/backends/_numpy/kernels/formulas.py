"""Activations and elementwise operations of NumPy as loops that the compiler prints.

A formula is traced once for each shape and dtype. The text of its loop does not depend on the
shape, so it is compiled once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends import kernels
from mlp_xp.backends._numpy.kernels.writing import run
from mlp_xp.backends._numpy.runtime.tuning import LEAST_NUMBERS
from mlp_xp.compiler import FormulaError, Layout, in_order, remember
from mlp_xp.compiler.array import operation, power
from mlp_xp.compiler.formula import trace_both, trace_formula
from mlp_xp.compiler.graph import Node
from mlp_xp.compiler.instructions import TYPES
from mlp_xp.compiler.kernel import Kernel, UnprintableError, make_kernel
from mlp_xp.compiler.print_cpu import check_printable
from mlp_xp.nn.layers import ACTIVATIONS, activate

T = TypeVar("T")


class Sized(NamedTuple):
    """A kernel, and its numbers of (groups of) rows and columns.

    ``size`` is the number of numbers, if the last row is shorter.
    """

    kernel: Kernel
    grid: tuple[int, ...]
    size: int | None = None

    def run(
        self, inputs: Sequence[Any], results: Sequence[Any], *, is_shared: bool = False
    ) -> None:
        """Run the loop, or record the call in a traced step."""
        from mlp_xp.backends._numpy.runtime.tasks import formula_loop

        run(formula_loop(self.kernel, self.grid, inputs, results, self.size), is_shared)


def _sized(
    inputs: Sequence[Node],
    results: Sequence[Node],
    total: Node | None = None,
    *,
    in_place: int | None = None,
    sums_rows: bool = False,
) -> Sized:
    kernel, grid = make_kernel(inputs, results, total, in_place=in_place, sums_rows=sums_rows)
    check_printable(kernel)
    return Sized(kernel, grid)


class ActivationLoops(NamedTuple):
    """The loops of an activation and of its gradient.

    If ``reads_output`` is true, the gradient is computed from the output instead of the input.
    """

    forward: Sized
    backward: Sized
    reads_output: bool


def _or_none(make: Callable[[], T | None], *, is_own: bool = False) -> T | None:
    """Return the loops that a function makes of a formula, or None if the formula has none.

    A user's function may raise anything while it is traced. It raises its own error again when it
    runs.
    """
    try:
        return make()
    except Exception as error:
        if is_own or isinstance(error, FormulaError | UnprintableError):
            return None
        raise


def activation_loops(function: Any, shape: tuple[int, ...], dtype: str) -> ActivationLoops | None:
    """Return the loops of an activation, or None if it has none."""

    def make() -> ActivationLoops | None:
        formula = partial(activate, function)
        (x,), dy, y, dx = trace_both(formula, Layout(shape, dtype), names=["x"])
        if dx is None or y.shape != shape or dx.shape != shape or y == x:
            return None
        reads_output = x not in in_order([dx], [y])
        backward = _sized([y if reads_output else x, dy], [dx])
        return ActivationLoops(_sized([x], [y]), backward, reads_output)

    is_own = not isinstance(function, str)
    owner = function if is_own else ACTIVATIONS[function]
    key = "loops", shape, dtype
    found: ActivationLoops | None = remember(owner, key, lambda: _or_none(make, is_own=is_own))
    return found


@lru_cache(maxsize=256)
def gather_loop(source: kernels.Source, dtype: str) -> Sized | None:
    """Return the loop that converts and scales the rows of a source, given as layouts."""

    def make() -> Sized | None:
        x, inputs = trace_formula(partial(kernels.gather, dtype=dtype), source, names=["source"])
        is_known = (x.shape, x.dtype) == (source.x.shape, dtype)
        return _sized(inputs, [x.node]) if is_known else None

    return _or_none(make)


@lru_cache(maxsize=1024)
def elementwise_kernel(
    name: str, operands: tuple[str | float, ...], in_place: int | None
) -> Kernel | None:
    """Return the kernel of an Array API function, or of a conversion to a dtype, if there is one.

    Its inputs are the operands that are not numbers, given as their dtypes.
    """
    layouts = [Layout((), x) for x in operands if isinstance(x, str)]

    def formula(*arrays: Any, xp: Namespace) -> Any:
        if name in (*TYPES, "bool"):
            return xp.astype(arrays[0], name)
        if name.startswith("bitwise") and arrays[0].dtype == "bool":
            return operation(name.replace("bitwise", "logical"), *arrays)
        if name == "pow":
            given = iter(arrays)
            return power(*[next(given) if isinstance(x, str) else x for x in operands])
        return operation(name, *arrays)

    def make() -> Kernel:
        y, inputs = trace_formula(formula, *layouts, names=["operand"] * len(layouts))
        return _sized(inputs, [y.node], in_place=in_place).kernel

    return _or_none(make)


@lru_cache(maxsize=256)
def reduction_loop(name: str, x: Layout, width: int = 0) -> Sized:
    """Return the loop for the "sum", "prod", "max" or "min" of all or each ``width`` numbers."""
    _, (node,) = trace_formula(lambda x, *, xp: x, x, names=["x"])
    total = node if name == "sum" else Node(name, (node,), (), x.shape, x.dtype)
    return _sum_loop([node], total, width)


@lru_cache(maxsize=256)
def dot_loop(x: Layout, width: int = 0) -> Sized:
    """Return the loop that sums the products of two arrays, all or of each ``width`` numbers."""
    product, inputs = trace_formula(lambda a, b, *, xp: a * b, x, x, names=["a", "b"])
    return _sum_loop(inputs, product.node, width)


def _sum_loop(inputs: Sequence[Node], total: Node, width: int) -> Sized:
    sized = _sized(inputs, [], total, sums_rows=width > 0)
    if width == 0:
        return sized
    size = math.prod(total.shape)
    return Sized(sized.kernel, (-(-size // width), width), size)


def layout(array: Any) -> Layout:
    """Return the shape and the dtype of an array."""
    return Layout(array.shape, array.dtype.name)


def is_large(array: Any) -> bool:
    """Whether threads should share the work on an array."""
    return bool(array.size >= LEAST_NUMBERS)
