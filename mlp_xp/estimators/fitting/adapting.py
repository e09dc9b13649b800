"""Initial weights that depend on the data."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from mlp_xp.backends import get_backend, to_numpy
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn.entries import entries
from mlp_xp.nn.layers import Embedding
from mlp_xp.nn.network import Network, Params, adapt_params
from mlp_xp.training.data.rows import Shard, take_rows
from mlp_xp.training.processes import SingleProcess

__all__ = ["adapt_to_data", "clear_embeddings"]

_MOST_ROWS = 4096


def adapt_to_data(
    network: Network,
    params: Params,
    X: Any,
    scaling: Scaling | Whitening | None,
    generator: np.random.RandomState,
    processes: SingleProcess,
) -> Params:
    """Return initial weights adapted to some of the samples."""
    if isinstance(X, Shard):
        x = np.concatenate(processes.exchange(_some_rows(X.mine, _MOST_ROWS // processes.size)))
    else:
        x = _some_rows(X, _MOST_ROWS)
    if scaling is not None:
        shift, scale, *rotation = (to_numpy(leaf).astype(np.float64) for leaf in scaling)
        x = (x - shift) * scale
        x = x @ rotation[0] if rotation else x
    # Processors round differently, so all processes take the weights of the first.
    adapt: Any = partial(adapt_params, xp=get_backend("numpy").xp)
    adapted: Params = processes.first_of(partial(adapt, network, params, x, generator.uniform))
    return adapted


def clear_embeddings(params: Params, codes: list[int]) -> None:
    """Set the embeddings of some codes to 0, the mean of all embeddings, in place.

    No sample of the training data has these codes, so their embeddings are not trained.
    """
    for entry in entries(params):
        if isinstance(entry, Embedding):
            table: Any = entry.table
            table[..., codes, :] = 0.0


def _some_rows(X: Any, most: int) -> np.ndarray:
    """Return rows from all over the samples, in float64."""
    rows = np.linspace(0, X.shape[0] - 1, min(X.shape[0], most)).astype(np.int64)
    return to_numpy(take_rows(X, rows)).astype(np.float64)
