"""Shorter ways to the parts of arrays in ONNX graphs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper


class _Part(NamedTuple):
    """The entries from ``start`` to ``stop`` of an array along an axis."""

    source: str
    axis: int
    start: int
    stop: int


def shorten_slices(model: onnx.ModelProto) -> None:
    """Replace slices of slices by slices of the whole array, and full slices by the array.

    A part of a concatenation is one of one of its arrays. The graph is changed in place.
    """
    graph = model.graph
    shapes = _shapes(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    outputs = {output.name for output in graph.output}
    parts: dict[str, _Part] = {}
    wholes: dict[str, str] = {}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = wholes.get(name, name)
        part = _part(node, constants, shapes) if node.op_type == "Slice" else None
        if part is None:
            continue
        part = _traced(part, parts, made_by, shapes)
        name = node.output[0]
        if part.start == 0 and part.stop == shapes[part.source][part.axis] and name not in outputs:
            wholes[name] = part.source
            continue
        parts[name] = part
        del node.input[:]
        node.input.append(part.source)
        for value in (part.start, part.stop, part.axis):
            constant = f"slice_{value}"
            if constant not in constants:
                constants[constant] = np.asarray([value])
                graph.initializer.append(numpy_helper.from_array(constants[constant], constant))
            node.input.append(constant)


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes of all results; an unknown length is 0."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        info.name: [length.dim_value for length in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info, *graph.output)
    }


def _part(
    node: onnx.NodeProto, constants: dict[str, np.ndarray], shapes: dict[str, list[int]]
) -> _Part | None:
    """Return what a slice takes, or None if it is not a range of known entries on one axis."""
    settings = [constants.get(name) for name in node.input[1:]]
    source = node.input[0]
    if len(settings) < 3 or any(value is None or value.size != 1 for value in settings):
        return None
    if source not in shapes or (len(settings) == 4 and settings[3] != 1):
        return None
    start, stop, axis = (int(value.item()) for value in settings[:3] if value is not None)
    axis %= len(shapes[source])
    length = shapes[source][axis]
    return _Part(source, axis, *slice(start, stop).indices(length)[:2]) if length else None


def _traced(
    part: _Part,
    parts: dict[str, _Part],
    made_by: dict[str, onnx.NodeProto],
    shapes: dict[str, list[int]],
) -> _Part:
    """Return where a part comes from."""
    source, axis, start, stop = part
    inner, node = parts.get(source), made_by.get(source)
    if inner is not None and inner.axis == axis:
        moved = inner._replace(start=inner.start + start, stop=inner.start + stop)
        return _traced(moved, parts, made_by, shapes)
    if node is not None and node.op_type == "Concat":
        given = onnx.helper.get_node_attr_value(node, "axis") % len(shapes[source])
        first = 0
        for name in node.input if given == axis else ():
            length = shapes.get(name, [0] * (axis + 1))[axis]
            if not length:
                break
            if first <= start and stop <= first + length:
                moved = _Part(name, axis, start - first, stop - first)
                return _traced(moved, parts, made_by, shapes)
            first += length
    return part
