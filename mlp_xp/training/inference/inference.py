"""Predictions for any number of rows, in batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils._chunking import get_chunk_n_rows

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.augmentation import Augmentation, Draws, make_pixel_map, view_draws
from mlp_xp.backends import Backend, get_backend, to_numpy
from mlp_xp.backends.kernels import Kernels, Scaling, Source, Whitening
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.entries import denses
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params, forward, hidden
from mlp_xp.training.data.placement import multiplies_sparse, put_sparse
from mlp_xp.training.data.rows import Rows, kept_dtype, take_rows
from mlp_xp.training.step.inputs import in_dtype_of, of_features, rotated

Predict = Callable[..., Array]

# Batch sizes at which matrix products reach full speed. On the CPU, a smaller batch suffices and
# saves memory, except with XLA, which becomes 25 % slower.
_BATCH = 2048
_HOST_BATCH = 384
# The batch size for generated machine code, which packs the weights once per batch. This size
# saves 12 to 18 % of the time.
_LONG_BATCH = 1024
# Narrow networks use larger batches, limited to this many activations, which fit into a cache.
_HOST_NUMBERS = 1 << 17
# Sparse batches are larger than `_HOST_BATCH`, so that the weights are read less often.
_SPARSE_BATCH = 1024
# Backends that compile per shape pad the rows. Padding may always add `_ADDED_WORK` operations,
# which take less time than a call. An activation counts as `_ACTIVATION_WORK` operations. Inputs
# with more than `_COPIED_NUMBERS` elements are not padded, because padding copies them.
_ADDED_WORK, _ACTIVATION_WORK, _COPIED_NUMBERS = 1 << 20, 32, 1 << 18


def predict(
    backend: Backend,
    network: Network,
    loss: Loss | None,
    params: Params,
    x: Any,
    scaling: Scaling | Whitening | None = None,
    *,
    batch_stats: tuple[BatchStats, ...] = (),
    depth: int | None = None,
    to: Backend | None = None,
    tta: tuple[Augmentation, ...] = (),
    dtype: str,
    precision: str | None = None,
) -> Array:
    """Predict all rows: probabilities, values, or the outputs of a hidden layer.

    Each batch is copied to the device, and its result is copied back. A batch uses at most the
    memory set by ``sklearn.set_config(working_memory=...)``. Parameters, statistics and scaling may
    be arrays of any library; ``x`` may be sparse. The loss's output activation is applied; if
    ``loss`` is None, outputs are raw. If ``depth`` is given, the result is this hidden layer's
    output. The result is averaged over all combinations of the views in ``tta``, and is an array of
    the backend ``to``. A long prediction may compute its matrix products in ``precision``; see
    `Backend.predicting_in`.
    """
    function = _compiled_predict(backend, network, loss, depth, tta)
    to = to or backend
    n_samples = x.shape[0]
    most, sizes = _BATCH, network.sizes
    if backend.shares_host_memory and not backend.fixed_shapes:
        most = max(_HOST_BATCH, _HOST_NUMBERS // sum(sizes))
    stays_sparse = sparse.issparse(x) and multiplies_sparse(backend, network, scaling, tta)
    if stays_sparse:
        most, sizes = _SPARSE_BATCH, sizes[1:]
    # A layer's input, its output and a temporary array for the activation are in memory at once.
    row_bytes = 3 * max(sizes) * np.dtype(dtype).itemsize
    size = get_chunk_n_rows(row_bytes, max_n_rows=most)
    # Skip `kept_dtype` for equal dtypes, since it takes longer than a layer with one row.
    kept = dtype if x.dtype == dtype else kept_dtype(x, dtype)

    def put(leaf: Array) -> Array:
        return backend.put(leaf, dtype)

    def put_view(number: float) -> Array:
        kept = np.int64 if isinstance(number, int) else dtype
        return backend.put(np.asarray([number], kept))

    def put_rows(rows: slice) -> Any:
        if stays_sparse:
            return put_sparse(backend, x, dtype, rows)
        return backend.put(take_rows(x, rows), kept)

    def run(given: Any) -> Array:
        first, *others = (function(params, batch_stats, given, scaling, view) for view in views)
        return sum(others, first) / len(views) if others else first

    with backend.scope():
        params = map_leaves(put, params)
        batch_stats = map_leaves(put, batch_stats) if batch_stats else ()
        scaling = None if scaling is None else map_leaves(put, scaling)
        views = [map_leaves(put_view, draws) for draws in view_draws(tta)] if tta else [None]
        if n_samples <= size:
            n_rows = n_samples
            if backend.fixed_shapes and _is_on_host(x):
                n_rows = _compiled_rows(n_samples, size, network.sizes, len(views))
            if n_rows == n_samples:
                return put_writable(run(put_rows(slice(n_samples))), to)
            batch = np.zeros((n_rows, x.shape[1]), kept or x.dtype)
            batch[:n_samples] = to_numpy(take_rows(x, slice(n_samples)))
            filled: Any = backend.get(run(backend.put(batch)))
            return put_writable(filled[..., :n_samples, :], to)
        products = [math.prod(layer.W.shape) for layer in denses(params)]
        if stays_sparse:  # The first layer multiplies only the nonzero entries.
            products[0] = x.nnz * network.sizes[1] // n_samples
        work = n_samples * len(views) * sum(products)
        is_long = not stays_sparse and backend.is_long(work, 1)
        if is_long:
            size = get_chunk_n_rows(row_bytes, max_n_rows=max(_LONG_BATCH, most))
            if dtype == "float32":
                products_in = backend.predicting_in(precision)
                function = _compiled_predict(products_in, network, loss, depth, tta)
        starts = range(0, n_samples, size)

        def rows_from(start: int) -> slice:
            # A shorter last batch would need another compilation. If shapes are fixed, the last
            # batch therefore overlaps the previous batch, and the repeated rows are dropped.
            stop = min(start + size, n_samples)
            return slice(stop - size if backend.fixed_shapes else start, stop)

        def predict_from(start: int) -> Array:
            rows = rows_from(start)
            given = put_rows(rows)
            # Machine code requires contiguous rows.
            given = backend.contiguous(given) if is_long else given
            return run(given)[start - rows.start :, :]

        def fed() -> Iterator[Array]:
            host = (
                (to_numpy(take_rows(x, rows_from(start))).astype(kept or x.dtype, copy=False),)
                for start in starts
            )
            for start, (batch,) in zip(starts, backend.feed(host), strict=True):
                yield run(batch)[start - rows_from(start).start :, :]

        with backend.predicting(work):
            # Only sparse batches run in parallel, since a dense matrix product uses all threads
            # itself.
            apply = backend.map if stays_sparse else map
            travels = not (backend.shares_host_memory or stays_sparse) and _is_on_host(x)
            outputs = fed() if travels else apply(predict_from, starts)
            return _joined(backend, outputs, n_samples, to)


def _joined(backend: Backend, outputs: Iterable[Array], n_samples: int, to: Backend) -> Array:
    """Concatenate the outputs of all batches on the backend ``to``."""
    if backend.shares_host_memory or not to.shares_host_memory:
        arrays = [to.put(output) for output in outputs]
        with to.scope():
            return to.xp.concat(arrays, axis=0)
    start, result = 0, np.empty((0, 0))
    for output in backend.collect(outputs):
        if start == 0:
            result = np.empty((n_samples, output.shape[1]), output.dtype)
        result[start : start + len(output)] = output
        start += len(output)
    return to.put(result)


def _is_on_host(x: Any) -> bool:
    """Whether rows, dense or sparse, are in host memory."""
    return sparse.issparse(x) or get_backend(x.x if isinstance(x, Rows) else x).shares_host_memory


def put_writable(result: Array, to: Backend) -> Array:
    """Copy a result to a backend; if the result is a NumPy array, make it writable."""
    array: Any = to.put(result)
    # NumPy's view of a JAX array is read-only.
    is_fixed = isinstance(array, np.ndarray) and not array.flags.writeable
    return array.copy() if is_fixed else array


@lru_cache(maxsize=64)
def _compiled_rows(n_samples: int, most: int, sizes: tuple[int, ...], n_views: int) -> int:
    """Round a batch size up, to compile for few shapes only.

    The added zero rows are at most 1/16 of the batch, or take less time than the call itself.
    """
    if n_samples == 1 or n_samples * sizes[0] > _COPIED_NUMBERS:
        return n_samples
    work = n_views * sum(b * (a + _ACTIVATION_WORK) for a, b in itertools.pairwise(sizes))
    few = _ADDED_WORK // work
    step = max(few, 1 << max(n_samples.bit_length() - 5, 0))
    return min(-(-n_samples // step) * step, most)


def make_predict(
    network: Network,
    loss: Loss | None,
    kernels: Kernels,
    *,
    depth: int | None = None,
    tta: tuple[Augmentation, ...] = (),
    xp: Namespace,
) -> Predict:
    """Return a function that predicts a batch; see `predict`.

    ``predict(params, batch_stats, x, scaling, draws)`` returns (batch, outputs). If ``tta`` is
    given, ``draws`` is an element of `view_draws`, as arrays with one row for all images.
    """

    def predict(
        params: Params,
        batch_stats: tuple[BatchStats, ...],
        x: Array,
        scaling: Scaling | Whitening | None,
        draws: tuple[Draws, ...] | None = None,
    ) -> Array:
        dtype = leaves(params)[0].dtype
        pixel_map = make_pixel_map(tta, draws, xp=xp)
        x = kernels.gather(Source(x, None, of_features(scaling), pixel_map), dtype=dtype, xp=xp)
        x = rotated(x, scaling, xp=xp)
        context = Context(xp, kernels, batch_stats)
        if depth is not None:
            return in_dtype_of(params, hidden(network, params, x, context, depth), xp=xp)
        logits, _, _ = forward(network, params, x, context, xp=xp)
        logits = in_dtype_of(params, logits, xp=xp)
        return logits if loss is None else loss.activate(logits, xp=xp)

    return predict


@lru_cache(maxsize=64)
def _compiled_predict(
    backend: Backend,
    network: Network,
    loss: Loss | None,
    depth: int | None,
    tta: tuple[Augmentation, ...],
) -> Predict:
    return backend.compile(
        make_predict(network, loss, backend.kernels, depth=depth, tta=tta, xp=backend.xp)
    )
