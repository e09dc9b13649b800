"""Initial weights that depend on the data."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from mlp_xp.backends import get_backend, to_numpy
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.distributed import Alone
from mlp_xp.nn.network import Network, Params, adapt_params
from mlp_xp.training.data.rows import Shard, take_rows

__all__ = ["adapt_to_data"]

_MOST_ROWS = 4096


def adapt_to_data(
    network: Network,
    params: Params,
    X: Any,
    scaling: Scaling | Whitening | None,
    generator: np.random.RandomState,
    ranks: Alone,
) -> Params:
    """Return initial weights, adapted to some of the samples as the network takes them.

    Parameters
    ----------
    network : Network
    params : tuple of NumPy arrays
    X : array, Rows or Shard
        The samples of all ranks.
    scaling : Scaling, Whitening or None
    generator : RandomState
    ranks : Alone
    """
    if isinstance(X, Shard):
        x = np.concatenate(ranks.exchange(_some_rows(X.mine, _MOST_ROWS // ranks.size)))
    else:
        x = _some_rows(X, _MOST_ROWS)
    if scaling is not None:
        shift, scale, *rotation = (to_numpy(leaf).astype(np.float64) for leaf in scaling)
        x = (x - shift) * scale
        x = x @ rotation[0] if rotation else x
    # Processors round in their own way: the first rank's weights are those of all.
    adapt = partial(adapt_params, xp=get_backend("numpy").xp)
    return ranks.lead(adapt, network, params, x, generator.uniform)


def _some_rows(X: Any, most: int) -> np.ndarray:
    """Return rows from all over the samples, in float64."""
    rows = np.linspace(0, X.shape[0] - 1, min(X.shape[0], most)).astype(np.int64)
    return to_numpy(take_rows(X, rows)).astype(np.float64)
