"""NumPy kernels for the forward and backward passes: dense layers, data, activations, loss.

The kernels use machine code only in a `thread_pool` context. Otherwise they use NumPy, and the
BLAS's threads for matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mlp_xp._utils.array_types import DType, Namespace
from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import map_pixels, take_lines
from mlp_xp.backends import kernels
from mlp_xp.backends._numpy.kernels.writing import (
    are_contiguous,
    are_positions,
    constants,
    contiguous_like,
    has_rows,
    run,
    with_fallback,
)
from mlp_xp.backends._numpy.runtime.thread_pool import has_pool
from mlp_xp.backends._numpy.tracing.traced import Traced
from mlp_xp.nn import layers
from mlp_xp.nn.layers import ActivationPullback, Arrangement, Dense, LayerPullback
from mlp_xp.nn.losses import Loss, SoftmaxCrossEntropy, mean_loss

Array: TypeAlias = Any  # A NumPy array or a traced array.


def weight_gradient(x: Array, dy: Array, W: Array, multiply: Callable[..., None]) -> Array:
    """Return the gradient of a dense layer's weights, ``x.T @ dy``."""
    dW = np.empty_like(W)
    multiply(x, dy, dW, ta=True)
    return dW


@with_fallback
def dense(
    params: Dense,
    x: Array,
    arrangement: Arrangement | None = None,
    *,
    weight_gradient: Callable[[Array, Array, Array, Any], Array] = weight_gradient,
    in_bfloat16: bool = False,
    xp: Namespace,
) -> tuple[Array, LayerPullback]:
    """Compute `mlp_xp.nn.layers.affine`, possibly in bfloat16 or for rows of a sparse matrix."""
    W, b = params
    affine = layers.affine
    if in_bfloat16:
        from mlp_xp.backends._numpy.kernels.bfloat16 import affine_in_bfloat16 as affine
    if hasattr(x, "affine"):  # x is a sparse matrix.
        return x.affine(W, b), lambda dy, *, need_dx: (None, Dense(x.T @ dy, xp.sum(dy, axis=0)))
    is_known = (
        arrangement is None
        and has_pool()
        and are_contiguous(W, b)
        and has_rows(x)
        and x.dtype == W.dtype
        and W.ndim == 2
        and (x.shape[1:], b.shape) == (W.shape[:1], W.shape[1:])
        and not (in_bfloat16 and W.dtype == np.float64)
    )
    if not is_known:
        return affine(params, x, arrangement, xp=xp)
    from mlp_xp.backends._numpy.kernels import products  # Avoid this import in short fits.
    from mlp_xp.backends._numpy.runtime.tasks import ColumnSums
    from mlp_xp.backends._numpy.runtime.tuning import LEAST_NUMBERS

    ahead: products.Ahead = {}
    multiply = partial(products.multiply, in_pairs=in_bfloat16, ahead=ahead)
    shape = x.shape[0], W.shape[1]
    y = np.empty_like(x, shape=shape)
    if in_bfloat16 and isinstance(x, Traced):  # The pullback uses packed x, too.
        products.pack_ahead(ahead, x, is_left=True)
    multiply(x, W, y, bias=b)

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        if dy.shape != shape:
            return affine(params, x, xp=xp)[1](dy, need_dx=need_dx)
        dy = contiguous_like(dy, W)
        dx = None
        if need_dx:
            dx = np.empty_like(x, shape=x.shape)
            if in_bfloat16:
                products.pack_ahead(ahead, dy, is_left=False)
            multiply(dy, W, dx, tb=True)
        db: Any = np.empty_like(b)
        dW = weight_gradient(x, dy, W, multiply)
        n_rows, n_columns = shape
        sums = ColumnSums(dy.dtype == np.float64, n_rows, n_columns, dy, db)
        run(sums, dy.size >= LEAST_NUMBERS)
        return dx, Dense(dW, db)

    return y, pullback


dense_in_bfloat16 = partial(dense, in_bfloat16=True)


