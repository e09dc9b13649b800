"""CuPy's kernels: one launch each, since a launch costs more than the work of a small network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import cupy
import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.array_types import Array, DType, Namespace, Tree
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import PixelMap
from mlp_xp.backends import kernels
from mlp_xp.backends._cupy.rendering import kernel
from mlp_xp.backends.kernels import Scaling, SparseMatrix
from mlp_xp.optimizers import SGD, Adam, AdamW, Optimizer, Updated

__all__ = ["gather", "update_tree"]


@kernel()
def _gather_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "raw X x, I row, F shift, F scale, int64 width",
        "F out",
        "out = (F(x[(long long)row * width + i % width]) - shift) * scale;",
        "mlp_xp_gather",
    )


def gather(
    x: Any,
    rows: Any,
    scaling: Scaling | None,
    pixel_map: PixelMap | None = None,
    *,
    dtype: DType,
    xp: Namespace,
) -> Array:
    """Compute `kernels.gather` in one launch, where images are not augmented."""
    if isinstance(x, SparseMatrix):
        return cast(Array, _TakenRows(x, rows))
    if rows is None or pixel_map is not None or not x.flags.c_contiguous:
        return kernels.gather(x, rows, scaling, pixel_map, dtype=dtype, xp=xp)
    out = cupy.empty((rows.shape[0], x.shape[1]), dtype=dtype)
    number = out.dtype.type
    shift, scale = (number(0), number(1)) if scaling is None else scaling
    _gather_kernel()(x, rows[:, None], shift, scale, x.shape[1], out)
    return out


class _TakenRows:
    """Rows of a sparse matrix, or all of them, as the left factor of a product."""

    ndim = 2

    def __init__(self, x: SparseMatrix, rows: Any) -> None:
        self.dtype = x.data.dtype
        self._x = x
        self._rows = rows

    def __matmul__(self, W: Any) -> Any:
        from cupyx.scipy.sparse import csr_matrix

        data, indices, indptr = self._x
        shape = indptr.shape[0] - 1, W.shape[0]
        matrix = csr_matrix((data, indices, indptr), shape=shape)
        self._matrix = matrix if self._rows is None else matrix[self._rows]
        return self._matrix @ W

    @property
    def T(self) -> Any:
        return self._matrix.T


# --- the update ----------------------------------------------------------------------------------


@kernel((SGD,), (Adam,))
def _update_kernel(kind: type[Optimizer]) -> Any:
    """Return the kernel of a rule: it writes p and the optimizer state, penalty included."""
    if kind is SGD:
        return cupy.ElementwiseKernel(
            "T g, T rate, T momentum, bool nesterov, T l2",
            "T p, T v",
            """
            T move = rate * (g + l2 * p);
            v = momentum * v - move;
            p += nesterov ? momentum * v - move : v;
            """,
            "mlp_xp_sgd",
        )
    return cupy.ElementwiseKernel(
        "T g, T rate, T shrink, T beta_1, T rest_1, T beta_2, T rest_2, T epsilon, T l2",
        "T p, T m, T v",
        """
        T slope = g + l2 * p;
        m = beta_1 * m + rest_1 * slope;
        v = beta_2 * v + rest_2 * (slope * slope);
        p = shrink * p - rate * m / (sqrt(v) + epsilon);
        """,
        "mlp_xp_adam",
    )


def update_tree(
    optimizer: Optimizer,
    params: Tree,
    grads: Tree,
    opt_state: tuple[Tree, ...],
    coefs: tuple[Array, ...],
    l2: Array | None = None,
    *,
    n_leading: int = 0,
    xp: Namespace,
) -> Updated:
    """Compute `mlp_xp.optimizers.update_tree` in one launch per array."""
    # Without opt_state (no momentum) there is nothing to fuse.
    is_known = (
        type(optimizer) in (SGD, Adam, AdamW)
        and not n_leading
        and bool(opt_state)
        and all(
            leaf.dtype in (np.float32, np.float64) for leaf in leaves((params, grads, opt_state))
        )
    )
    if not is_known:
        return optimizers.update_tree(
            optimizer, params, grads, opt_state, coefs, l2, n_leading=n_leading, xp=xp
        )
    update = _update_kernel(SGD if isinstance(optimizer, SGD) else Adam)
    penalty: Any = 0.0
    for p, g, *states in zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True):
        number = p.dtype.type
        is_matrix = p.ndim > 1
        factor: Any = number(0)
        if l2 is not None and is_matrix:
            factor = l2
            penalty = penalty + number(0.5) * factor * cupy.vdot(p, p)
        update(g, *_scalars(optimizer, coefs, is_matrix, number), factor, p, *states)
    return Updated(params, opt_state, penalty)


def _scalars(
    optimizer: Any, coefs: tuple[Array, ...], is_matrix: bool, number: Callable[[float], Any]
) -> tuple[Any, ...]:
    """Return the numbers of a loop, in the dtype of the arrays: a float64 would widen them all."""
    rate, *shrink = coefs
    if isinstance(optimizer, SGD):
        return rate, number(optimizer.momentum), optimizer.nesterov
    return (
        rate,
        shrink[0] if isinstance(optimizer, AdamW) and is_matrix else number(1),
        number(optimizer.beta_1),
        number(1 - optimizer.beta_1),
        number(optimizer.beta_2),
        number(1 - optimizer.beta_2),
        number(optimizer.epsilon),
    )
