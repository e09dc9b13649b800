"""Loops over the arrays of trees, generated from the formula for one element of each array."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.backends._cupy.kernels.multi_tensor import PACKS, launch, multi_tensor, width_of
from mlp_xp.backends._cupy.kernels.rendering import raw_kernel
from mlp_xp.compiler import Node, in_order
from mlp_xp.compiler.c_expressions import C_TYPES
from mlp_xp.compiler.cuda_elements import Parameter, Parameters, print_element
from mlp_xp.compiler.kernel import UnprintableError
from mlp_xp.compiler.print_cuda import OPTIONS
from mlp_xp.compiler.schedule import is_leaf, is_map

# The shape of a traced array. The code for one element depends on no shape.
_SHAPE = (2, 3)
_LEAVE_SUM = """
  __shared__ T shared[THREADS];
  sum = reduce<Sum, THREADS, 1>(sum, shared);
  if (threadIdx.x == 0) parts[model * n_parts + first + block] = sum;"""
# Every block adds up all partial sums of its model.
_ADD_PARTS = """
  __shared__ T shared[THREADS];
  T sum = 0;
  for (long long i = threadIdx.x; i < n_parts; i += THREADS)
    sum += parts[model * n_parts + i];
  const T all = reduce<Sum, THREADS, 1>(sum, shared);"""


class Formula(NamedTuple):
    """The formula for one element of each array.

    Attributes
    ----------
    results : tuple of Node
    written : tuple of int
        The position of the array over which each result is written.
    summand : Node or None
        What is summed over all elements.
    scalars : tuple of Node
        The inputs that are single numbers.
    total : Node or None
        A node that is the sum of the summands of an earlier launch.
    norm : Node or None
        A single number that the first block stores.
    """

    results: tuple[Node, ...]
    written: tuple[int, ...]
    summand: Node | None = None
    scalars: tuple[Node, ...] = ()
    total: Node | None = None
    norm: Node | None = None


def array_node(position: int, dtype: str) -> Node:
    return Node("input", (), (position,), _SHAPE, dtype)


def scalar_node(name: str, dtype: str, *, is_setting: bool = False) -> Node:
    """Return the node for a number, with axes if each model has its own."""
    return Node("input", (), (name,), (1, 1) if is_setting else (), dtype)


def _loads(known: dict[Node, str]) -> Callable[[Node, str], str | None]:
    return lambda node, hint: known.get(node)


class Loop:
    """The kernel launches that compute formulas for the arrays of trees.

    ``dtypes`` are the dtypes of the trees' arrays. A leaf has one of the formulas.
    """

    def __init__(self, name: str, dtypes: Sequence[str], formulas: Sequence[Formula]) -> None:
        self._name, self._dtypes = name, dtypes
        self._parameters, self.has_sum, self.has_total = Parameters(), False, False
        self._scalars: dict[Node, str] = {}
        self._loads: dict[str, str] = {}
        choices = []
        for formula in formulas:
            known = {array_node(k, dtype): f"x{k}" for k, dtype in enumerate(dtypes)}
            for node in formula.scalars:
                known[node] = self._scalar(node)
            if formula.total is not None:
                known[formula.total], self.has_total = "all", True
            wanted = [*formula.results, *([] if formula.summand is None else [formula.summand])]
            lines, names = print_element(wanted, _loads(known), self._parameters)
            lines += [f"new_x{k} = {x};" for k, x in zip(formula.written, names, strict=False)]
            if formula.summand is not None:
                self.has_sum = True
                lines.append(f"sum += {names[-1]};")
            choices.append(" ".join(lines))
        self._end = ""
        if formulas[0].norm is not None:
            lines, (norm,) = print_element([formulas[0].norm], _loads(known), self._parameters)
            stored = f"{' '.join(lines)} norm[model] = {norm};"
            self._end = f"  if (first + block == 0 && threadIdx.x == 0) {{ {stored} }}"
        cases = "\n".join(
            f"      {'else ' if k else ''}if (mark == {k}) {{ {choice} }}"
            for k, choice in enumerate(choices)
        )
        self._loop = cases if len(choices) > 1 else f"      {choices[0]}"
        self._written = sorted({k for formula in formulas for k in formula.written})

    def _scalar(self, node: Node) -> str:
        """Return the name of a number that belongs to the block's model."""
        if node not in self._scalars:
            array = self._parameters.add("array", node)
            stride = self._parameters.add("stride", node)
            self._scalars[node] = f"scalar_{len(self._scalars)}"
            name, kind = self._scalars[node], C_TYPES[node.dtype]
            self._loads[name] = f"  const {kind} {name} = {array}[model * {stride}];"
        return self._scalars[node]

    def kernel(self, marks: tuple[int, ...]) -> Any:
        """Return the kernel for leaves with these formulas."""
        scalars = list(self._parameters.declared)
        if self.has_sum:
            scalars += ["T* parts", "long long n_parts"]
        if self.has_total:
            scalars += ["const T* parts", "long long n_parts", "T* norm"]
        reads = {f"x{k}": f"F{k}" for k in range(len(self._dtypes))}
        writes = {f"x{k}": f"F{k}" for k in self._written}
        sums = _ADD_PARTS if self.has_total else "  T sum = 0;" if self.has_sum else ""
        used = set(re.findall(r"\w+", self._loop + self._end))  # NVRTC warns of unused variables.
        prologue = "\n".join([*(x for name, x in self._loads.items() if name in used), sums])
        epilogue = _LEAVE_SUM if self.has_sum else self._end
        trees = reads, writes, marks
        body = multi_tensor(", ".join(scalars), *trees, self._loop, prologue, epilogue)
        types = {"T": self._dtypes[0]} | {f"F{k}": d for k, d in enumerate(self._dtypes)}
        return raw_kernel(self._name, body, types, OPTIONS, PACKS, WIDTH=width_of(self._dtypes))

    def run(
        self,
        members: list[tuple[Any, ...]],
        marks: Sequence[int],
        values: dict[Node, Any],
        sums: Callable[[int], tuple[Any, ...]],
        n_models: int = 1,
    ) -> None:
        """Launch the loop over all arrays.

        ``sums(i)`` returns the last scalar arguments for a launch that begins with part ``i`` of
        each model.
        """
        numbers = [_number_of(p, values) for p in self._parameters.names]
        launch(
            lambda some: self.kernel(tuple(marks[some])),
            lambda first: (*numbers, *sums(first)),
            members,
            n_models,
        )


def _number_of(p: Parameter, values: dict[Node, Any]) -> Any:
    if p.node is None:
        return p.number
    array = values[p.node]
    if p.kind == "stride":  # The distance from one model's number to the next one's.
        return np.int64(array.strides[0] // array.itemsize if array.ndim else 0)
    return array


def split_sum(nodes: Sequence[Node]) -> Node | None:
    """Return the only sum from which the nodes are computed, or None if there is no sum.

    Raise UnprintableError if the rest is not elementwise.
    """
    sums = [node for node in in_order(nodes) if node.operation == "sum"]
    for node in in_order(nodes):
        is_flat = math.prod(node.shape) in (1, math.prod(_SHAPE))
        if not (is_leaf(node) or node in sums or (is_map(node) and is_flat)):
            raise UnprintableError(node.operation)
    if len(sums) > 1:
        raise UnprintableError("there are several sums")
    return sums[0] if sums else None
