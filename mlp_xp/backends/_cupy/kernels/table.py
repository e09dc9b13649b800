"""CuPy's kernels: few launches, since a launch costs more than the work of a small network."""

from __future__ import annotations

from mlp_xp.backends._cupy.kernels.accumulate import accumulate
from mlp_xp.backends._cupy.kernels.activations import activate, dropout
from mlp_xp.backends._cupy.kernels.embedding import run_layer
from mlp_xp.backends._cupy.kernels.gather import gather
from mlp_xp.backends._cupy.kernels.losses import loss, mean_accuracy
from mlp_xp.backends._cupy.kernels.normalization import batch_norm, layer_norm
from mlp_xp.backends._cupy.kernels.update import averaged, clip, update_tree
from mlp_xp.backends._cupy.products import dense_in
from mlp_xp.backends.kernels import Kernels

__all__ = ["KERNELS"]

KERNELS = Kernels(
    dense=dense_in(None),
    gather=gather,
    loss=loss,
    update=update_tree,
    activate=activate,
    dropout=dropout,
    layer_norm=layer_norm,
    batch_norm=batch_norm,
    average=averaged,
    accuracy=mean_accuracy,
    accumulate=accumulate,
    clip=clip,
    run_layer=run_layer,
)
