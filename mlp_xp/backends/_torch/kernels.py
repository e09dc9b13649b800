"""Kernels for PyTorch: matrix products that write to existing memory, and torch's fused updates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from mlp_xp import optimizers
from mlp_xp._utils.array_types import DType, Namespace, Tree
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import map_pixels, take_lines
from mlp_xp.backends import kernels
from mlp_xp.backends._torch.buffers import cast, empty
from mlp_xp.backends.kernels import Source
from mlp_xp.nn import layers
from mlp_xp.nn.layers import Arrangement, Dense
from mlp_xp.optimizers import SGD, Adam, AdamW, Optimizer, Updated

_aten = torch.ops.aten
_FLOATS = (torch.float32, torch.float64)
# With fewer outputs than this, computing the transpose of dW is faster than computing dW on a CPU:
# ten times as fast with 10 outputs and 1,024 rows.
_NARROW = 32


def dense(
    params: Dense, x: Any, arrangement: Arrangement | None = None, *, xp: Namespace
) -> tuple[Any, Callable[..., Any]]:
    """Compute `mlp_xp.nn.layers.affine`; the matrix product adds the bias."""
    if x.ndim > 2 or params.b.ndim > 1:
        return layers.affine(params, x, arrangement, xp=xp)
    if arrangement is not None:
        return _block_dense(params, x, arrangement, xp=xp)
    owner: Any
    b: Any
    owner, b = params
    dtype = x.dtype
    W, b = cast(owner, "W", owner, dtype), b.to(dtype)
    y = torch.addmm(b, x, W, out=empty(owner, "y", (x.shape[0], W.shape[1]), dtype))

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
        dy = cast(owner, "dy", dy, dtype)
        dx = torch.mm(dy, W.T, out=empty(owner, "dx", tuple(x.shape), dtype)) if need_dx else None
        dW = empty(owner, "dW", tuple(W.shape), dtype)
        if W.shape[1] < _NARROW:
            dW.copy_(torch.mm(dy.T, x).T)
        else:
            torch.mm(x.T, dy, out=dW)
        return dx, Dense(dW, torch.sum(dy, 0))

    return y, pullback


def sum_rows_of_table(lines: Any, positions: Any, n_rows: int, *, xp: Namespace) -> Any:
    return _aten.embedding_dense_backward(lines, positions, n_rows, -1, False)


def _block_dense(
    params: Dense, x: Any, arrangement: Arrangement, *, xp: Namespace
) -> tuple[Any, Callable[..., Any]]:
    """Compute `layers.block_dense` with the samples as the last axis in memory.

    Reordering features then copies long contiguous runs, in a tenth of the time, and activations
    and sums between such layers keep this memory order.
    """
    owner: Any
    b: Any
    owner, b = params
    dtype = x.dtype
    W = cast(owner, "W", owner, dtype)
    outputs = arrangement.outputs
    parts = _split(x, arrangement)
    y = _join(torch.bmm(W.mT, parts), outputs)
    y += b.to(dtype)

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
        dy = dy.to(dtype)
        dparts = _split(dy, outputs)
        dx = _join(torch.bmm(W, dparts), arrangement) if need_dx else None
        return dx, Dense(torch.bmm(parts, dparts.mT), torch.sum(dy, 0))

    return y, pullback


def _split(x: Any, arrangement: Arrangement) -> Any:
    """Split rows, (batch, features), into contiguous blocks, (blocks, fan_in, batch)."""
    shape, mixed, _ = arrangement
    features = x.T.contiguous().view(*shape, -1)
    parts = features.permute(*arrangement.kept, *mixed, len(shape))
    return parts.reshape(arrangement.blocks, arrangement.fan_in, -1)


def _join(parts: Any, arrangement: Arrangement) -> Any:
    """Undo `_split`; the samples remain the last axis in memory."""
    shape, mixed, _ = arrangement
    order = (*arrangement.kept, *mixed)
    features = parts.view(*(shape[axis] for axis in order), -1)
    features = features.permute(*(order.index(axis) for axis in range(len(shape))), len(shape))
    return features.reshape(math.prod(shape), -1).T


def _gelu_form(x: Any) -> str:
    """Return torch's GELU variant: "tanh" as in our formula, or for bfloat16 "none" (erf).

    On a CPU, torch computes the error function in a quarter of the time. The results differ by at
    most 5e-4, which is less than bfloat16 resolves near 1.
    """
    return "none" if x.dtype == torch.bfloat16 else "tanh"


# The forward and backward functions of each activation; each takes one pass over memory.
_ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "logistic": (torch.sigmoid, lambda dy, x, y: _aten.sigmoid_backward(dy, y)),
    "tanh": (torch.tanh, lambda dy, x, y: _aten.tanh_backward(dy, y)),
    "relu": (torch.relu, lambda dy, x, y: _aten.threshold_backward(dy, y, 0)),
    "gelu": (
        lambda x: _aten.gelu(x, approximate=_gelu_form(x)),
        lambda dy, x, y: _aten.gelu_backward(dy, x, approximate=_gelu_form(x)),
    ),
    "silu": (torch.nn.functional.silu, lambda dy, x, y: _aten.silu_backward(dy, x)),
}


def activate(
    function: str | layers.Activation, x: Any, *, xp: Namespace
) -> tuple[Any, layers.ActivationPullback]:
    """Compute `mlp_xp.nn.layers.activate` with torch's kernels."""
    fused = _ACTIVATIONS.get(function) if isinstance(function, str) else None
    if fused is None:
        return layers.activate(function, x, xp=xp)
    forward, backward = fused
    y = forward(x)
    return y, lambda dy: backward(dy, x, y)


