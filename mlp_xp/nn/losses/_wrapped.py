"""The base class for losses that wrap another loss."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from mlp_xp.nn.losses._base import Loss


def _of_loss(name: str) -> Any:
    """Return a property for an attribute or a method of the wrapped loss."""
    return property(attrgetter(f"loss.{name}"))


class Wrapped(Loss):
    """A loss whose outputs have the same meaning as the outputs of ``loss``."""

    loss: Any

    is_own = _of_loss("is_own")
    has_std = _of_loss("has_std")
    outputs_per_target = _of_loss("outputs_per_target")
    levels = _of_loss("levels")
    is_correct = _of_loss("is_correct")
    check_targets = _of_loss("check_targets")
    point = _of_loss("point")
    centers = _of_loss("centers")
    std = _of_loss("std")
    quantiles = _of_loss("quantiles")
    units = _of_loss("units")
    raw_outputs = _of_loss("raw_outputs")
