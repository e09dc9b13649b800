"""Folding of constants: what a graph computes without its inputs, computed once in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from mlp_xp.compiler.array import as_node, is_float
from mlp_xp.compiler.formula import evaluate
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.kernel import replaced


def fold(results: Sequence[Node], values: Mapping[Node, np.ndarray]) -> list[Node]:
    """Return results in which all that depends only on known inputs is a constant.

    ``values`` are the known inputs. They and all constants are converted to float64 before, and the
    results are rounded to the dtypes of their nodes.
    """
    order = in_order(results)
    known = {node: _precise(value) for node, value in values.items()}
    for node in order:
        if node.operation == "constant":
            known[node] = _precise(np.asarray(node.value))
        elif node.operation == "number":
            known[node] = node.settings[0]
        elif node.operation == "astype" and node.operands[0] in known:
            dtype = "float64" if is_float(node.dtype) else node.dtype
            known[node] = np.asarray(known[node.operands[0]]).astype(dtype)
        elif node.operands and all(x in known for x in node.operands):
            with np.errstate(all="ignore"):
                evaluate([node], known, xp=xp)
    wanted = {x for node in order if node not in known for x in node.operands} | {*results}
    # A broadcast array stays a view of a smaller one.
    wanted |= {x for node in wanted if node.operation == "broadcast_to" for x in node.operands}
    folded = {
        node: as_node(np.asarray(known[node]).astype(node.dtype))
        for node in wanted
        if node in known and node.operation not in ("number", "broadcast_to")
    }
    return replaced(results, folded)


def _precise(value: Any) -> np.ndarray:
    return value.astype(np.float64) if value.dtype.kind == "f" else value
