"""The weights of samples in an average over a batch."""

from __future__ import annotations

from mlp_xp._utils.array_types import Array, Namespace

__all__ = ["shares"]


def shares(weights: Array | None, n_samples: int, *, xp: Namespace) -> Array | float:
    """Return the share of each sample in the average, ``w / sum(w)`` as a column, or ``1 / n``.

    ``weights : (..., batch)`` give ``(..., batch, 1)``. A batch may hold only samples of weight 0:
    its share is 0 too, not 0 / 0.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import shares
    >>> shares(xp.asarray([3.0, 1.0]), 2, xp=xp)
    array([[0.75],
           [0.25]])
    >>> shares(None, 2, xp=xp)
    0.5
    """
    if weights is None:
        return 1.0 / n_samples
    least = float(xp.finfo(weights.dtype).smallest_normal)
    return (weights / xp.maximum(xp.sum(weights, axis=-1, keepdims=True), least))[..., None]
