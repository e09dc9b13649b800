"""The networks of an estimator as a graph, from encoded inputs to outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import array_api_compat.numpy as xp_numpy
import numpy as np

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends.kernels import Kernels
from mlp_xp.compiler.array import TracedArray
from mlp_xp.compiler.folding import fold
from mlp_xp.compiler.formula import evaluate, trace_formula
from mlp_xp.compiler.graph import FormulaError, Layout, Node, in_order
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.export._c_header import Output
from mlp_xp.export._members import weights_of
from mlp_xp.export._outputs import Library, mean_probabilities, named_values, predictions
from mlp_xp.nn.losses import Loss


class NetworkGraph(NamedTuple):
    """The graph of one row, with all weights as constants.

    Attributes
    ----------
    x : Node
        The encoded inputs, (1, n); the encodings of an ensemble's networks, one after the other.
    results : list of Node
        The numbers of each output.
    outputs : list of Output
    tables : list of TableColumns
        The different encodings; none if the networks take arrays.
    """

    x: Node
    results: list[Node]
    outputs: list[Output]
    tables: list[TableColumns]

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Return the outputs, (rows, outputs), for encoded rows."""
        found = map(self.compute, rows)
        return np.asarray(
            [np.concatenate([values[node].ravel() for node in self.results]) for values in found]
        )

    def compute(self, row: np.ndarray) -> dict[Node, Any]:
        """Return the value of each node for an encoded row."""
        values: dict[Node, Any] = {self.x: row[None].astype(self.x.dtype)}
        with np.errstate(all="ignore"):
            evaluate(in_order(self.results), values, xp=xp_numpy)
        return values

    def encode(self, X: Any) -> np.ndarray:
        """Return the encoded rows of an array, or of a table, in the dtype of the header."""
        if not self.tables:
            return np.asarray(X)
        tables = [replace(table, dtype=self.x.dtype) for table in self.tables]
        return np.concatenate([table.transform(X) for table in tables], axis=1)


def trace_networks(
    model: Any, members: Sequence[Any], states: Sequence[FittedState], dtype: str
) -> NetworkGraph:
    """Return the graph of an estimator's networks, in the dtype of its inputs and weights.

    Raises
    ------
    ValueError
        If a function of the user cannot be traced.
    """
    tables = list({id(s.columns): s.columns for s in states if s.columns is not None}.values())
    starts, stop = {}, 0
    for table in tables:
        starts[id(table)] = slice(stop, stop + len(table.input_names))
        stop += len(table.input_names)
    values: dict[Node, np.ndarray] = {}

    def put(array: np.ndarray) -> TracedArray:
        array = np.asarray(array)
        kind = dtype if array.dtype.kind == "f" else array.dtype.name
        node = Node("input", (), ("weights", len(values)), array.shape, kind)
        values[node] = array
        return TracedArray(node)

    def compute(x: Any, *, xp: Namespace) -> dict[str, Any]:
        library = Library(xp, put, Kernels(), _activate, _mean)
        found = [
            predictions(
                member,
                state,
                x if state.columns is None else x[:, starts[id(state.columns)]],
                library,
            )
            for member, state in zip(members, states, strict=True)
        ]
        if states[0].targets.classes is None:
            if states[0].coverage_by is not None and len(states[0].loss.levels) > 1:
                raise ValueError(
                    "Quantiles that are calibrated by group have no C form: export the network "
                    "with to_onnx, or calibrate it with coverage_by=None."
                )
            return named_values(states, found, weights_of(model), library)
        arrays = mean_probabilities(found, weights_of(model), library)
        several = isinstance(model.classes_, list)
        return {f"probabilities{f'_{i}' if several else ''}": y for i, y in enumerate(arrays)}

    layout = Layout((1, stop or states[0].n_features), dtype)
    try:
        named, (x,) = trace_formula(compute, layout, names=["x"])
    except FormulaError as error:
        raise ValueError(
            f"The network has no C form, since a function of it cannot be traced: {error} Write it "
            "with operators and the functions of xp, or export the network with to_torch."
        ) from error
    results = fold([array.node for array in named.values()], values)
    is_exclusive = states[0].targets.kind != "multilabel"
    outputs = [
        Output(name, int(np.prod(node.shape)), labels, is_exclusive)
        for name, node, labels in zip(named, results, _labels(model, len(named)), strict=True)
    ]
    return NetworkGraph(x, results, outputs, tables)


def _labels(model: Any, n_outputs: int) -> list[list[str] | None]:
    classes = getattr(model, "classes_", None)
    if classes is None:
        return [None] * n_outputs
    return [
        [str(label) for label in labels]
        for labels in (classes if isinstance(classes, list) else [classes])
    ]


def _activate(loss: Loss, logits: Any, *, xp: Namespace) -> Any:
    return loss.activate(logits, xp=xp)


def _mean(arrays: Sequence[Any]) -> Any:
    return reduce(add, arrays) / len(arrays)
