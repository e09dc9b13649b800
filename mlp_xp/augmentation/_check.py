"""Check the parameters ``augmentation`` and ``tta``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlp_xp.augmentation._base import Augmentation


def check(chosen: Sequence[Any], n_features: int, *, name: str = "augmentation") -> None:
    """Raise TypeError or ValueError if augmentations do not match the data, or each other.

    ``name`` is the parameter's name. If it is "tta", augmentations must have `Augmentation.views`.
    """
    averages = name == "tta"
    valid = "Flip, Shift" if averages else "Flip, Shift, Cutout, ColorJitter, Mixup"
    own = "with views" if averages else "of your own"
    for entry in chosen:
        if not isinstance(entry, Augmentation) or (averages and not entry.views):
            call = ": create an object with ()" if isinstance(entry, type) else ""
            kinds = f"not one of {valid}, and not an Augmentation {own}"
            raise TypeError(f"{name} has {entry!r}, which is {kinds}{call}.")
        entry.check(n_features, name)
    shapes = {shape for entry in chosen if (shape := getattr(entry, "image_shape", None))}
    if len(shapes) > 1:
        raise ValueError(f"{name} has different image shapes, {sorted(shapes)}: use the same one.")
    mixing = [type(entry).__name__ for entry in chosen if entry.mixes_targets]
    if len(mixing) > 1:
        names = " and ".join(dict.fromkeys(mixing))
        raise ValueError(f"{name} has several {names}, which mix targets: use only one.")
