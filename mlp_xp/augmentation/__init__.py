"""Augmentation: random changes of the samples at each step that keep their labels correct.

Rows are images, one channel plane after another, (batch, channels * height * width). `Flip`,
`Shift` and `Cutout` move whole pixels exactly, in the dtype of the data, and any number of them in
a single pass. `ColorJitter` and `Mixup` change the network's inputs, after conversion to floating
point and input scaling. Random numbers are drawn on the host, from (seed, "augmentation", epoch),
so the same seed gives the same images on every backend. `backends` gathers images fast, and
`training` defines the order of a training step.
"""

from mlp_xp.augmentation._base import Augmentation, Draws, Epoch, ImageAugmentation, Mixture
from mlp_xp.augmentation._check import check
from mlp_xp.augmentation._geometric import (
    Cutout,
    CutoutDraws,
    Flip,
    FlipDraws,
    Shift,
    ShiftDraws,
)
from mlp_xp.augmentation._pixels import (
    Geometric,
    PixelMap,
    make_pixel_map,
    map_pixels,
    take_lines,
    take_pixels,
    view_draws,
)
from mlp_xp.augmentation._values import ColorJitter, ColorJitterDraws, Mixup, MixupDraws

__all__ = [
    "AUGMENTATIONS",
    "WITH_VIEWS",
    "Augmentation",
    "ColorJitter",
    "ColorJitterDraws",
    "Cutout",
    "CutoutDraws",
    "Draws",
    "Epoch",
    "Flip",
    "FlipDraws",
    "Geometric",
    "ImageAugmentation",
    "Mixture",
    "Mixup",
    "MixupDraws",
    "PixelMap",
    "Shift",
    "ShiftDraws",
    "check",
    "make_pixel_map",
    "map_pixels",
    "take_lines",
    "take_pixels",
    "view_draws",
]

# The built-in augmentations that a model folder or a recipe can name.
AUGMENTATIONS = (Flip, Shift, Cutout, ColorJitter, Mixup)
# Augmentations that a prediction can average over.
WITH_VIEWS = (Flip, Shift)
