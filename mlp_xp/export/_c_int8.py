"""Products of a network in 8 bits, with scales that are calibrated on rows of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from mlp_xp.backends import to_numpy
from mlp_xp.compiler.array import TracedArray
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.kernel import replaced
from mlp_xp.compiler.namespace import Namespace
from mlp_xp.estimators.checks.validation import check_x
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.export._c_network import NetworkGraph

_LOWEST, _HIGHEST = -128, 127
_VECTOR = 16
_DEEPEST = (2**31 - 1) // (_HIGHEST * 255)  # The most terms whose sum is surely an int32.

Ranges = dict[Node, tuple[float, float]]


def calibration_rows(members: Sequence[Any], states: Sequence[FittedState], X: Any) -> np.ndarray:
    """Return the encoded rows of calibration data, after the checks of a prediction.

    Raises
    ------
    ValueError
        If the estimators cannot predict these rows.
    """
    # One network of each encoding.
    encoders = {id(state.columns): member for member, state in zip(members, states, strict=True)}
    try:
        parts = [check_x(member, X, reset=False) for member in encoders.values()]
    except ValueError as error:
        raise ValueError(f"`calibration_X` must be rows like the training data: {error}") from error
    dense = [part.toarray() if scipy.sparse.issparse(part) else to_numpy(part) for part in parts]
    return np.concatenate(dense, axis=1)


def find_ranges(graph: NetworkGraph, rows: np.ndarray) -> Ranges:
    """Return the smallest and largest finite input of each product, and 0, over encoded rows."""
    found = {node.operands[0]: (0.0, 0.0) for node in _products(graph)}
    for row in rows:
        values = graph.compute(row)
        for node, bounds in found.items():
            numbers = values[node][np.isfinite(values[node])]
            limits = numbers.min(initial=bounds[0]), numbers.max(initial=bounds[1])
            found[node] = float(limits[0]), float(limits[1])
    return found


def quantize(graph: NetworkGraph, ranges: Ranges, *, is_exact: bool = False) -> NetworkGraph:
    r"""Return a graph whose products with weights are products of 8-bit integers.

    With :math:`q_x = round(x / s_x) + z`, one scale and zero point for all inputs of a product, and
    :math:`q_w = round(w / s_w)`, one scale for each output,
    :math:`x w \approx s_x s_w (\sum q_x q_w - z \sum q_w)`. The last sum is known in advance, so
    the inner loop adds products of integers only. Jacob et al., "Quantization and training of
    neural networks for efficient integer-arithmetic-only inference" (2018), arXiv:1712.05877.

    Parameters
    ----------
    graph : NetworkGraph
    ranges : dict
        The result of `find_ranges`.
    is_exact : bool
        Keep the integers as floating-point numbers, so that NumPy can compute the graph.

    Raises
    ------
    ValueError
        If a sum could overflow.
    """
    new = {node: node for node in in_order(graph.results) if node.operation == "constant"}
    for node in _products(graph):
        x, w = node.operands
        if x.shape[-1] > _DEEPEST:
            raise ValueError(
                f"`dtype='int8'` sums at most {_DEEPEST:,} products, but a layer has "
                f"{x.shape[-1]:,} inputs: export with dtype='float32'."
            )
        (given,) = replaced([x], new)
        new[node] = _product(given, w, *ranges[x], is_exact=is_exact)
    return graph._replace(results=replaced(graph.results, new))


def _products(graph: NetworkGraph) -> list[Node]:
    """Return the products with weights, in order."""
    return [
        node
        for node in in_order(graph.results)
        if node.operation == "matmul" and node.operands[1].operation == "constant"
    ]


def _product(x: Node, w: Node, low: float, high: float, *, is_exact: bool) -> Node:
    """Return the product of x with weights, by integers."""
    xp = Namespace(x.dtype)
    weights = np.asarray(w.value, np.float64)
    sizes = np.max(np.abs(weights), axis=-2, keepdims=True)
    w_scale = np.where(sizes > 0.0, sizes, 1.0) / _HIGHEST
    x_scale = (high - low) / (_HIGHEST - _LOWEST) or 1.0
    zero = round(_LOWEST - low / x_scale)
    integers = np.rint(weights / w_scale)
    shifts = -zero * np.sum(integers, axis=-2, keepdims=True)
    rounded = xp.round(TracedArray(x) * (1.0 / x_scale)) + float(zero)
    codes = xp.minimum(xp.maximum(rounded, float(_LOWEST)), float(_HIGHEST))
    shape = (*np.broadcast_shapes(x.shape[:-2], w.shape[:-2]), x.shape[-2], w.shape[-1])
    if is_exact:
        total = codes @ xp.asarray(integers.astype(x.dtype)) + xp.asarray(shifts.astype(x.dtype))
    else:
        # The printer adds the products of integers as int32.
        pair = _aligned(xp.astype(codes, xp.int16), integers.astype(np.int8), xp=xp)
        product = TracedArray(Node("matmul", pair, (), shape, "int32"))
        total = xp.astype(product + xp.asarray(shifts.astype(np.int32)), getattr(xp, x.dtype))
    scales = (x_scale * w_scale).astype(x.dtype)
    return (total * xp.asarray(scales)).node


def _aligned(codes: TracedArray, weights: np.ndarray, *, xp: Namespace) -> tuple[Node, Node]:
    """Return the factors of a product whose inner loop reads the weights in order.

    Vectors of 16 numbers are then added without a rest, if zeros for it make the weights at most an
    eighth larger. Inputs of 16 bits need no conversion within the loop.
    """
    depth = codes.shape[-1]
    rest = -depth % _VECTOR
    if rest and rest <= depth // 8:
        zeros = np.zeros((*codes.shape[:-1], rest), np.int16)
        codes = xp.concat([codes, xp.asarray(zeros)], axis=-1)
        weights = np.pad(weights, [*[(0, 0)] * (weights.ndim - 2), (0, rest), (0, 0)])
    columns = xp.asarray(np.ascontiguousarray(np.swapaxes(weights, -1, -2)))
    return codes.node, xp.matrix_transpose(columns).node
