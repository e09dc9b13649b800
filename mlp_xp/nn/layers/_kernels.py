"""The functions that compute the layers of a network, which a backend may replace."""

from __future__ import annotations

from collections.abc import Callable

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.layers._activations import activate
from mlp_xp.nn.layers._block_dense import affine
from mlp_xp.nn.layers._dropout import dropout
from mlp_xp.nn.layers._embedding import sum_rows_of_table
from mlp_xp.nn.layers._layer import ActivationPullback, LayerPullback, run_layer
from mlp_xp.nn.layers._normalization import BatchStats, batch_norm, layer_norm


@dataclass(frozen=True)
class LayerKernels:
    """The functions that compute layers.

    ``dense`` computes `mlp_xp.nn.layers.affine`; ``run_layer`` runs any layer with parameters that
    is not listed here; ``sum_rows_of_table`` sums the gradients of an embedding. A replacement has
    the signature and the result of the default. For arguments that it does not support, it calls
    the default. ``final_dense``, if any, replaces ``dense`` where no other code changes the layer's
    gradients, so that their sum over several processes may begin at once.
    """

    dense: Callable[..., tuple[Array, LayerPullback]] = affine
    activate: Callable[..., tuple[Array, ActivationPullback]] = activate
    dropout: Callable[..., tuple[Array, ActivationPullback]] = dropout
    layer_norm: Callable[..., tuple[Array, LayerPullback]] = layer_norm
    batch_norm: Callable[..., tuple[Array, LayerPullback, BatchStats]] = batch_norm
    run_layer: Callable[..., tuple[Array, LayerPullback]] = run_layer
    sum_rows_of_table: Callable[..., Array] = sum_rows_of_table
    final_dense: Callable[..., tuple[Array, LayerPullback]] | None = None
