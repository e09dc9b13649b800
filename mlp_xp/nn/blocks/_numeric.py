"""Numeric embeddings for `TableInputs`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks._base import Make, normal
from mlp_xp.nn.layers import Periodic, Piecewise, Signs, periodic, piecewise

_ABOVE = 1 / 16  # The position of an edge of `PLE`, from a value (0) to the next larger value (1).


class NumericEmbedding:
    """The hashable base class for numeric embeddings, which map each number to several numbers."""

    layer: ClassVar[Callable[..., Any]]  # Called as layer(params, x), x : (..., batch, numbers).
    outputs: int  # The number of outputs per number.
    adapts: ClassVar[bool] = False  # Whether initial parameters depend on the data.
    can_be_monotone: ClassVar[bool] = False  # Whether `signs` makes the outputs grow with x.

    def work(self, n: int) -> int:
        """Return the number of operations in the matrix products for one sample with n numbers."""
        raise NotImplementedError(f"{type(self).__name__} must define work.")

    def init(self, n: int, uniform: Make, constant: Make) -> Any:
        """Draw the initial parameters for n numbers."""
        raise NotImplementedError(f"{type(self).__name__} must define init.")

    def signs(self, directions: Array) -> list[Signs | None]:
        """Return the signs of each array of parameters, so that outputs grow with their number.

        None is for arrays that may have any values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define signs to be monotone.")

    def adapt(self, params: Any, x: Array, *, xp: Namespace) -> Any:
        """Return parameters adapted to a sample of the data, (samples, numbers)."""
        return params


@dataclass(frozen=True)
class PBLD(NumericEmbedding):
    """Periodic embeddings: cosines with learned frequencies, a dense layer, and the number itself.

    See `mlp_xp.nn.layers.periodic`.

    Parameters
    ----------
    waves : int of at least 1, default=16
    outputs : int of at least 2, default=4
        The number of outputs per number, including the number itself.
    sigma : float of at least 0, default=0.1
        Standard deviation of the initial frequencies.
    """

    waves: int = 16
    outputs: int = 4
    sigma: float = 0.1
    layer: ClassVar[Callable[..., Any]] = staticmethod(periodic)

    def __post_init__(self) -> None:
        check_counts(self, waves=1, outputs=2)
        if not 0.0 <= self.sigma < math.inf:
            raise ValueError(f"`sigma` must be at least 0 and finite, got {self.sigma!r}.")

    def work(self, n: int) -> int:
        return 2 * n * self.waves * (self.outputs - 1)

    def init(self, n: int, uniform: Make, constant: Make) -> Periodic:
        """Draw normal frequencies, uniform phases, and a dense layer initialized as in PyTorch."""
        bound, width = 1.0 / math.sqrt(self.waves), self.outputs - 1
        frequency = normal(uniform, (n, self.waves), self.sigma)
        return Periodic(
            frequency,
            uniform(-math.pi, math.pi, (n, self.waves)),
            uniform(-bound, bound, (n, self.waves, width)),
            uniform(-bound, bound, (n, width)),
        )


@dataclass(frozen=True)
class PLE(NumericEmbedding):
    """Piecewise linear embeddings, with pieces between quantiles of the data.

    See `mlp_xp.nn.layers.piecewise`.

    Parameters
    ----------
    pieces : int of at least 1, default=32
    outputs : int of at least 1, default=16
        The number of outputs per number.
    """

    pieces: int = 32
    outputs: int = 16
    layer: ClassVar[Callable[..., Any]] = staticmethod(piecewise)
    adapts: ClassVar[bool] = True
    can_be_monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, pieces=1, outputs=1)

    def work(self, n: int) -> int:
        return 2 * n * (self.pieces + 1) * self.outputs

    def init(self, n: int, uniform: Make, constant: Make) -> Piecewise:
        """Draw a random linear function of each number; `adapt` adds the pieces."""
        bound, shape = 1.0 / math.sqrt(self.outputs), (n, self.outputs)
        return Piecewise(
            constant(0.0, (n, self.pieces)),
            constant(0.0, (n, self.pieces)),
            constant(0.0, (n, self.pieces, self.outputs)),
            uniform(-bound, bound, shape),
            uniform(-bound, bound, shape),
        )

    def signs(self, directions: Array) -> list[Signs | None]:
        W, slope = (Signs.along(directions[:, *[None] * n]) for n in (2, 1))
        return [None, None, W, slope, None]

    def adapt(self, params: Piecewise, x: Array, *, xp: Namespace) -> Piecewise:
        """Set the pieces: one between any two neighboring quantiles, empty if they are equal.

        Each edge is slightly above its quantile, so that no sample is on an edge, where rounding
        errors would decide to which piece it belongs.
        """
        ordered, last = xp.sort(x, axis=0), x.shape[0] - 1
        rows = [round(last * i / self.pieces) for i in range(self.pieces + 1)]
        edges = xp.stack([_just_above(ordered, row, xp=xp) for row in rows], axis=-1)
        length = edges[:, 1:] - edges[:, :-1]
        per_unit = xp.astype(length > 0.0, x.dtype) / xp.where(length > 0.0, length, 1.0)
        return params._replace(start=edges[:, :-1], per_unit=per_unit)


def _just_above(ordered: Array, row: int, *, xp: Namespace) -> Array:
    """Return a number between each column's value in a row and its next larger value."""
    value, spread = ordered[row, :], ordered[-1, :] - ordered[0, :]
    larger = xp.where(ordered > value, ordered, value + spread)
    return value + _ABOVE * (xp.min(larger, axis=0) - value)


NUMERIC_EMBEDDINGS: dict[str, type[PBLD | PLE]] = {"pbld": PBLD, "ple": PLE}


def check_counts(settings: Any, **least: int) -> None:
    """Raise ValueError unless the named settings are integers of at least the given values."""
    for name, smallest in least.items():
        value = getattr(settings, name)
        if type(value) is not int or value < smallest:
            raise ValueError(f"`{name}` must be an integer of at least {smallest}, got {value!r}.")