def _take_pixels(images: Array, lines: Array, columns: Array, *, xp: Namespace) -> Array:
    """Compute `mlp_xp.augmentation.take_pixels` in 1 ms for 512 CIFAR-10 images, not 22 ms.

    NumPy copies whole rows much faster than single elements, so the images are transposed, their
    columns are copied as rows, and the result is transposed back.
    """
    images = take_lines(images, lines, xp=xp)
    n, n_channels, height, width = images.shape
    turned = np.empty_like(images, shape=(n, width, n_channels, height))
    np.positive(xp.permute_dims(images, (0, 3, 1, 2)), out=turned)
    # The transpose is a single image of all channels, in which each row is a column of the original
    # images.
    sides = xp.reshape(turned, (n, 1, width, n_channels * height))
    taken = xp.reshape(take_lines(sides, columns, xp=xp), turned.shape)
    out = np.empty_like(images, shape=images.shape)
    np.positive(xp.permute_dims(taken, (0, 2, 3, 1)), out=out)
    return out


@with_fallback
def gather(source: kernels.Source, *, dtype: DType, xp: Namespace) -> Array:
    """Compute `mlp_xp.backends.kernels.gather`."""
    x, rows, scaling, pixel_map = source
    if isinstance(x, kernels.SparseMatrix):
        from mlp_xp.backends._numpy.kernels.sparse import TakenRows  # Only for sparse data.

        return TakenRows(x, rows)
    x = x if rows is None else xp.take(x, rows, axis=0)
    if pixel_map is not None:
        x = map_pixels(x, pixel_map, take_pixels=_take_pixels, xp=xp)
    source = kernels.Source(x, None, scaling)
    changes = scaling is not None or x.dtype != dtype
    if has_pool() and changes and x.size and x.flags.c_contiguous and x.flags.aligned:
        from mlp_xp.backends._numpy.kernels.formulas import gather_loop, is_large, layout

        given = map_leaves(lambda array: None if array is None else layout(array), source)
        loop = gather_loop(given, np.dtype(dtype).name)
        if loop is not None and (scaling is None or are_contiguous(*scaling)):
            out = np.empty_like(x, dtype=dtype)
            loop.run([x, *(scaling or ())], [out], is_shared=is_large(x))
            return out
    return kernels.gather(source, dtype=dtype, xp=xp)


@with_fallback
def activate(function: Any, x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    """Compute `mlp_xp.nn.layers.activate` with a loop compiled from its formula."""
    if not (has_pool() and are_contiguous(x)):
        return layers.activate(function, x, xp=xp)
    from mlp_xp.backends._numpy.kernels.formulas import activation_loops, is_large

    loops = activation_loops(function, x.shape, x.dtype.name)
    if loops is None:
        return layers.activate(function, x, xp=xp)
    y = np.empty_like(x)
    loops.forward.run([x], [y], is_shared=is_large(x))

    def pullback(dy: Array) -> Array:
        dy = contiguous_like(dy if dy.shape == y.shape else np.broadcast_to(dy, y.shape), y)
        dx = np.empty_like(y)
        loops.backward.run([y if loops.reads_output else x, dy], [dx], is_shared=is_large(x))
        return dx

    return y, pullback


@with_fallback
def loss(
    loss: Loss, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
) -> tuple[Array, Callable[[], Array]]:
    """Compute `mlp_xp.nn.losses.mean_loss`, with one kernel call for softmax cross-entropy."""
    is_known = (
        type(loss) is SoftmaxCrossEntropy
        and has_pool()
        and are_contiguous(logits, *(() if weights is None else (weights,)))
        and logits.ndim == 2
        and logits.size > 0
        and are_positions(targets, logits)
        and (weights is None or weights.shape == targets.shape)
    )
    if not is_known:
        return mean_loss(loss, logits, targets, weights, xp=xp)
    from mlp_xp.backends._numpy.runtime.tasks import Softmax

    assert isinstance(loss, SoftmaxCrossEntropy)
    value, dlogits = np.empty_like(logits, shape=()), np.empty_like(logits)
    task = Softmax(
        is_double=logits.dtype == np.float64,
        n=logits.shape[0],
        k=logits.shape[1],
        logits=logits,
        labels=targets,
        weights=0 if weights is None else weights,
        smoothing=constants((loss.label_smoothing,)),
        value=value,
        dlogits=dlogits,
    )
    run(task, False)
    return value, lambda: dlogits
