"""The signs of weights that make a network monotone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace

Directions = tuple[int, ...]


class Signs(NamedTuple):
    """The signs that an array of weights W must have, as arrays that broadcast with W.

    Where ``free`` is 1, a weight may have any sign. Elsewhere, it has the sign of ``sign``, which
    is 1, -1, or 0 for weights that must be 0.
    """

    free: Array
    sign: Array

    @classmethod
    def between(cls, inputs: Array, outputs: Array) -> Signs:
        """Return the signs of a matrix, ``(fan_in, fan_out)``, given the directions of features."""
        rows = inputs[:, None]
        return cls(_is_free(rows), rows * outputs)

    @classmethod
    def along(cls, features: Array) -> Signs:
        """Return the signs of factors that multiply features, given the features' directions."""
        return cls(_is_free(features), features * features)


def _is_free(directions: Array) -> Array:
    return 1.0 - directions * directions


def direction_array(directions: Directions, like: Array, *, xp: Namespace) -> Array:
    """Return directions as an array with the dtype and the device of another one."""
    runs = [(value, len(list(run))) for value, run in groupby(directions)]
    options = {"dtype": like.dtype, "device": device(like)}
    return xp.concat([xp.full((n,), float(value), **options) for value, n in runs])


def signed(W: Array, signs: Signs, *, xp: Namespace) -> tuple[Array, Callable[[Array], Array]]:
    r"""Give weights the required signs, :math:`V = f W + s |W|`.

    So :math:`\bar W = (f + s \operatorname{sign} W)\,\bar V`. The sign of 0 is defined as 1, so
    that weights that start at 0 are trained. A sum of products with such weights, rounded after
    each operation, never decreases if an input of direction 1 grows: rounding keeps the order.

    References
    ----------
    Runje, Shankaranarayana, "Constrained monotonic neural networks" (2023), arXiv:2205.11775.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Signs, signed
    >>> signs = Signs.between(xp.asarray([0.0, 1.0]), xp.asarray([0.0, 1.0, -1.0]))
    >>> W = xp.asarray([[-1.0, -2.0, -3.0], [4.0, -5.0, -6.0]])
    >>> V, pullback = signed(W, signs, xp=xp)
    >>> V
    array([[-1., -2., -3.],
           [ 0.,  5., -6.]])
    >>> pullback(xp.ones((2, 3)))
    array([[ 1.,  1.,  1.],
           [ 0., -1.,  1.]])
    """
    free, sign = signs
    factor = xp.where(W >= 0.0, free + sign, free - sign)
    return W * factor, lambda dV: dV * factor
