"""Dropout, with a mask that is the same on every backend."""

from __future__ import annotations

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._layer import ActivationPullback

# Shifts and factors of the hash, as signed numbers, because int32 arrays accept no larger integers.
SPREAD = 0x9E3779B1 - 2**32
LOWBIAS32 = ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1))


def dropout(
    x: Array, key: Array, rate: float | Array, rows: Array | None = None, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    r"""Set a random fraction of the elements to 0, and scale up the rest to keep the mean.

    :math:`y = x\,k / (1 - r)` with :math:`k` 1 with probability :math:`1 - r`, else 0; so
    :math:`\bar x = \bar y\,k / (1 - r)`.

    A model's mask depends only on its key, its shape (batch, width) and the rate: no state is kept,
    and every library gives the same mask bit for bit. An element is kept if the hash of its
    position and the key, an integer distributed evenly over int32, is above a threshold. Drawing
    the mask on the host and sending it would take longer than computing it on the device. The key,
    an int32 array with the leading axes, differs for each layer and step; the rate is a number, or
    an array like the key. ``rows : (batch,)`` are the positions of the rows if they are part of a
    larger batch.

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
    # Multiply, because `where` is slow in NumPy for random masks.
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
    """Return the smallest hash value, an int32, that keeps its element."""
    return min(round(rate * 2**32), 2**32 - 1) - 2**31


def _hash_positions(x: Array, key: Array, rows: Array | None = None, *, xp: Namespace) -> Array:
    """Hash the position of each element of a model together with its key; (..., size) int32.

    After multiplication by an odd number near 2^32 over the golden ratio (Knuth, "The Art of
    Computer Programming", volume 3, section 6.4), neighboring positions are far apart. Otherwise
    two keys that differ in a low bit would give the same mask with neighbors swapped. Then follows
    Chris Wellons' ``lowbias32`` ("Prospecting for hash functions", 2018,
    https://nullprogram.com/blog/2018/07/31/; public domain). Each step maps the integers of 32 bits
    one to one, so no value of the hash is likelier than another. A product that overflows wraps
    around in every library.
    """
    n, width = x.shape[-2:]
    if rows is None:
        bits = xp.arange(n * width, dtype=xp.int32, device=device(x))
    else:
        columns = xp.arange(width, dtype=xp.int32, device=device(x))
        bits = xp.reshape(rows[:, None] * width + columns, (-1,))
    bits *= SPREAD
    if key.ndim > 0:
        bits = bits ^ key[..., None]
    else:
        bits ^= key
    for shift, factor in LOWBIAS32:
        mixed = bits >> shift
        # Right shifts of int32 fill with the sign bit, but the hash needs zeros.
        mixed &= (1 << (32 - shift)) - 1
        bits ^= mixed
        if factor != 1:
            bits *= factor
    return bits