def gather(source: Source, *, dtype: DType, xp: Namespace) -> Any:
    """Compute `mlp_xp.backends.kernels.gather` with the same operations, in reused memory."""
    x, rows, scaling, pixel_map = source
    is_copied = rows is not None or pixel_map is not None
    if dtype not in _FLOATS or x.ndim != 2 or not (is_copied or scaling is not None):
        return kernels.gather(source, dtype=dtype, xp=xp)
    owner = x if scaling is None else scaling.shift
    if rows is not None:
        taken = empty(owner, "rows", (rows.shape[0], x.shape[1]), x.dtype)
        x = torch.index_select(x, 0, rows, out=taken)
    if pixel_map is not None:
        x = map_pixels(x, pixel_map, take_pixels=functools.partial(_take_pixels, owner), xp=xp)
    if scaling is None:
        return cast(owner, "x", x, dtype)
    if not is_copied or x.dtype != dtype:  # Gathered rows are a copy, and may be overwritten.
        x = empty(owner, "x", tuple(x.shape), dtype).copy_(x)
    return x.sub_(scaling.shift).mul_(scaling.scale)


def _take_pixels(owner: Any, images: Any, lines: Any, columns: Any, *, xp: Namespace) -> Any:
    """Compute `mlp_xp.augmentation.take_pixels` in 1 ms for 512 CIFAR-10 images, not 15 ms.

    The indices are broadcast without a copy. The output memory is reused, because allocating it
    would take longer than the rest.
    """
    images = take_lines(images, lines, xp=xp)
    places = columns[:, None, None, :].expand(images.shape)
    out = empty(owner, "images", tuple(images.shape), images.dtype)
    return torch.gather(images, 3, places, out=out)


# --- the update ----------------------------------------------------------------------------------

_FUSED = (SGD, Adam, AdamW)


@functools.cache
def _forever(device: torch.device) -> torch.Tensor:
    """Return an infinite step number, which makes torch's bias corrections 1.

    `Optimizer.coefficients` includes both corrections in the learning rate.
    """
    return torch.full((), math.inf, device=device)


def update_tree(
    optimizer: Optimizer,
    params: Tree,
    grads: Tree,
    opt_state: tuple[Tree, ...],
    coefs: tuple[Any, ...],
    l2: Any = None,
    *,
    n_leading: int = 0,
    xp: Namespace,
) -> Updated:
    """Compute `mlp_xp.optimizers.update_tree` with one fused call for all arrays."""
    if n_leading:
        return optimizers.update_tree(
            optimizer, params, grads, opt_state, coefs, l2, n_leading=n_leading, xp=xp
        )
    trees = [leaves(tree) for tree in (params, grads, *opt_state)]
    if type(optimizer) in _FUSED:
        trees[1] = [cast(p, "g", g, p.dtype) for p, g in zip(*trees[:2], strict=True)]
    if not _accepts(optimizer, trees):
        return optimizers.update_tree(optimizer, params, grads, opt_state, coefs, l2, xp=xp)
    ps, gs, *_ = trees
    matrices = [i for i, kind in enumerate(optimizers.kinds(params)) if kind != "vector"]
    penalty: Any = 0.0
    if l2 is not None and matrices:
        flat = [ps[i].reshape(-1) for i in matrices]
        penalty = 0.5 * l2 * sum(torch.dot(p, p) for p in flat)
        for i in matrices:
            gs[i].addcmul_(ps[i], l2)
    rate, *shrink = coefs
    if isinstance(optimizer, SGD):
        _sgd(optimizer, trees, rate)
    elif isinstance(optimizer, Adam):
        if isinstance(optimizer, AdamW) and matrices:
            torch._foreach_mul_([ps[i] for i in matrices], shrink[0])
        _adam(optimizer, trees, rate)
    return Updated(params, opt_state, penalty)


def _accepts(optimizer: Optimizer, trees: list[list[Any]]) -> bool:
    """Whether torch's fused update supports these arrays; torch itself does not check strides."""
    kind = type(optimizer)
    if kind not in _FUSED or len(trees) < 3:
        return False
    first = trees[0][0]
    # In `_sgd`, torch rounds the learning rate to float32.
    dtypes = _FLOATS[:1] if kind is SGD else _FLOATS
    return (
        first.device.type in ("cpu", "cuda")
        and first.dtype in dtypes
        and all(
            a.dtype == first.dtype and a.device == first.device and a.is_contiguous()
            for tree in trees
            for a in tree
        )
    )


def _adam(optimizer: Adam, trees: list[list[Any]], rate: Any) -> None:
    params = trees[0]
    steps = [_forever(params[0].device)] * len(params)
    betas = {"beta1": optimizer.beta_1, "beta2": optimizer.beta_2, "eps": optimizer.epsilon}
    unused = {"weight_decay": 0.0, "amsgrad": False, "maximize": False}
    torch._fused_adam_(*trees, [], steps, lr=rate, **betas, **unused)


def _sgd(optimizer: SGD, trees: list[list[Any]], rate: Any) -> None:
    r"""Call torch's update with :math:`-\eta g` as the gradient and -1 as the learning rate.

    In torch, the velocity is a sum of gradients; here, it already includes the learning rate.
    """
    rates = {"lr": -1.0, "grad_scale": -1.0 / rate}
    momentum = {"momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
    unused = {"weight_decay": 0.0, "dampening": 0.0, "maximize": False, "is_first_step": False}
    torch._fused_sgd_(*trees, **rates, **momentum, **unused)
