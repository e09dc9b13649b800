"""What is refused before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlp_xp.augmentation._base import Pictures
from mlp_xp.augmentation._values import Mixup

__all__ = ["check"]


def check(
    chosen: Sequence[Any], n_features: int, kinds: tuple[type, ...], *, name: str = "augmentation"
) -> None:
    """Refuse what is not one of some kinds of augmentation, or does not fit the data.

    Parameters
    ----------
    chosen : sequence
    n_features : int
        Of the data.
    kinds : tuple of type
        What may be among them.
    name : str
        What an error calls them.

    Raises
    ------
    TypeError
        If something is not of these kinds.
    ValueError
        If pictures of that shape do not have so many numbers, or two are of a kind that may be
        there once.

    Examples
    --------
    >>> from mlp_xp.augmentation import AUGMENTATIONS, Flip, check
    >>> check([Flip((1, 8, 8))], 64, AUGMENTATIONS)
    """
    shapes = set()
    for each in chosen:
        if not isinstance(each, kinds):
            call = ": give an object, with ()" if isinstance(each, type) else ""
            names = ", ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{name} has {each!r}, which is none of {names}{call}.")
        if not isinstance(each, Pictures):
            continue
        shape = each.image_shape
        shapes.add(shape)
        if math.prod(shape) != n_features:
            size = " x ".join(map(str, shape))
            raise ValueError(
                f"{name} has {each!r}, and {size} is {math.prod(shape)}, but the data have "
                f"{n_features} features: give (channels, height, width) of a row, e.g. "
                "dataset.image_shape."
            )
    if len(shapes) > 1:
        raise ValueError(f"{name} has different shapes of pictures, {sorted(shapes)}: give one.")
    if sum(isinstance(each, Mixup) for each in chosen) > 1:
        raise ValueError(f"{name} has several Mixup: give one, with a larger alpha.")
