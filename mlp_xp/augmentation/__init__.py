"""Augmentation: random changes to the samples at each step that leave their labels correct.

Rows are images, one channel plane after another, (batch, channels * height * width). `Flip`,
`Shift` and `Cutout` move whole pixels in the data's dtype; a single pass applies any number of
them. `ColorJitter` and `Mixup` change the network's inputs, after conversion to floating point and
input scaling. The host draws random numbers from (seed, "augmentation", epoch), so a seed gives the
same images on every backend. `backends` has fast kernels that gather images, and `training` defines
the order of operations in a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_xp._utils.lazy import lazy
from mlp_xp.augmentation._base import Augmentation, Draws, Epoch, ImageAugmentation, Mixture
from mlp_xp.augmentation._check import check
from mlp_xp.augmentation._pixels import (
    Geometric,
    PixelMap,
    make_pixel_map,
    map_pixels,
    take_lines,
    take_pixels,
    view_draws,
)

if TYPE_CHECKING:
    from mlp_xp.augmentation._geometric import (
        Cutout,
        CutoutDraws,
        Flip,
        FlipDraws,
        Shift,
        ShiftDraws,
    )
    from mlp_xp.augmentation._values import ColorJitter, ColorJitterDraws, Mixup, MixupDraws

__all__ = [
    "Augmentation",
    "ColorJitter",
    "ColorJitterDraws",
    "Cutout",
    "CutoutDraws",
    "Epoch",
    "Flip",
    "FlipDraws",
    "Geometric",
    "ImageAugmentation",
    "Mixture",
    "Mixup",
    "MixupDraws",
    "Shift",
    "ShiftDraws",
    "make_pixel_map",
    "map_pixels",
]

_GEOMETRIC = "Cutout", "CutoutDraws", "Flip", "FlipDraws", "Shift", "ShiftDraws"
_VALUES = "ColorJitter", "ColorJitterDraws", "Mixup", "MixupDraws"
_MODULES = dict.fromkeys(_GEOMETRIC, "mlp_xp.augmentation._geometric")
_MODULES |= dict.fromkeys(_VALUES, "mlp_xp.augmentation._values")
__getattr__ = lazy(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
