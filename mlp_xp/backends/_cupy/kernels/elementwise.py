"""Elementwise kernels, which load 16 bytes at once if arrays are contiguous."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from mlp_xp.backends._cupy.kernels.multi_tensor import PACKS, launch, multi_tensor, width_of
from mlp_xp.backends._cupy.kernels.rendering import raw_kernel, record
from mlp_xp.compiler import Node
from mlp_xp.compiler.c_expressions import C_TYPES
from mlp_xp.compiler.cuda_elements import Parameter
from mlp_xp.compiler.kernel import COLUMN, FULL, ROW, SCALAR
from mlp_xp.compiler.print_cuda import OPTIONS, PREAMBLE, print_elementwise
from mlp_xp.compiler.schedule import Launch

Run = Callable[[dict[Node, Any]], None]


class Place(NamedTuple):
    """The columns that a node's array occupies in a concatenated array."""

    whole: Node
    columns: slice


def make_array(node: Node, values: dict[Node, Any], places: Mapping[Node, Place]) -> Any:
    """Return an uninitialized array for a node, which may be part of another array."""
    if node in places:
        whole, columns = places[node]
        if whole not in values:
            values[whole] = cupy.empty(whole.shape, whole.dtype)
        values[node] = values[whole][:, columns]
    else:
        values[node] = cupy.empty(node.shape, node.dtype)
    return values[node]


def run_elementwise(step: Launch, name: str, places: Mapping[Node, Place]) -> Run:
    """Return the function that runs a launch without reductions."""
    text, parameters = print_elementwise(step)
    shape = step.targets[0].shape
    shapes = {FULL: shape, ROW: (*shape[:-1], 1), COLUMN: shape[-1:], SCALAR: ()}
    results = [p.node for p in parameters if p.kind == "result" and p.node is not None]
    by_cupy = _cupy_kernel(text, parameters, name)
    is_flat = not places.keys() & {*results} and not {ROW, COLUMN} & {p.value for p in parameters}
    packed = _packed_kernel(text, parameters, name) if is_flat else None

    def argument(p: Parameter, values: dict[Node, Any]) -> Any:
        if p.node is None:
            return np.int64(step.grid.columns) if p.kind == "columns" else p.number
        wanted = shapes[p.value]
        array = values[p.node]
        return array if array.shape == wanted else array.reshape(wanted)

    def run(values: dict[Node, Any]) -> None:
        inputs = {p: argument(p, values) for p in parameters if p.kind != "result"}
        outputs = [make_array(node, values, places) for node in results]
        arrays = [x for p, x in inputs.items() if p.value == FULL]
        if packed is None or not all(x.flags.c_contiguous for x in arrays):
            by_cupy(*inputs.values(), *outputs)
            return
        scalars = tuple(x for p, x in inputs.items() if p.value != FULL)
        launch(lambda some: packed, lambda first: scalars, [(*arrays, *outputs)])

    return run


def _cupy_kernel(text: str, parameters: Mapping[Parameter, str], name: str) -> Any:
    """Return a kernel that broadcasts arrays with any strides."""
    declared: dict[bool, list[str]] = {True: [], False: []}
    for p, own_name in parameters.items():
        dtype = p.dtype if p.node is None else p.node.dtype
        kind = "int64" if p.kind == "columns" else dtype
        prefix = "new_" if p.kind == "result" else ""
        declared[p.kind != "result"].append(f"{kind} {prefix}{own_name}")
    return _elementwise_kernel(", ".join(declared[True]), ", ".join(declared[False]), text, name)


@cache
def _elementwise_kernel(inputs: str, outputs: str, text: str, name: str) -> Any:
    settings = {"preamble": PREAMBLE, "options": OPTIONS}
    return record(cupy.ElementwiseKernel(inputs, outputs, text, name, **settings))


def _packed_kernel(text: str, parameters: Mapping[Parameter, str], name: str) -> Any:
    """Return a kernel for contiguous arrays and single numbers."""
    scalars, prologue = list[str](), list[str]()
    reads, writes = dict[str, str](), dict[str, str]()
    dtypes = {p.node.dtype for p in parameters if p.node is not None}
    for p, own_name in parameters.items():
        kind = C_TYPES[p.dtype if p.node is None else p.node.dtype] if p.kind != "columns" else ""
        if p.kind == "result":
            writes[own_name] = kind
        elif p.value == FULL:
            reads[own_name] = kind
        elif p.kind == "array":
            scalars.append(f"const {kind}* of_{own_name}")
            prologue.append(f"  const {kind} {own_name} = of_{own_name}[0];")
        else:
            scalars.append(f"{kind or 'long long'} {own_name}")
    trees = reads, writes, (0,)
    body = multi_tensor(", ".join(scalars), *trees, text, "\n".join(prologue))
    return raw_kernel(name, body, {}, OPTIONS, PACKS, WIDTH=width_of(dtypes))
