"""Input scaling, computed where the data lie, a block of rows at a time."""

from __future__ import annotations

from typing import Any

from mlp_xp.backends import Backend
from mlp_xp.batches import take_rows
from mlp_xp.step import Scaling

__all__ = ["standardization"]

_BLOCK = 512


def standardization(backend: Backend, x: Any, dtype: str) -> Scaling:
    r"""Find the shift and scale that give each feature mean 0 and standard deviation 1.

    A block of rows is converted at a time, so uint8 data never exist as floating point as a whole.
    Blocks are joined by :math:`M = M_a + M_b + \delta^2 n_a n_b / n`, which loses no digits.

    Parameters
    ----------
    backend : Backend
    x : (samples, features) array of the backend's library or of NumPy, or sparse rows
    dtype : {"float32", "float64"}
        Of the computation and of the result.

    Returns
    -------
    Scaling
        On the device. A constant feature is shifted, not scaled.

    References
    ----------
    Chan, Golub, LeVeque, "Algorithms for computing the sample variance" (1983). What counts as
    constant is scikit-learn's rule.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.backends import get_backend
    >>> from mlp_xp.scaling import standardization
    >>> x = np.asarray([[0, 7], [4, 7]], dtype=np.uint8)
    >>> standardization(get_backend("numpy"), x, "float64")
    Scaling(shift=array([2., 7.]), scale=array([0.5, 1. ]))
    """
    xp = backend.xp
    with backend.scope():
        shape, device = (x.shape[1],), backend.device
        mean = xp.zeros(shape, dtype=getattr(xp, dtype), device=device)
        spread = xp.zeros_like(mean)
        n = 0
        for start in range(0, x.shape[0], _BLOCK):
            stop = min(start + _BLOCK, x.shape[0])
            block = backend.put(take_rows(x, slice(start, stop)), dtype)
            n_block = block.shape[0]
            block_mean = xp.mean(block, axis=0)
            deviation = block - block_mean
            delta = block_mean - mean
            spread = spread + xp.sum(deviation * deviation, axis=0)
            spread = spread + delta * delta * (n * n_block / (n + n_block))
            mean = mean + delta * (n_block / (n + n_block))
            n += n_block
        variance = spread / n
        noise = n * float(xp.finfo(mean.dtype).eps)
        constant = variance <= noise * variance + (noise * mean) ** 2
        return Scaling(mean, 1.0 / xp.sqrt(xp.where(constant, 1.0, variance)))
