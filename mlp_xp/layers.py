"""Layers: each forward with its pullback, in one function, formula first.

A layer takes its input and returns its output together with a *pullback*: the function that turns
the gradient of the loss with respect to the output, ``dy``, into the gradients with respect to the
input and the parameters. What the way back needs stays in the closure. Pullbacks are pure: they
return gradients and accumulate nothing. (The name is the one of differential geometry; see e.g.
the JAX "Autodiff Cookbook" on vector-Jacobian products.)

Inputs are never written to. A layer may write to arrays that it has just made itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from mlp_xp._typing import Array, Namespace

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Dense",
    "dense",
    "gelu",
    "identity",
    "logistic",
    "relu",
    "sigmoid",
    "silu",
    "tanh",
]


class Dense(NamedTuple):
    """Parameters of a dense layer: ``W : (fan_in, fan_out)`` and ``b : (fan_out,)``."""

    W: Array
    b: Array


class DensePullback(Protocol):
    """``dy : (batch, fan_out)`` to ``dx : (batch, fan_in)``, or None, and the gradients."""

    def __call__(self, dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        """Give the gradients with respect to the input and to the parameters."""
        ...


ActivationPullback = Callable[[Array], Array]


class Activation(Protocol):
    """An elementwise function with its pullback, ``dy`` to ``dx`` of the same shape."""

    def __call__(self, x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
        """Give the output, of the input's shape, and the pullback."""
        ...


def dense(params: Dense, x: Array, *, xp: Namespace) -> tuple[Array, DensePullback]:
    r"""Affine map, :math:`y = x W + b`.

    With :math:`\bar y = \partial L / \partial y`, the chain rule gives
    :math:`\bar W = x^T \bar y`, :math:`\bar b = \sum_i \bar y_i` and :math:`\bar x = \bar y W^T`.

    Parameters
    ----------
    params : Dense
        ``W : (fan_in, fan_out)`` and ``b : (fan_out,)``, real floating.
    x : (batch, fan_in)
        Of the dtype of the parameters.
    xp : namespace
        The arrays' namespace.

    Returns
    -------
    y : (batch, fan_out)
    pullback : callable
        ``pullback(dy, need_dx=...)`` gives ``(dx, Dense(dW, db))``; ``dx`` is None unless needed.
        Without it the first layer saves the largest product of the whole backward pass.

    References
    ----------
    Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 6.5.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.layers import Dense, dense
    >>> y, pullback = dense(Dense(xp.ones((2, 3)), xp.zeros(3)), xp.ones((1, 2)), xp=xp)
    >>> y
    array([[2., 2., 2.]])
    >>> dx, grads = pullback(xp.ones((1, 3)), need_dx=True)
    >>> dx, grads.b
    (array([[3., 3.]]), array([1., 1., 1.]))
    """
    W, b = params
    y = x @ W
    y += b

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        dx = dy @ W.T if need_dx else None
        return dx, Dense(x.T @ dy, xp.sum(dy, axis=0))

    return y, pullback


def identity(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    """Linear activation, ``y = x``; the pullback is the identity too."""
    return x, lambda dy: dy


def relu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Rectified linear unit, :math:`y = \max(x, 0)`, so :math:`\bar x = \bar y\,[x > 0]`.

    The gradient at 0 is taken as 0, as in scikit-learn and PyTorch.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.layers import relu
    >>> y, pullback = relu(xp.asarray([-1.0, 2.0]), xp=xp)
    >>> y, pullback(xp.ones(2))
    (array([0., 2.]), array([0., 1.]))
    """
    y = xp.maximum(x, 0.0)
    return y, lambda dy: xp.where(y > 0.0, dy, 0.0)


def sigmoid(x: Array, *, xp: Namespace) -> Array:
    """Give the logistic function without overflow, ``1 / (1 + exp(-x))``.

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
    r"""Logistic activation, :math:`y = 1 / (1 + e^{-x})`, so :math:`\bar x = \bar y\, y (1 - y)`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.layers import logistic
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
    r"""Hyperbolic tangent, :math:`y = \tanh x`, so :math:`\bar x = \bar y\,(1 - y^2)`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.layers import tanh
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
    r"""Sigmoid linear unit (swish), :math:`y = x s` with :math:`s = 1 / (1 + e^{-x})`.

    So :math:`\bar x = \bar y\, (s + y (1 - s))`.

    References
    ----------
    Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units" (2018), arXiv:1702.03118.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.layers import silu
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
    r"""Gaussian error linear unit in its tanh form.

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
    >>> from mlp_xp.layers import gelu
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


ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "logistic": logistic,
    "tanh": tanh,
    "relu": relu,
    "gelu": gelu,
    "silu": silu,
}
