"""The network: a frozen description, its initial weights, the way forward and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlp_xp._random import host_generator
from mlp_xp._typing import Array, Namespace
from mlp_xp.layers import ACTIVATIONS, ActivationPullback, Dense, DensePullback, dense

__all__ = ["Network", "Params", "backward", "forward", "init_params"]

Params = tuple[Dense, ...]
Layer = Callable[..., tuple[Array, DensePullback]]
Pullbacks = list[tuple[DensePullback, ActivationPullback | None]]


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron: dense layers with one activation between them.

    The last layer has no activation: losses take its raw outputs.

    Parameters
    ----------
    widths : tuple of int, at least 2
        Inputs, hidden layers from first to last, outputs.
    activation : str, default="relu"
        One of `mlp_xp.layers.ACTIVATIONS`.

    Examples
    --------
    >>> from mlp_xp.network import Network
    >>> Network((3072, 512, 10), activation="gelu")
    Network(widths=(3072, 512, 10), activation='gelu')
    """

    widths: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(
                f"widths is {self.widths!r}, and must name inputs, hidden layers and outputs, each "
                "at least 1 wide, e.g. (3072, 512, 10)."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {self.activation!r}, and must be one of {sorted(ACTIVATIONS)}."
            )


def init_params(network: Network, seed: int) -> Params:
    r"""Draw the initial weights on the host, the same for every backend.

    Uniform in :math:`\pm\sqrt{6 / (\text{fan\_in} + \text{fan\_out})}`, biases too; for the
    logistic activation 2 stands for 6. This is scikit-learn's choice.

    Parameters
    ----------
    network : Network
    seed : int of at least 0

    Returns
    -------
    tuple of Dense
        NumPy arrays in float64: ``W : (fan_in, fan_out)``, ``b : (fan_out,)``.

    References
    ----------
    Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks"
    (2010), equation 16.

    Examples
    --------
    >>> from mlp_xp.network import Network, init_params
    >>> [layer.W.shape for layer in init_params(Network((4, 3, 2)), seed=0)]
    [(4, 3), (3, 2)]
    """
    uniform: Any = host_generator(seed, "weights").uniform
    factor = 2.0 if network.activation == "logistic" else 6.0
    params = []
    for fan_in, fan_out in zip(network.widths, network.widths[1:], strict=False):
        bound = math.sqrt(factor / (fan_in + fan_out))
        W, b = uniform(-bound, bound, (fan_in, fan_out)), uniform(-bound, bound, (fan_out,))
        params.append(Dense(W, b))
    return tuple(params)


def forward(
    network: Network, params: Params, x: Array, *, layer: Layer = dense, xp: Namespace
) -> tuple[Array, Pullbacks]:
    """Run the network.

    Parameters
    ----------
    network : Network
    params : tuple of Dense
    x : (batch, inputs)
    layer : callable, default=mlp_xp.layers.dense
        The dense layer, or a kernel that does the same.
    xp : namespace

    Returns
    -------
    logits : (batch, outputs)
    pullbacks : list
        For `backward`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.network import Network, backward, forward, init_params
    >>> network = Network((4, 3, 2))
    >>> logits, pullbacks = forward(network, init_params(network, 0), xp.ones((5, 4)), xp=xp)
    >>> [grad.W.shape for grad in backward(pullbacks, xp.ones_like(logits))]
    [(4, 3), (3, 2)]
    """
    activation = ACTIVATIONS[network.activation]
    pullbacks: Pullbacks = []
    for number, layer_params in enumerate(params, start=1):
        x, pull_dense = layer(layer_params, x, xp=xp)
        pull_activation = None
        if number < len(params):
            x, pull_activation = activation(x, xp=xp)
        pullbacks.append((pull_dense, pull_activation))
    return x, pullbacks


def backward(pullbacks: Pullbacks, dlogits: Array) -> Params:
    """Give the gradients of all parameters, from the last layer back to the first.

    Parameters
    ----------
    pullbacks : list
        What `forward` gave.
    dlogits : (batch, outputs)
        Gradient of the loss at the raw outputs.

    Returns
    -------
    tuple of Dense
        In the order of the layers. No gradient with respect to the input is computed.
    """
    grads = []
    dy = dlogits
    for number in reversed(range(len(pullbacks))):
        pull_dense, pull_activation = pullbacks[number]
        if pull_activation is not None:
            dy = pull_activation(dy)
        dx, grad = pull_dense(dy, need_dx=number > 0)
        grads.append(grad)
        if dx is not None:
            dy = dx
    return tuple(reversed(grads))
