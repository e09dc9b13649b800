"""Activations: elementwise functions, each with its pullback.

Activations of the form ``x * g(x)`` are in `_gated`. To add an activation, add a function, and a
line in `ACTIVATIONS`, which makes its name a value of the parameter ``activation``. Machine code,
CUDA kernels and all exports follow from the function.
"""

from __future__ import annotations

from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.compiler import with_pullback
from mlp_xp.nn.layers._gated import gelu, mish, sigmoid, silu
from mlp_xp.nn.layers._layer import Activation, ActivationPullback

# The constants in equation 2 of Klambauer et al. (2017), in double precision.
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def identity(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    """Return the input, ``y = x``; the pullback is also the identity."""
    return x, lambda dy: dy


def relu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the rectified linear unit.

    :math:`y = \max(x, 0)`, so :math:`\bar x = \bar y\,[x > 0]`.

    The gradient at 0 is defined as 0, as in scikit-learn and PyTorch.

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
        # Multiply, because NumPy's `where` takes eight times as long.
        dx = xp.astype(y > 0.0, y.dtype)
        dx *= dy
        return dx

    return y, pullback


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


def exp(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the exponential function, :math:`y = e^x`, so :math:`\bar x = \bar y\, y`.

    Use it as an output activation for positive values, e.g. rates. It grows too fast for hidden
    layers, so `ACTIVATIONS` does not contain it. It overflows above the logarithm of the largest
    number.

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

    The output is computed as :math:`\max(x, 0) + \log(1 + e^{-|x|})`, which cannot overflow. The
    derivative is computed from the output, :math:`1 / (1 + e^{-x}) = 1 - e^{-y}`, so the pullback
    does not keep the input.

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

    So :math:`\bar x = \bar y` where :math:`x > 0`, else :math:`0.01\,\bar y`. As in PyTorch, this
    includes :math:`x = 0`.

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


def selu(x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
    r"""Compute the scaled exponential linear unit.

    :math:`y = \lambda x` where :math:`x > 0`, else :math:`\lambda \alpha (e^x - 1)`.

    So :math:`\bar x = \lambda \bar y` where :math:`x > 0`, else :math:`\lambda \alpha e^x \bar y`.

    References
    ----------
    Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks" (2017),
    arXiv:1706.02515.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import selu
    >>> y, pullback = selu(xp.asarray([-1e4, 2.0]), xp=xp)
    >>> xp.round(y, 3), xp.round(pullback(xp.ones(2)), 3)
    (array([-1.758,  2.101]), array([0.   , 1.051]))
    """
    bend = xp.expm1(xp.minimum(x, 0.0))
    bend *= _SELU_SCALE * _SELU_ALPHA
    y = xp.maximum(x, 0.0)
    y *= _SELU_SCALE
    y += bend

    def pullback(dy: Array) -> Array:
        dx = xp.astype(y > 0.0, y.dtype)
        dx *= _SELU_SCALE * (1.0 - _SELU_ALPHA)
        dx += bend
        dx += _SELU_SCALE * _SELU_ALPHA
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
    "selu": selu,
    "mish": mish,
}
# The activations that never decrease.
INCREASING = "identity", "logistic", "tanh", "relu", "softplus", "leaky_relu", "elu", "selu"


def activate(
    function: str | Activation, x: Array, *, xp: Namespace
) -> tuple[Array, ActivationPullback]:
    """Apply an activation: a name in `ACTIVATIONS`, or a function.

    A function may return its output alone; its pullback is then derived.
    """
    if isinstance(function, str):
        return ACTIVATIONS[function](x, xp=xp)
    return with_pullback(function, x, xp=xp, names=["x"], what=f"activation {name_of(function)}")


def name_of(function: Any) -> str:
    """Return the name of a user's function or object."""
    return getattr(function, "__name__", None) or repr(function)
