"""The base class for losses that wrap another loss."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from mlp_xp.nn.losses._base import Loss


class Wrapped(Loss):
    """A loss whose outputs have the same meaning as the outputs of ``loss``."""

    loss: Any


# These attributes and methods are the attributes and methods of ``loss``.
for _name in (
    *("is_own", "has_std", "outputs_per_target", "levels", "is_correct", "check_targets"),
    *("point", "centers", "std", "quantiles", "units", "raw_outputs"),
):
    setattr(Wrapped, _name, property(attrgetter(f"loss.{_name}")))
