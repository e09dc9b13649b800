"""The base classes of augmentations, and the rows of an epoch that they draw random numbers for."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace

# A host array and a random generator; only `_utils.random` names their library.
HostArray = Any
# An array with one row per sample of a batch or epoch; in a view, a Python number.
Values = Any
# A NamedTuple of such arrays.
Draws = Any


class Epoch(NamedTuple):
    """The rows of an epoch, step by step, including padding.

    ``generator(stream)`` returns a random generator on the host; ``number`` counts epochs, from 0;
    ``rows : (rows,)`` are positions among ``n_samples`` samples; ``steps``, ``positions`` and
    ``batch_sizes``, all ``(rows,)``, hold the step of each row, its position in the batch, and the
    number of samples in that batch, which come before the padding.
    """

    generator: Callable[[int], Any]
    number: int
    rows: HostArray
    n_samples: int
    steps: HostArray
    positions: HostArray
    batch_sizes: HostArray

    def new_generator(self) -> Any:
        """Return the generator of random numbers that differ between epochs.

        Draw row by row, so that the first rows are the same with and without padding.
        """
        return self.generator(self.number + 1)

    def fixed_generator(self) -> Any:
        """Return the generator of random numbers that a sample keeps in all epochs."""
        return self.generator(0)


class Mixture(NamedTuple):
    """Partners of samples, ``(batch,)`` positions, and the weight of their own targets, 0-d."""

    partners: Array
    share: Array


class Augmentation:
    """A random change of the samples of a batch: a frozen dataclass of its settings.

    Your own class implements `draw` and `apply`. `Geometric` is the base class of augmentations
    that move pixels.

    Attributes
    ----------
    mixes_targets : bool, default=False
        Whether `mixture` returns a mixture, which at most one augmentation of a model may do.
    """

    mixes_targets: ClassVar[bool] = False

    @property
    def views(self) -> tuple[Draws, ...]:
        """The draws, as Python numbers, that a prediction can average over (``tta``)."""
        return ()

    def check(self, n_features: int, name: str) -> None:
        """Raise ValueError if the number of features does not match; ``name`` is the parameter.

        By default any number is valid.
        """

    def draw(self, epoch: Epoch) -> Draws:
        """Draw for all rows of an epoch, on the host.

        Parameters
        ----------
        epoch : Epoch

        Returns
        -------
        NamedTuple of (rows, ...) arrays
            Integers are copied to the device unchanged, real numbers in the dtype of the
            parameters.
        """
        raise NotImplementedError

    def apply(self, x: Array, draws: Draws, *, xp: Namespace) -> Array:
        """Return a changed batch, converted to floating point and scaled; by default the same.

        Parameters
        ----------
        x : (batch, features) array
            Never written to.
        draws : NamedTuple of (batch, ...) arrays
            The draws of this batch, from `draw`.
        xp : namespace

        Returns
        -------
        (batch, features) array
        """
        return x

    def mixture(self, draws: Draws) -> Mixture:
        """Return the mixture that `apply` used, for the targets."""
        raise NotImplementedError


class ImageAugmentation(Augmentation):
    """An augmentation of images, (channels, height, width)."""

    image_shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        """Raise ValueError if the shape is not an image shape; store a list as a tuple."""
        shape = self.image_shape
        is_shape = isinstance(shape, list | tuple) and len(shape) == 3
        if not (is_shape and all(isinstance(n, Integral) and n >= 1 for n in shape)):
            raise ValueError(
                "`image_shape` must be three integers of at least 1, (channels, height, width), "
                f"got {shape!r}; set it to e.g. (3, 32, 32)."
            )
        object.__setattr__(self, "image_shape", tuple(map(int, shape)))

    def check(self, n_features: int, name: str) -> None:
        """Raise ValueError unless images of this shape have this number of features."""
        n_numbers = math.prod(self.image_shape)
        if n_numbers != n_features:
            size = " x ".join(map(str, self.image_shape))
            raise ValueError(
                f"{name} has {self!r}, and {size} is {n_numbers}, but the data have {n_features} "
                "features: give (channels, height, width) of a row, e.g. dataset.image_shape."
            )

    def check_number(self, name: str, least: float, most: float, kind: type = int) -> None:
        """Raise ValueError unless a setting is a number within limits; store a Python number."""
        value = plain_number(getattr(self, name), kind)
        if value is None or not least <= value <= most:
            what = "an integer" if kind is int else "a number"
            raise ValueError(
                f"`{name}` must be {what} from {least} to {most}, got {getattr(self, name)!r}."
            )
        object.__setattr__(self, name, value)


def plain_number(value: Any, kind: type = float) -> int | float | None:
    """Return a number, NumPy's included, as a Python number; None if it is not one of this kind."""
    is_integer = isinstance(value, Integral)
    if isinstance(value, bool) or not (is_integer or (kind is float and isinstance(value, Real))):
        return None
    return int(value) if is_integer else float(value)
