"""Augmentation: pictures changed at random at each step, in ways that leave their labels right.

Rows are pictures, channel planes one after the other, (batch, channels * height * width). `Flip`,
`Shift` and `Cutout` move whole pixels: in the dtype that the data have, exactly, and any number of
them together in one pass. `ColorJitter` and `Mixup` compute with what the network sees, behind the
conversion to floating point and the input scaling. What is random is drawn on the host, from (seed,
"augmentation", epoch), so that the same seed gives the same pictures on every backend.
"""

from mlp_xp.augmentation._base import Augmentation, Epoch, columns
from mlp_xp.augmentation._check import check
from mlp_xp.augmentation._geometric import (
    Cutout,
    Flip,
    Geometric,
    Shift,
    View,
    look,
    pick,
    pick_lines,
    view_of,
    views_of,
)
from mlp_xp.augmentation._values import ColorJitter, Mixup

__all__ = [
    "AUGMENTATIONS",
    "VIEWS",
    "Augmentation",
    "ColorJitter",
    "Cutout",
    "Epoch",
    "Flip",
    "Geometric",
    "Mixup",
    "Shift",
    "View",
    "check",
    "columns",
    "look",
    "pick",
    "pick_lines",
    "view_of",
    "views_of",
]

AUGMENTATIONS = (Flip, Shift, Cutout, ColorJitter, Mixup)
# Those that a prediction may average over.
VIEWS = (Flip, Shift)
