"""ONNX as an array library: ndonnx, with kernels for missing or slow operations.

The kernels replace operations that ndonnx lacks or expands into many nodes. For example, if the
number of rows is unknown, ndonnx adds about ten nodes to each product or sum to check whether an
array is empty. ONNX's own operators do not need this check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ndonnx
import spox.opset.ai.onnx.v21 as operators

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.layers import Activation, Arrangement, Dense, activate
from mlp_xp.nn.losses import EachMember, EachTarget, Loss


class OnnxNamespace:
    """The functions of ndonnx, some replaced by ONNX's own operators."""

    def __getattr__(self, name: str) -> Any:
        return getattr(ndonnx, name)

    def reshape(self, x: Any, shape: Sequence[int | None]) -> Any:
        """Reshape an array; None in the shape means the number of rows."""
        return ndonnx.reshape(x, tuple(-1 if length is None else length for length in shape))

    def take(self, x: Any, indices: Any, *, axis: int = 0) -> Any:
        """Return the entries at the given positions of an axis."""
        return ndonnx.take(x, ndonnx.astype(indices, ndonnx.int64), axis=axis)

    def matmul(self, a: Any, b: Any) -> Any:
        """Return the matrix product."""
        return _node(operators.matmul, a, b)

    def max(self, x: Any, *, axis: int, keepdims: bool = False) -> Any:
        """Return the maxima along an axis."""
        return _node(operators.reduce_max, x, _axes(axis), keepdims=keepdims)

    def sum(self, x: Any, *, axis: int, keepdims: bool = False) -> Any:
        """Return sums along an axis."""
        return _node(operators.reduce_sum, x, _axes(axis), keepdims=keepdims)

    def argmax(self, x: Any, *, axis: int) -> Any:
        """Return the positions of the largest numbers along an axis."""
        return _node(operators.arg_max, x, axis=axis, keepdims=0)

    def cos(self, x: Any) -> Any:
        """Compute the cosine from the sine, because runtimes support cosine only in float32."""
        return ndonnx.sin(x + 0.5 * math.pi)

    def log1p(self, x: Any) -> Any:
        """Return ``log(1 + x)``, for which ONNX has no operator."""
        return ndonnx.log(x + 1.0)

    def expm1(self, x: Any) -> Any:
        """Return ``exp(x) - 1``, for which ONNX has no operator."""
        return ndonnx.exp(x) - 1.0


def _node(operator: Callable[..., Any], *inputs: Any, **settings: Any) -> Any:
    """Return the result of an ONNX operator."""
    return ndonnx.asarray(operator(*(array.unwrap_spox() for array in inputs), **settings))


def mean(arrays: Sequence[Any]) -> Any:
    """Return the mean of several arrays of the same shape."""
    # Runtimes support the operator Mean only in float32.
    return ndonnx.asarray(operators.sum([array.unwrap_spox() for array in arrays])) / len(arrays)


def _axes(axis: int) -> Any:
    return ndonnx.asarray([axis], dtype=ndonnx.int64)


def _dense(
    params: Dense, x: Any, arrangement: Arrangement | None = None, *, xp: Namespace
) -> tuple[Any, Any]:
    if arrangement is None:
        return _node(operators.gemm, x, params.W, params.b), None
    parts = arrangement.split(x, xp=xp)
    return arrangement.join(xp.matmul(parts, params.W), xp=xp) + params.b, None


def _layer_norm(params: Any, x: Any, *, xp: Namespace, epsilon: float = 1e-5) -> tuple[Any, Any]:
    inputs = (array.unwrap_spox() for array in (x, *params))
    y, *_ = operators.layer_normalization(*inputs, epsilon=epsilon)
    return ndonnx.asarray(y), None


def _silu(x: Any) -> Any:
    return operators.mul(x, operators.sigmoid(x))


# Activations that are ONNX operators. Runtimes support those in `_SINGLE` only in float32.
_OPERATORS: dict[str, Callable[[Any], Any]] = {
    "relu": operators.relu,
    "tanh": operators.tanh,
    "logistic": operators.sigmoid,
    "silu": _silu,
    "softmax": partial(operators.softmax, axis=-1),
}
_SINGLE: dict[str, Callable[[Any], Any]] = {
    "gelu": partial(operators.gelu, approximate="tanh"),
    "softplus": operators.softplus,
    "leaky_relu": partial(operators.leaky_relu, alpha=0.01),
    "elu": operators.elu,
    "selu": operators.selu,
    "mish": operators.mish,
}


def _operator(name: str | Activation, x: Any) -> Callable[[Any], Any] | None:
    """Return the ONNX operator of an activation, or None if there is none for the dtype of x."""
    if not isinstance(name, str):
        return None
    return (_OPERATORS | _SINGLE if x.dtype == ndonnx.float32 else _OPERATORS).get(name)


def _activate(function: str | Activation, x: Any, *, xp: Namespace) -> tuple[Any, Any]:
    operator = _operator(function, x)
    return activate(function, x, xp=xp) if operator is None else (_node(operator, x), None)


def activate_outputs(loss: Loss, logits: Any, *, xp: Namespace) -> Any:
    """Apply the loss's output activation to the outputs of a network."""
    operator = None if isinstance(loss, EachTarget | EachMember) else _operator(loss.output, logits)
    return loss.activate(logits, xp=xp) if operator is None else _node(operator, logits)


KERNELS = Kernels(dense=_dense, layer_norm=_layer_norm, activate=_activate)
