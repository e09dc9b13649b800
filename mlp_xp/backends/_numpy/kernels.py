"""NumPy's kernels: each writes a job, and falls back to its default for what no job does.

They write jobs in training only, where a pool is waiting (`thread_pool`). Elsewhere NumPy's own
products have the threads of the BLAS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.array_types import DType, Namespace, Tree
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import PixelMap, map_pixels, take_lines
from mlp_xp.backends import kernels
from mlp_xp.backends._numpy.jobs import (
    ADAM,
    LOGISTIC,
    MOMENTUM,
    RELU,
    UPDATED_ARRAY,
    ActivateArray,
    ColumnSums,
    Gather,
    Product,
    Softmax,
    Update,
    address,
)
from mlp_xp.backends._numpy.ranks import SumOverRanks
from mlp_xp.backends._numpy.sparse import TakenRows, call
from mlp_xp.backends._numpy.thread_pool import has_pool
from mlp_xp.backends._numpy.traced import Traced
from mlp_xp.backends._numpy.writing import (
    are_positions,
    constants,
    has_rows,
    is_plain,
    made_plain,
    or_plain,
    run,
)
from mlp_xp.nn import layers
from mlp_xp.nn.layers import Activation, ActivationPullback, Arrangement, Dense, DensePullback
from mlp_xp.nn.losses import Loss, SoftmaxCrossEntropy, mean_loss
from mlp_xp.optimizers import SGD, Adam, AdamW, Optimizer, Updated

__all__ = ["activate", "dense", "gather", "loss", "update_tree"]

Array: TypeAlias = Any  # NumPy's, or one that is traced

# Below, meeting the other threads costs more than they bring (bench/history).
_LEAST_PRODUCTS, _LEAST_NUMBERS = 100_000, 30_000
# Numbers of each array of an update that fit the second cache together.
_PIECE = 1 << 15


def _product(
    a: Any, b: Any, out: Any, *, ta: bool = False, tb: bool = False, bias: Any = 0
) -> None:
    m, n = out.shape
    k = a.shape[0] if ta else a.shape[1]
    # The stride along an axis of one row may be anything, which a BLAS refuses.
    lda = a.strides[0] // a.itemsize if a.shape[0] > 1 else a.shape[1]
    is_double = a.dtype == np.float64
    product = Product(is_double, ta, tb, m, n, k, a, lda, b, b.shape[1], out, n, bias)
    run(product, m * n * k >= _LEAST_PRODUCTS)


@or_plain
def dense(
    params: Dense,
    x: Array,
    arrangement: Arrangement | None = None,
    *,
    ranks: SumOverRanks | None = None,
    xp: Namespace,
) -> tuple[Array, DensePullback]:
    """Compute `mlp_xp.nn.layers.affine`; its gradient travels to the ranks from the pullback on."""
    W, b = params
    if isinstance(x, TakenRows):
        return x.affine(W, b), lambda dy, *, need_dx: (None, Dense(x.T @ dy, xp.sum(dy, axis=0)))
    is_known = (
        arrangement is None
        and has_pool()
        and is_plain(W, b)
        and has_rows(x)
        and x.dtype == W.dtype
        and W.ndim == 2
        and (x.shape[1:], b.shape) == (W.shape[:1], W.shape[1:])
    )
    if not is_known:
        return layers.affine(params, x, arrangement, xp=xp)
    shape = x.shape[0], W.shape[1]
    y = np.empty_like(x, shape=shape)
    _product(x, W, y, bias=b)

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        if dy.shape != shape:
            return layers.affine(params, x, xp=xp)[1](dy, need_dx=need_dx)
        dy = made_plain(dy, W)
        dx = None
        if need_dx:
            dx = np.empty_like(x, shape=x.shape)
            _product(dy, W, dx, tb=True)
        db: Any = np.empty_like(b)
        if ranks is None or not ranks.is_long(W):
            dW: Any = np.empty_like(W)
            _product(x, dy, dW, ta=True)
        else:
            dW = ranks.empty_like(W)
            for rows in ranks.pieces(W):
                _product(x[:, rows], dy, dW[rows], ta=True)
                ranks.start(dW, rows)
        n_rows, n_columns = shape
        sums = ColumnSums(dy.dtype == np.float64, n_rows, n_columns, dy, db)
        run(sums, dy.size >= _LEAST_NUMBERS)
        return dx, Dense(dW, db)

    return y, pullback


def _take_pixels(images: Array, lines: Array, columns: Array, *, xp: Namespace) -> Array:
    """Compute `mlp_xp.augmentation.take_pixels`: 1 ms for 512 images of CIFAR-10 instead of 22.

    NumPy takes lines fast and single numbers slowly, so columns become lines, and back.
    """
    images = take_lines(images, lines, xp=xp)
    n, n_channels, height, width = images.shape
    turned = np.empty_like(images, shape=(n, width, n_channels, height))
    np.positive(xp.permute_dims(images, (0, 3, 1, 2)), out=turned)
    # An image on its side has one channel, and lines of all channels.
    sides = xp.reshape(turned, (n, 1, width, n_channels * height))
    taken = xp.reshape(take_lines(sides, columns, xp=xp), turned.shape)
    out = np.empty_like(images, shape=images.shape)
    np.positive(xp.permute_dims(taken, (0, 2, 3, 1)), out=out)
    return out


@or_plain
def gather(
    x: Array,
    rows: Array | None,
    scaling: kernels.Scaling | None,
    pixel_map: PixelMap | None = None,
    *,
    dtype: DType,
    xp: Namespace,
) -> Array:
    """Compute `mlp_xp.backends.kernels.gather`."""
    if isinstance(x, kernels.SparseMatrix):
        return TakenRows(x, rows)
    if pixel_map is not None:
        x = x if rows is None else xp.take(x, rows, axis=0)
        x = map_pixels(x, pixel_map, take_pixels=_take_pixels, xp=xp)
        rows = None
    places = () if scaling is None else tuple(scaling)
    is_known = (
        has_pool()
        and (rows is not None or scaling is not None or x.dtype != dtype)
        and dtype in (np.float32, np.float64)
        and x.ndim == 2
        and x.dtype in (np.uint8, dtype)
        and x.flags.c_contiguous
        and x.flags.aligned
        and (rows is None or are_positions(rows, rows))
        and all(
            place.dtype == dtype and place.shape == x.shape[1:] and is_plain(place)
            for place in places
        )
    )
    if not is_known:
        return kernels.gather(x, rows, scaling, dtype=dtype, xp=xp)
    n = x.shape[0] if rows is None else rows.shape[0]
    out = np.empty_like(x, shape=(n, x.shape[1]), dtype=dtype)
    shift, scale = places or (0, 0)
    job = Gather(
        is_double=dtype == np.float64,
        n_source=x.shape[0],
        n_rows=n,
        width=x.shape[1],
        source=x,
        positions=0 if rows is None else rows,
        shift=shift,
        scale=scale,
        out=out,
        is_bytes=x.dtype == np.uint8,
    )
    run(job, out.size >= _LEAST_NUMBERS)
    return out


@or_plain
def activate(
    function: str | Activation, x: Array, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    """Compute `mlp_xp.nn.layers.activate`."""
    number = _ACTIVATIONS.get(function) if isinstance(function, str) else None
    if number is None or not (has_pool() and is_plain(x)):
        return layers.activate(function, x, xp=xp)
    y = np.empty_like(x)
    _activate(number, x, 0, y)

    def pullback(dy: Array) -> Array:
        dy = made_plain(dy if dy.shape == y.shape else np.broadcast_to(dy, y.shape), y)
        dx = np.empty_like(y)
        _activate(number, y, dy, dx)
        return dx

    return y, pullback


_ACTIVATIONS = {"relu": RELU, "logistic": LOGISTIC}


def _activate(function: int, x: Array, dy: Array | int, out: Array) -> None:
    job = ActivateArray(x.dtype == np.float64, x.size, x, dy, out, function)
    run(job, x.size >= _LEAST_NUMBERS)


@or_plain
def loss(
    loss: Loss, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
) -> tuple[Array, Callable[[], Array]]:
    """Compute what `mlp_xp.nn.losses.mean_loss` does: the cross-entropy of labels in one pass."""
    is_known = (
        type(loss) is SoftmaxCrossEntropy
        and has_pool()
        and is_plain(logits, *(() if weights is None else (weights,)))
        and logits.ndim == 2
        and logits.size > 0
        and are_positions(targets, logits)
        and (weights is None or weights.shape == targets.shape)
    )
    if not is_known:
        return mean_loss(loss, logits, targets, weights, xp=xp)
    assert isinstance(loss, SoftmaxCrossEntropy)
    value, dlogits = np.empty_like(logits, shape=()), np.empty_like(logits)
    job = Softmax(
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
    run(job, False)
    return value, lambda: dlogits


@or_plain
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
    """Compute `mlp_xp.optimizers.update_tree`, each number read and written once."""
    rows = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
    # Without opt_state (no momentum) there is nothing to fuse.
    is_known = (
        type(optimizer) in (SGD, Adam, AdamW)
        and bool(opt_state)
        and not n_leading
        and has_pool()
        and is_plain(*(array for row in rows for array in row))
        and all(array.shape == row[0].shape for row in rows for array in row)
        and not any(
            getattr(array, "find_view", None) for row in rows for array in row
        )  # They move.
        and all(array.flags.writeable for p, _, *own in rows for array in (p, *own))
        and all(
            (c.dtype, c.size) == (rows[0][0].dtype, 1)
            for c in (*coefs, l2)
            if isinstance(c, Traced)
        )
    )
    if not is_known:
        return _update_in_pieces(optimizer, params, grads, opt_state, coefs, l2, n_leading, xp=xp)
    like = rows[0][0]
    # A number of NumPy's has no address.
    rate, *shrink = (c if isinstance(c, Traced) else np.asarray(c, like.dtype) for c in coefs)
    factor: Any = 0
    penalty: Any = 0.0
    if l2 is not None:
        factor = l2 if isinstance(l2, Traced) else np.asarray(l2, like.dtype)
        penalty = np.empty_like(like, shape=())
    arrays = np.zeros(len(rows), UPDATED_ARRAY)
    for array, row in zip(arrays, rows, strict=True):
        array["size"], array["is_matrix"] = row[0].size, row[0].ndim > 1
        for name, one in zip(("param", "grad", "state_1", "state_2"), row, strict=False):
            array[name] = address(one)
    rule, numbers = _rule(optimizer)
    job = Update(
        is_double=like.dtype == np.float64,
        n_arrays=len(rows),
        arrays=arrays,
        rule=rule,
        constants=constants(numbers),
        rate=rate,
        l2=factor,
        penalty=penalty if l2 is not None else 0,
        shrink=shrink[0] if shrink else 0,
    )
    size = sum(row[0].size for row in rows)
    run(job, size >= _LEAST_NUMBERS, like)
    return Updated(params, opt_state, penalty if l2 is None else penalty[()])


def _update_in_pieces(
    optimizer: Optimizer,
    params: Tree,
    grads: Tree,
    opt_state: tuple[Tree, ...],
    coefs: tuple[Array, ...],
    l2: Array | None,
    n_leading: int,
    *,
    xp: Namespace,
) -> Updated:
    """Update what does not fit the caches in pieces that do: 2 to 3 times as fast."""
    rows = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
    is_large = any(row[0].size > _PIECE for row in rows)
    if n_leading or not is_large or type(optimizer) not in (SGD, Adam, AdamW):
        trees = params, grads, opt_state
        return optimizers.update_tree(optimizer, *trees, coefs, l2, n_leading=n_leading, xp=xp)
    penalty: Any = np.empty_like(rows[0][0], shape=())

    def update(
        rows: list[tuple[Any, ...]], coefs: tuple[Array, ...], l2: Array | None, out: Array
    ) -> None:
        out[...] = 0
        for row in rows:
            n_lines = max(1, _PIECE * row[0].shape[0] // row[0].size)
            for start in range(0, row[0].shape[0], n_lines):
                p, g, *own = (array[start : start + n_lines] for array in row)
                part = optimizers.update_tree(optimizer, p, g, tuple(own), coefs, l2, xp=xp)
                out += part.penalty

    call(update, rows, coefs, l2, penalty)
    return Updated(params, opt_state, penalty)


def _rule(optimizer: Optimizer) -> tuple[int, tuple[float, ...]]:
    """Return the number of a rule and its constants, in the order of the job."""
    if isinstance(optimizer, SGD):
        return MOMENTUM, (optimizer.momentum, float(optimizer.nesterov))
    assert isinstance(optimizer, Adam)
    beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
    return ADAM, (beta_1, 1 - beta_1, beta_2, 1 - beta_2, optimizer.epsilon)
