"""Activations, dropout and normalization, each compiled to a few kernel launches.

No kernel is written here. `fused` traces the formula and the pullback in `mlp_xp.nn.layers`, and
`mlp_xp.compiler.print_cuda` prints both in CUDA C, e.g. ``mlp_xp_gelu`` and
``mlp_xp_gelu_gradient``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.backends._cupy.kernels.fusion import Differentiable, fused
from mlp_xp.nn import layers
from mlp_xp.nn.layers import Activation, ActivationPullback, BatchPart, LayerPullback, Norm

_WITH_DX, _WITHOUT_DX = {"need_dx": True}, {"need_dx": False}


def activate(
    function: str | Activation, x: Any, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    """Compute `mlp_xp.nn.layers.activate`, also for users' formulas."""
    is_named = isinstance(function, str)
    name = f"mlp_xp_{function}" if is_named else "mlp_xp_activation"

    def make() -> Differentiable:
        return Differentiable(name, partial(layers.activate, function), (x,), [{}])

    compiled = fused(None if is_named else function, ("activate", name), (x,), make)
    if compiled is None:
        return layers.activate(function, x, xp=xp)
    y, pullback, _ = compiled(x)
    return y, lambda dy: pullback(xp.astype(dy, y.dtype, copy=False))


def dropout(
    x: Any, key: Any, rate: float | Array, rows: Any = None, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    """Compute `mlp_xp.nn.layers.dropout`; the pullback recomputes the mask."""
    is_one = isinstance(rate, float)
    arguments = (x, key, None if is_one else rate, rows)

    def drop(x: Any, key: Any, of_models: Any, rows: Any, *, xp: Any) -> Any:
        return layers.dropout(x, key, rate if is_one else of_models, rows, xp=xp)

    def make() -> Differentiable:
        return Differentiable("mlp_xp_dropout", drop, arguments, [{}])

    compiled = fused(None, ("dropout", rate if is_one else None), arguments, make)
    if compiled is None:
        return layers.dropout(x, key, rate, rows, xp=xp)
    y, pullback, _ = compiled(*arguments)
    return y, pullback


def layer_norm(
    params: Norm, x: Any, *, xp: Namespace, epsilon: float = 1e-5
) -> tuple[Array, LayerPullback]:
    """Compute `mlp_xp.nn.layers.layer_norm`; the pullback keeps x, not the normalized rows."""
    function = partial(layers.layer_norm, epsilon=epsilon)
    compiled = _norm("layer_norm", function, (params, x), epsilon)
    if compiled is None:
        return layers.layer_norm(params, x, xp=xp, epsilon=epsilon)
    y, pullback, _ = compiled(params, x)
    return y, pullback


def batch_norm(
    params: Norm,
    x: Any,
    weights: Any,
    part: BatchPart | None = None,
    *,
    xp: Namespace,
    epsilon: float = 1e-5,
) -> Any:
    """Compute `mlp_xp.nn.layers.batch_norm`; the pullback keeps x, not the normalized columns."""
    function = partial(layers.batch_norm, epsilon=epsilon)
    arguments = params, x, weights
    compiled = None if part else _norm("batch_norm", function, arguments, epsilon)
    if compiled is None:
        return layers.batch_norm(params, x, weights, part, xp=xp, epsilon=epsilon)
    y, pullback, (measured,) = compiled(*arguments)
    return y, pullback, measured


def _norm(name: str, function: Callable[..., Any], arguments: Any, epsilon: float) -> Any:
    variants = [_WITH_DX, _WITHOUT_DX]
    return fused(
        None,
        (name, epsilon),
        arguments,
        lambda: Differentiable(f"mlp_xp_{name}", function, arguments, variants),
    )
