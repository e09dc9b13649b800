"""Base classes for augmentations, and the rows of an epoch for which they draw random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace

# A host array and a random generator. Only `_utils.random` depends on their library.
HostArray = Any
# An array with one row per sample in a batch or epoch. In a view, a Python number.
Values = Any
# A NamedTuple of `Values`.
Draws = Any


class Epoch(NamedTuple):
    """The rows of all batches in an epoch, including padding.

    ``generator(stream)`` returns a random generator on the host, and ``number`` is the epoch, from
    0. ``rows : (rows,)`` are indices into the ``n_samples`` samples. For each row, ``steps``,
    ``positions`` and ``batch_sizes``, all ``(rows,)``, are the step, the row's position in the
    batch, and the number of samples in the batch. Padding rows come last.
    """

    generator: Callable[[int], Any]
    number: int
    rows: HostArray
    n_samples: int
    steps: HostArray
    positions: HostArray
    batch_sizes: HostArray

    def new_generator(self) -> Any:
        """Return the random generator whose numbers differ in each epoch.

        Draw the numbers row by row, so that padding does not change the numbers of earlier rows.
        """
        return self.generator(self.number + 1)

    def fixed_generator(self) -> Any:
        """Return the random generator whose numbers are the same in all epochs."""
        return self.generator(0)


class Mixture(NamedTuple):
    """How to mix samples: each sample's partner and its own weight, both ``(batch,)``."""

    partners: Array
    share: Array


class Augmentation:
    """The base class for augmentations: frozen dataclasses whose fields are the settings.

    A custom augmentation implements `draw` and `apply`. `Geometric` is the base class for
    augmentations that move pixels.

    Attributes
    ----------
    mixes_targets : bool, default=False
        Whether the augmentation mixes the targets, too. At most one augmentation of a model can do
        so.
    """

    mixes_targets: ClassVar[bool] = False

    @property
    def views(self) -> tuple[Draws, ...]:
        """The image variants, as arguments for `apply`, that a prediction with ``tta`` averages."""
        return ()

    def check(self, n_features: int, name: str) -> None:
        """Raise ValueError if the number of features is invalid; by default, any number is valid.

        ``name`` is the parameter's name in the message.
        """

    def draw(self, epoch: Epoch) -> Draws:
        """Draw random numbers for all rows of an epoch, on the host.

        Parameters
        ----------
        epoch : Epoch

        Returns
        -------
        NamedTuple of (rows, ...) arrays
            Integers are copied to the device unchanged; real numbers are converted to the dtype of
            the parameters.
        """
        raise NotImplementedError

    def apply(self, x: Array, draws: Draws, *, xp: Namespace) -> Array:
        """Return the changed batch; by default, return it unchanged.

        Parameters
        ----------
        x : (batch, features) array
            The batch, in floating point and scaled. Never write to it.
        draws : NamedTuple of (batch, ...) arrays
            This batch's part of the numbers from `draw`.
        xp : namespace

        Returns
        -------
        (batch, features) array
        """
        return x

    def mixture(self, draws: Draws) -> Mixture:
        """Return how `apply` mixed the samples, so that the targets can be mixed, too."""
        raise NotImplementedError


class ImageAugmentation(Augmentation):
    """The base class for image augmentations; images are (channels, height, width)."""

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
                "features: set image_shape to the shape of a row, e.g. dataset.image_shape. For "
                "rows that are not images, use a recipe for tables: from_recipe('table')."
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
    """Convert a Python or NumPy number to a Python number; return None for anything else."""
    is_integer = isinstance(value, Integral)
    if isinstance(value, bool) or not (is_integer or (kind is float and isinstance(value, Real))):
        return None
    return int(value) if is_integer else float(value)
