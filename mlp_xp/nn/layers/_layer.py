"""The interfaces of activations, and of layers that process each row independently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from mlp_xp._utils.array_types import Array, Namespace, Tree

T = TypeVar("T", bound=type)
ActivationPullback = Callable[[Array], Array]


class Activation(Protocol):
    """A function from ``dy`` to ``dx``, which has the same shape: an activation's pullback."""

    def __call__(self, x: Array, *, xp: Namespace) -> tuple[Array, ActivationPullback]:
        """Return the output, in the shape of the input, and the pullback."""


class LayerPullback(Protocol):
    """A function that maps ``dy`` to ``dx`` (or None) and the parameters' gradients."""

    def __call__(self, dy: Array, *, need_dx: bool) -> tuple[Array | None, Any]:
        """Return the gradients with respect to the input and to the parameters."""


def run_layer(
    function: Any, params: Tree, x: Array, *args: Any, xp: Namespace
) -> tuple[Array, LayerPullback]:
    """Run a layer in which each output row depends only on one row of x.

    A backend may replace this function by one that runs faster versions of some layers.
    """
    found: tuple[Array, LayerPullback] = function(params, x, *args, xp=xp)
    return found


def with_kinds(*kinds: str) -> Callable[[T], T]:
    """Return a decorator that sets the kinds of a NamedTuple's arrays; see `optimizers.kinds`."""

    def decorate(parameters: T) -> T:
        parameters.kinds = kinds  # type: ignore[attr-defined]
        return parameters

    return decorate
