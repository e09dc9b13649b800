"""Activation and dropout."""

from __future__ import annotations

from typing import ClassVar

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks._base import Applied, Block, Context, Make, without_params
from mlp_xp.nn.layers import Activation, Slope, parametric


@dataclass(frozen=True)
class Activate(Block):
    """An activation: a name in `nn.layers.ACTIVATIONS`, or a function with the same signature."""

    function: str | Activation
    has_params: ClassVar[bool] = False

    @property
    def label(self) -> str:
        return _name_of(self.function)

    def __call__(self, params: Tree, x: Array, context: Context) -> Applied:
        """Apply the activation elementwise."""
        y, pullback = context.kernels.activate(self.function, x, xp=context.xp)
        return y, without_params(pullback), ()


@dataclass(frozen=True)
class ParametricActivate(Block):
    """An activation with one learned slope per feature; all slopes are initially 1."""

    function: str | Activation
    width: int

    @property
    def label(self) -> str:
        return f"parametric {_name_of(self.function)}"

    def init(self, uniform: Make, constant: Make) -> Slope:
        """Return slopes of 1."""
        return Slope(constant(1.0, (self.width,)))

    def __call__(self, params: Slope, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.parametric`."""
        return *context.kernels.run_layer(parametric, params, x, self.function, xp=context.xp), ()


def _name_of(function: str | Activation) -> str:
    return function if isinstance(function, str) else getattr(function, "__name__", str(function))


@dataclass(frozen=True)
class Dropout(Block):
    """Dropout of a fraction of the input in training; ``number`` is the index of its key."""

    rate: float
    number: int
    has_params: ClassVar[bool] = False
    is_linear: ClassVar[bool] = True  # type: ignore[misc]
    n_keys: ClassVar[int] = 1  # type: ignore[misc]

    @property
    def dropout_rates(self) -> tuple[float, ...]:  # type: ignore[override]
        """The dropout rate."""
        return (self.rate,)

    @property
    def label(self) -> str:
        return f"dropout {self.rate:g}"

    def __call__(self, params: Tree, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.dropout`."""
        if not context.is_training:
            return x, without_params(lambda dy: dy), ()
        assert context.keys is not None
        keys = context.keys
        rate = context.dropout_rates[self.number] if context.dropout_rates else self.rate
        key = keys[self.number] if keys.ndim == 1 else keys[..., self.number]
        y, pullback = context.kernels.dropout(x, key, rate, xp=context.xp)
        return y, without_params(pullback), ()
