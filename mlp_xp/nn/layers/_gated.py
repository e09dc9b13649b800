"""Activations that multiply their input by a smooth gate, each with its pullback."""

from __future__ import annotations

import math

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._layer import ActivationPullback


def sigmoid(x: Array, *, xp: Namespace) -> Array:
    """Return the logistic function without overflow, ``1 / (1 + exp(-x))``.

    Where ``exp(-x)`` would overflow, the input is clipped, and the result is near the smallest
    normal number. It is never below, since GPUs may flush such numbers to 0.
    """
    limit = math.log(float(xp.finfo(x.dtype).smallest_normal)) * (1.0 - 2.0**-20)
    y = xp.maximum(x, limit)
    y *= -1.0
    y = xp.exp(y)
    y += 1.0
    return 1.0 / y


def silu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the sigmoid linear unit (swish), :math:`y = x s` with :math:`s = 1 / (1 + e^{-x})`.

    So :math:`\bar x = \bar y\, (s + y (1 - s))`.

    References
    ----------
    Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units" (2018), arXiv:1702.03118.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import silu
    >>> y, pullback = silu(xp.asarray([0.0, 1e4]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([    0., 10000.]), array([0.5, 1. ]))
    """
    s = sigmoid(x, xp=xp)
    y = x * s

    def pullback(dy: Array) -> Array:
        dx = 1.0 - s
        dx *= y
        dx += s
        dx *= dy
        return dx

    return y, pullback


def gelu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the Gaussian error linear unit in its tanh form.

    :math:`y = \tfrac12 x (1 + t)` with :math:`t = \tanh u` and :math:`u = \sqrt{2/\pi}\,(x +
    0.044715\,x^3)`, so :math:`\bar x = \bar y\,\tfrac12\,(1 + t + x (1 - t^2)\, u')` with :math:`u'
    = \sqrt{2/\pi}\,(1 + 0.134145\,x^2)`. The exact form needs the error function, which the Array
    API lacks. The two forms differ by less than 5e-4.

    References
    ----------
    Hendrycks, Gimpel, "Gaussian error linear units" (2016), arXiv:1606.08415.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import gelu
    >>> y, pullback = gelu(xp.asarray([0.0, 1e4]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([    0., 10000.]), array([0.5, 1. ]))
    """
    scale = math.sqrt(2.0 / math.pi)
    square = x * x
    t = xp.tanh(x * (square * (0.044715 * scale) + scale))
    y = (0.5 * x) * (t + 1.0)

    def pullback(dy: Array) -> Array:
        dx = square * (3 * 0.044715 * scale) + scale
        dx *= x
        dx *= 1.0 - t * t
        dx += t
        dx += 1.0
        dx *= 0.5
        dx *= dy
        return dx

    return y, pullback


def mish(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute mish, :math:`y = x t` with :math:`t = \tanh(\log(1 + e^x))`.

    With :math:`n = e^x (e^x + 2)`, :math:`t = n / (n + 2)` has the derivative :math:`t' = 4 e^x
    (e^x + 1) / (n + 2)^2`, so :math:`\bar x = \bar y\,(t + x t')`.

    References
    ----------
    Misra, "Mish: a self regularized non-monotonic activation function" (2019), arXiv:1908.08681.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import mish
    >>> y, pullback = mish(xp.asarray([0.0, 1e4]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([    0., 10000.]), array([0.6, 1. ]))
    """
    # mish(x) equals x for larger x.
    limit = min(20.0, 0.49 * math.log(float(xp.finfo(x.dtype).max)))
    e = xp.exp(xp.minimum(x, limit))
    n = e * (e + 2.0)
    share = 1.0 / (n + 2.0)
    n *= share

    def pullback(dy: Array) -> Array:
        dx = e * share
        slope = e + 1.0
        slope *= share
        dx *= slope
        dx *= 4.0
        dx *= x
        dx += n
        dx *= dy
        return dx

    return x * n, pullback
