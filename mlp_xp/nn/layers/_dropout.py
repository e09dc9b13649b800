"""Dropout, with the same mask on every backend."""

from __future__ import annotations

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._layer import ActivationPullback

# Shifts and factors of the hash function, as signed numbers that fit in int32 arrays.
SPREAD = 0x9E3779B1 - 2**32
LOWBIAS32 = ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1))


def dropout(
    x: Array, key: Array, rate: float | Array, rows: Array | None = None, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    r"""Set a random fraction of the elements to 0, and scale up the rest to keep the mean.

    :math:`y = x\,k / (1 - r)`, where :math:`k` is 1 with probability :math:`1 - r`, else 0. So
    :math:`\bar x = \bar y\,k / (1 - r)`.

    A model's mask depends only on the key, the shape (batch, width) and the rate. Dropout has no
    state, and every library computes a bitwise identical mask. An element is kept if a hash of its
    position and the key, an evenly distributed int32, is above a threshold. Computing the mask on
    the device takes less time than drawing it on the host and copying it. The key, an int32 array
    with the leading axes, is different in each layer and step. The rate is a number, or an array
    like the key. If the rows are part of a larger batch, ``rows : (batch,)`` are their positions in
    that batch.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: a simple way to prevent
    neural networks from overfitting" (2014), section 10 for the scaling.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import dropout
    >>> y, pullback = dropout(xp.ones((2, 4)), xp.asarray(1, dtype=xp.int32), 0.5, xp=xp)
    >>> y
    array([[2., 0., 2., 2.],
           [2., 2., 0., 2.]])
    >>> pullback(xp.ones((2, 4)))
    array([[2., 0., 2., 2.],
           [2., 2., 0., 2.]])
    """
    shape = (*key.shape, *x.shape[-2:])
    bits = _hash_positions(x, key, rows, xp=xp)
    # Multiply, because NumPy's `where` is slow for random masks.
    scale: Array | float
    if isinstance(rate, float | int):
        kept, scale = bits >= threshold(rate), 1.0 / (1.0 - rate)
    else:
        last = 2.0**31 - 128.0  # The largest float32 below 2^31.
        least = xp.minimum(rate * 2.0**32 - 2.0**31, last)
        kept = bits >= xp.astype(least, xp.int32)[..., None]
        scale = xp.astype(1.0 / (1.0 - rate), x.dtype)[..., None, None]
    factor = xp.astype(xp.reshape(kept, shape), x.dtype)
    factor *= scale
    return x * factor, lambda dy: dy * factor


def threshold(rate: float) -> int:
    """Return the smallest hash value, an int32, for which an element is kept."""
    return min(round(rate * 2**32), 2**32 - 1) - 2**31


def _hash_positions(x: Array, key: Array, rows: Array | None = None, *, xp: Namespace) -> Array:
    """Hash each element's position together with the model's key; (..., size) int32.

    First multiply positions by an odd number near 2^32 / golden ratio (Knuth, "The Art of Computer
    Programming", volume 3, section 6.4), so that neighboring positions are far apart. Otherwise two
    keys that differ only in a low bit would give the same mask with neighbors swapped. Then apply
    Chris Wellons' ``lowbias32`` ("Prospecting for hash functions", 2018,
    https://nullprogram.com/blog/2018/07/31/; public domain). Each step is a one-to-one map of
    32-bit integers, so all hash values are equally likely. In every library, products that overflow
    wrap around.
    """
    n, width = x.shape[-2:]
    if rows is None:
        bits = xp.arange(n * width, dtype=xp.int32, device=device(x))
    else:
        columns = xp.arange(width, dtype=xp.int32, device=device(x))
        bits = xp.reshape(rows[:, None] * width + columns, (-1,))
    bits = bits * SPREAD  # Not in place, since it may be a view.
    if key.ndim > 0:
        bits = bits ^ key[..., None]
    else:
        bits ^= key
    for shift, factor in LOWBIAS32:
        mixed = bits >> shift
        # A right shift of int32 fills in the sign bit, but the hash needs zeros.
        mixed &= (1 << (32 - shift)) - 1
        bits ^= mixed
        if factor != 1:
            bits *= factor
    return bits
