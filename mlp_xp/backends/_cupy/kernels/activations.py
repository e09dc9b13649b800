"""Activations and dropout: one launch forward and one backward, for arrays with any strides."""

from __future__ import annotations

from typing import Any

import cupy

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.backends._cupy.kernels.rendering import FLOATS, SIGMOID, kernel
from mlp_xp.nn import layers
from mlp_xp.nn.layers import Activation, ActivationPullback
from mlp_xp.nn.layers._dropout import LOWBIAS32, SPREAD, threshold

# C code for the output y and the derivative d. Comparisons propagate NaN, unlike `max`. dy is
# multiplied by d even if d is 0, so NaN in dy propagates as well.
_SQUARE = (
    "T square = x * x; T t = tanh(x * (square * T(0.0356774081363001) + T(0.797884560802865)));"
)
_SOURCES: dict[str, tuple[str, str]] = {
    "logistic": ("y = sigmoid(x)", "T d = (T(1) - y) * y"),
    "tanh": ("y = tanh(x)", "T d = T(1) - y * y"),
    "relu": ("y = x < T(0) ? T(0) : x", "T d = y > T(0)"),
    "gelu": (
        f"{_SQUARE} y = T(0.5) * x * (t + T(1))",
        f"{_SQUARE} T slope = (square * T(0.1070322244089) + T(0.797884560802865)) * x;"
        "T d = T(0.5) * (slope * (T(1) - t * t) + t + T(1))",
    ),
    "silu": ("y = x * sigmoid(x)", "T s = sigmoid(x); T d = s + x * s * (T(1) - s)"),
    "softplus": ("y = log1p(exp(x < T(0) ? x : -x)) + (x < T(0) ? T(0) : x)", "T d = -expm1(-y)"),
    "leaky_relu": ("y = x < T(0) ? x * T(0.01) : x", "T d = y > T(0) ? T(1) : T(0.01)"),
    "elu": (
        "y = expm1(x > T(0) ? T(0) : x) + (x < T(0) ? T(0) : x)",
        "T d = (y > T(0) ? T(0) : y) + T(1)",
    ),
}
# The derivatives of these activations need the input. The derivatives of all other activations use
# the output, which is kept anyway.
_OF_INPUT = ("gelu", "silu")


@kernel(*((name,) for name in _SOURCES))
def _forward_kernel(name: str) -> Any:
    return cupy.ElementwiseKernel(
        "T x", "T y", f"{_SOURCES[name][0]};", f"mlp_xp_{name}", preamble=SIGMOID
    )


@kernel(*((name,) for name in _SOURCES))
def _backward_kernel(name: str) -> Any:
    kept = "x" if name in _OF_INPUT else "y"
    return cupy.ElementwiseKernel(
        f"T {kept}, T dy",
        "T dx",
        f"{_SOURCES[name][1]}; dx = d * dy;",
        f"mlp_xp_{name}_gradient",
        preamble=SIGMOID,
    )


def activate(
    function: str | Activation, x: Any, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    """Compute `mlp_xp.nn.layers.activate`."""
    is_known = isinstance(function, str) and function in _SOURCES and x.dtype.str in FLOATS
    if not is_known:
        return layers.activate(function, x, xp=xp)
    name = str(function)
    y = _forward_kernel(name)(x)
    kept = x if name in _OF_INPUT else y
    return y, lambda dy: _backward_kernel(name)(kept, xp.astype(dy, y.dtype, copy=False))


@kernel()
def _dropout_kernel() -> Any:
    # The hash function of `nn.layers.dropout`; unsigned integer multiplication wraps around.
    mixing = "\n".join(
        f"bits ^= bits >> {shift}; bits *= {factor % 2**32}u;" for shift, factor in LOWBIAS32
    )
    return cupy.ElementwiseKernel(
        "T x, raw int32 key, int32 least, T factor",
        "T y",
        f"""
        unsigned int bits = (unsigned int)i * {SPREAD % 2**32}u;
        bits ^= (unsigned int)key[0];
        {mixing}
        y = x * ((int)bits >= least ? factor : T(0));
        """,
        "mlp_xp_dropout",
    )


def dropout(
    x: Any, key: Any, rate: float | Array, rows: Any = None, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    """Compute `mlp_xp.nn.layers.dropout`; the pullback recomputes the mask."""
    is_plain = rows is None and key.ndim == 0 and x.ndim == 2 and x.dtype.str in FLOATS
    if not (is_plain and isinstance(rate, float)):  # A stack has one rate per model.
        return layers.dropout(x, key, rate, rows, xp=xp)
    least, factor = threshold(rate), 1.0 / (1.0 - rate)

    def masked(array: Any) -> Any:
        if array.dtype != x.dtype:
            return layers.dropout(x, key, rate, xp=xp)[1](array)
        return _dropout_kernel()(array, key, least, factor)

    return masked(x), masked
