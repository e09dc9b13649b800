"""Activations: elementwise functions, each with its pullback."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from mlp_xp._utils.array_types import Array, Namespace

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ActivationPullback",
    "activate",
    "elu",
    "exp",
    "gelu",
    "identity",
    "leaky_relu",
    "logistic",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]

ActivationPullback = Callable[[Array], Array]


class Activation(Protocol):
    """An elementwise function with its pullback, ``dy`` to ``dx`` of the same shape."""

    def __call__(self, x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
        """Return the output, of the shape of the input, and the pullback."""
        ...


def identity(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    """Return the input, ``y = x``; the pullback is the identity too."""
    return x, lambda dy: dy


def relu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the rectified linear unit.

    :math:`y = \max(x, 0)`, so :math:`\bar x = \bar y\,[x > 0]`.

    The gradient at 0 is taken as 0, as in scikit-learn and PyTorch.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import relu
    >>> y, pullback = relu(xp.asarray([-1.0, 2.0]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([0., 2.]), array([0., 1.]))
    """
    y = xp.maximum(x, 0.0)

    def pullback(dy: Array) -> Array:
        # No choice by a mask: NumPy's takes eight times as long as a product.
        dx = xp.astype(y > 0.0, y.dtype)
        dx *= dy
        return dx

    return y, pullback


def sigmoid(x: Array, *, xp: Namespace) -> Array:
    """Return the logistic function without overflow, ``1 / (1 + exp(-x))``.

    Where ``exp(-x)`` would overflow the input is held a little short of that; the result there is
    as good as 0, about the smallest normal number.
    """
    limit = 1.0 - math.log(float(xp.finfo(x.dtype).max))
    y = xp.maximum(x, limit)
    y *= -1.0
    y = xp.exp(y)
    y += 1.0
    return 1.0 / y


def logistic(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the logistic function.

    :math:`y = 1 / (1 + e^{-x})`, so :math:`\bar x = \bar y\, y (1 - y)`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import logistic
    >>> y, pullback = logistic(xp.asarray([0.0, 1e4]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([0.5, 1. ]), array([0.25, 0.  ]))
    """
    y = sigmoid(x, xp=xp)

    def pullback(dy: Array) -> Array:
        dx = 1.0 - y
        dx *= y
        dx *= dy
        return dx

    return y, pullback


def tanh(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the hyperbolic tangent, :math:`y = \tanh x`, so :math:`\bar x = \bar y\,(1 - y^2)`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import tanh
    >>> y, pullback = tanh(xp.asarray([0.0, 1e4]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([0., 1.]), array([1., 0.]))
    """
    y = xp.tanh(x)

    def pullback(dy: Array) -> Array:
        dx = y * -y
        dx += 1.0
        dx *= dy
        return dx

    return y, pullback


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

    :math:`y = \tfrac12 x (1 + t)` with :math:`t = \tanh u` and
    :math:`u = \sqrt{2/\pi}\,(x + 0.044715\,x^3)`, so
    :math:`\bar x = \bar y\,\tfrac12\,(1 + t + x (1 - t^2)\, u')` with
    :math:`u' = \sqrt{2/\pi}\,(1 + 0.134145\,x^2)`. The exact form needs the error function, which
    the Array API lacks; the two differ by less than 5e-4.

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


def exp(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the exponential function, :math:`y = e^x`, so :math:`\bar x = \bar y\, y`.

    It makes a positive output, such as a rate, of a raw one. Being unbounded it is no activation
    for hidden layers, and so not in `ACTIVATIONS`; above the logarithm of the largest number it
    overflows.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import exp
    >>> y, pullback = exp(xp.asarray([0.0, -1e4]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([1., 0.]), array([1., 0.]))
    """
    y = xp.exp(x)
    return y, lambda dy: dy * y


def softplus(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute a smooth relu, :math:`y = \log(1 + e^x)`, so :math:`\bar x = \bar y / (1 + e^{-x})`.

    Computed as :math:`\max(x, 0) + \log(1 + e^{-|x|})`, which cannot overflow. The derivative is
    taken from the output, :math:`1 / (1 + e^{-x}) = 1 - e^{-y}`, so that the input need not be
    kept.

    References
    ----------
    Dugas, Bengio, Bélisle, Nadeau, Garcia, "Incorporating second-order functional knowledge for
    better option pricing" (2000), equation 3.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import softplus
    >>> y, pullback = softplus(xp.asarray([-1e4, 1e4]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([    0., 10000.]), array([0., 1.]))
    """
    y = xp.abs(x)
    y *= -1.0
    y = xp.log1p(xp.exp(y))
    y += xp.maximum(x, 0.0)

    def pullback(dy: Array) -> Array:
        dx = xp.expm1(-y)
        dx *= -1.0
        dx *= dy
        return dx

    return y, pullback


def leaky_relu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the leaky rectified linear unit, :math:`y = \max(x, 0.01\,x)`.

    So :math:`\bar x = \bar y` where :math:`x > 0`, else :math:`0.01\,\bar y`; at 0 the latter, as
    in PyTorch.

    References
    ----------
    Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models" (2013).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import leaky_relu
    >>> y, pullback = leaky_relu(xp.asarray([-2.0, 2.0]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([-0.02,  2.  ]), array([0.01, 1.  ]))
    """
    y = xp.maximum(x, x * 0.01)
    return y, lambda dy: xp.where(y > 0.0, dy, dy * 0.01)


def elu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the exponential linear unit.

    :math:`y = x` where :math:`x > 0`, else :math:`e^x - 1`.

    So :math:`\bar x = \bar y\,(\min(y, 0) + 1)`, since the derivative of :math:`e^x - 1` is
    :math:`y + 1`.

    References
    ----------
    Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by exponential
    linear units (ELUs)" (2016), arXiv:1511.07289.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import elu
    >>> y, pullback = elu(xp.asarray([-1e4, 2.0]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([-1.,  2.]), array([0., 1.]))
    """
    y = xp.expm1(xp.minimum(x, 0.0))
    y += xp.maximum(x, 0.0)

    def pullback(dy: Array) -> Array:
        dx = xp.minimum(y, 0.0)
        dx += 1.0
        dx *= dy
        return dx

    return y, pullback


ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "logistic": logistic,
    "tanh": tanh,
    "relu": relu,
    "gelu": gelu,
    "silu": silu,
    "softplus": softplus,
    "leaky_relu": leaky_relu,
    "elu": elu,
}


def activate(
    function: str | Activation, x: Array, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    """Apply an activation: one of `ACTIVATIONS` by its name, or a function of the same contract.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import activate
    >>> y, pullback = activate("relu", xp.asarray([-1.0, 2.0]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([0., 2.]), array([0., 1.]))
    """
    return (ACTIVATIONS[function] if isinstance(function, str) else function)(x, xp=xp)
