"""Prediction for any number of rows, in batches of one shape."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mlp_xp._typing import Array
from mlp_xp.backends import Backend
from mlp_xp.batches import kept_dtype
from mlp_xp.losses import Loss
from mlp_xp.network import Network, Params
from mlp_xp.step import Predict, Scaling, make_predict
from mlp_xp.tree import map_leaves

__all__ = ["predict"]

# Large enough for the products to run at full speed, small enough to stay in the caches.
_BATCH = 2048


def predict(
    backend: Backend,
    network: Network,
    loss: Loss,
    params: Params,
    x: Any,
    scaling: Scaling | None = None,
    *,
    dtype: str,
) -> Array:
    """Predict for all rows.

    Parameters
    ----------
    backend : Backend
    network, loss : frozen settings
        The loss gives the output activation.
    params : tuple of Dense, arrays of any library
    x : (samples, features) array of the backend's library, or of NumPy
        Rows travel to the device batch by batch.
    scaling : Scaling, arrays of any library, optional
    dtype : {"float32", "float64"}
        Of the computation.

    Returns
    -------
    (samples, outputs) array on the device
        Probabilities, or values.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.backends import get_backend
    >>> from mlp_xp.inference import predict
    >>> from mlp_xp.losses import SoftmaxCrossEntropy
    >>> from mlp_xp.network import Network, init_params
    >>> network, backend = Network((4, 3, 2)), get_backend("numpy")
    >>> params, x = init_params(network, seed=0), np.ones((5, 4))
    >>> predict(backend, network, SoftmaxCrossEntropy(), params, x, dtype="float64").shape
    (5, 2)
    """
    function = _compiled_predict(backend, network, loss)
    n_samples = x.shape[0]
    outputs = []
    with backend.scope():
        params, scaling = map_leaves(
            lambda leaf: None if leaf is None else backend.put(leaf, dtype), (params, scaling)
        )
        for start in range(0, n_samples, _BATCH):
            # A last short batch would cost a compilation of its own where shapes are fixed: it goes
            # back far enough to be a full one, and what was already predicted is dropped.
            stop = min(start + _BATCH, n_samples)
            overlap = start + _BATCH - stop if backend.fixed_shapes and start else 0
            block = x[start - overlap : stop, :]
            block = backend.put(block, kept_dtype(block, dtype))
            outputs.append(function(params, block, None, scaling)[overlap:, :])
        return outputs[0] if len(outputs) == 1 else backend.xp.concat(outputs, axis=0)


@lru_cache(maxsize=64)
def _compiled_predict(backend: Backend, network: Network, loss: Loss) -> Predict:
    return backend.compile(make_predict(network, loss, backend.kernels, xp=backend.xp))
