"""Simplification of ONNX graphs: compute constants, and remove copies and unused nodes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator


def tidy(model: onnx.ModelProto) -> None:
    """Compute constants, and remove copies and unused nodes, in place.

    Constants become initializers; equal constants share an initializer.
    """
    _remove_needless(model)
    _copy_full_slices(model)  # By now, slice bounds are initializers.
    _remove_needless(model)


def _remove_needless(model: onnx.ModelProto) -> None:
    graph = model.graph
    known: dict[str, np.ndarray] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
    }
    copied: dict[str, str] = {}  # Maps the name of each copy to the name of its source.
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = copied.get(name, name)
        if node.op_type == "Identity":
            copied[node.output[0]] = node.input[0]
        elif all(name in known for name in node.input if name) and len(node.output) == 1:
            known[node.output[0]] = _value(node, known, model)
        else:
            kept.append(node)
    kept = _folded(kept, known, {copied.get(output.name, output.name) for output in graph.output})
    _keep_names_of_outputs(kept, graph, copied)
    needed = {output.name for output in graph.output}
    used: list[onnx.NodeProto] = []
    for node in reversed(kept):
        if needed.intersection(node.output):
            needed.update(node.input)
            used.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(used))
    _add_constants(graph, {name: value for name, value in known.items() if name in needed})


def _copy_full_slices(model: onnx.ModelProto) -> None:
    """Replace slices that select a whole array by Identity nodes."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        info.name: [length.dim_value for length in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info)
    }
    for node in model.graph.node:
        source, *names = node.input
        if node.op_type != "Slice" or len(names) < 3 or not constants.keys() >= {*names}:
            continue
        start, stop, axis, *step = (constants[name].item() for name in names)
        length = shapes[source][axis]  # The length is 0 if it is unknown.
        if length and slice(start, stop, *step).indices(length) == (0, length, 1):
            node.op_type = "Identity"
            del node.input[1:]


def _value(node: onnx.NodeProto, known: dict[str, np.ndarray], model: onnx.ModelProto) -> Any:
    inputs = {name: known[name] for name in node.input if name}
    dtypes = {n: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for n, value in inputs.items()}
    given = [onnx.helper.make_tensor_value_info(*pair, None) for pair in dtypes.items()]
    result = onnx.helper.make_empty_tensor_value_info(node.output[0])
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "constant", given, [result]),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    return np.asarray(ReferenceEvaluator(alone).run(None, inputs)[0])


def _folded(
    nodes: list[onnx.NodeProto], known: dict[str, np.ndarray], outputs: set[str]
) -> list[onnx.NodeProto]:
    """Merge scales and shifts after a dense layer into its weights; return the other nodes.

    This removes batch normalization, because its statistics are constant during prediction.
    """
    uses = Counter(name for node in nodes for name in node.input) + Counter(outputs)
    products: dict[str, onnx.NodeProto] = {}
    kept = []
    for node in nodes:
        name = node.output[0]
        product = products.get(node.input[0])
        factor = known.get(node.input[1]) if len(node.input) == 2 else None
        is_folded = False
        if product is not None and factor is not None and node.op_type in ("Add", "Mul", "Sub"):
            W, b = (known[part] for part in product.input[1:])
            is_folded = factor.size == 1 or factor.shape[-1] == factor.size == b.size
        if product is not None and factor is not None and is_folded:
            row = np.broadcast_to(factor.reshape(-1), b.shape)
            pair = {"Add": (W, b + row), "Mul": (W * row, b * row), "Sub": (W, b - row)}
            for k, array in enumerate(pair[node.op_type], start=1):
                product.input[k] = f"{name}_{k}"
                known[product.input[k]] = array
            product.output[0] = name
            node = product
        else:
            kept.append(node)
        if node.op_type == "Gemm" and uses[name] == 1 and known.keys() >= {*node.input[1:]}:
            products[name] = node
    return kept


def _keep_names_of_outputs(
    nodes: list[onnx.NodeProto], graph: onnx.GraphProto, copied: dict[str, str]
) -> None:
    """Rename each result that is only copied to an output after that output."""
    for output in graph.output:
        source = copied.get(output.name)
        if source is None:
            continue
        for node in nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == source:
                        names[i] = output.name


def _add_constants(graph: onnx.GraphProto, constants: dict[str, np.ndarray]) -> None:
    first: dict[tuple[Any, ...], str] = {}
    for name, value in constants.items():
        content = value.dtype.str, value.shape, value.tobytes()
        kept = first.setdefault(content if value.dtype.kind != "O" else (name,), name)
        if kept == name:
            graph.initializer.append(numpy_helper.from_array(value, name))
            continue
        for node in graph.node:
            for i, used in enumerate(node.input):
                if used == name:
                    node.input[i] = kept
