"""The gradient of the loss with respect to the inputs, in batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.utils._chunking import get_chunk_n_rows

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Kernels, Scaling, Whitening
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params
from mlp_xp.training.data.rows import take_rows
from mlp_xp.training.inference.inference import put_writable
from mlp_xp.training.step.inputs import Batch, in_dtype_of
from mlp_xp.training.step.value_and_gradient import value_and_gradient

_BATCH = 2048


def input_gradient(
    backend: Backend,
    network: Network,
    loss: Loss,
    weights: tuple[Params, tuple[BatchStats, ...], Scaling | Whitening | None],
    x: Any,
    targets: np.ndarray,
    *,
    to: Backend,
    dtype: str,
) -> Array:
    """Return the gradient of each sample's loss with respect to its features, (samples, features).

    ``weights`` are the parameters, batch statistics and input scaling, as arrays of the backend;
    ``targets`` are encoded for the loss.
    """
    function = _compiled(backend, network, loss)
    # Memory per row: the inputs and outputs of all layers are kept until the backward pass.
    n_bytes = 4 * sum(network.sizes) * np.dtype(dtype).itemsize
    size = get_chunk_n_rows(n_bytes, max_n_rows=_BATCH)
    found = []
    with backend.scope():
        for start in range(0, x.shape[0], size):
            rows = slice(start, min(start + size, x.shape[0]))
            y = backend.put(targets[rows], dtype if targets.dtype.kind == "f" else None)
            batch = backend.put(take_rows(x, rows), dtype)
            found.append(put_writable(function(*weights, batch, y), to))
    with to.scope():
        return found[0] if len(found) == 1 else to.xp.concat(found, axis=0)


def make_input_gradient(
    network: Network, loss: Loss, kernels: Kernels, *, xp: Namespace
) -> Callable[..., Array]:
    r"""Return a function that computes the input gradient of a batch.

    ``gradient(params, batch_stats, scaling, x, targets)`` returns (batch, features). For scaled
    inputs :math:`z = (x - \mu)\,\sigma^{-1} R`, where R is the rotation of a whitening or the
    identity, the gradient is :math:`\bar x = \bar z R^T \sigma^{-1}`.
    """
    evaluate = value_and_gradient(network, loss, kernels, xp=xp)

    def gradient(
        params: Params,
        batch_stats: tuple[BatchStats, ...],
        scaling: Scaling | Whitening | None,
        x: Array,
        targets: Array,
    ) -> Array:
        found = evaluate(params, Batch(x, targets), scaling, batch_stats, is_training=False)
        # Undo the average over the batch, since each sample needs the gradient of its loss alone.
        factor = loss.reported(float(x.shape[0]), found.logits.shape[-1])
        dx, _ = found.pullback(found.pull_loss() * factor, need_dx=True)
        assert dx is not None
        dx = in_dtype_of(params, dx, xp=xp)
        if isinstance(scaling, Whitening):
            dx = xp.matmul(dx, xp.matrix_transpose(scaling.rotation))
        return dx if scaling is None else dx * scaling.scale

    return gradient


@lru_cache(maxsize=64)
def _compiled(backend: Backend, network: Network, loss: Loss) -> Callable[..., Array]:
    return backend.compile(make_input_gradient(network, loss, backend.kernels, xp=backend.xp))
