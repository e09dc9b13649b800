"""The base class for losses that wrap another loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.losses._base import Loss


class Wrapped(Loss):
    """A loss whose outputs have the same meaning as the outputs of ``loss``."""

    loss: Any

    @property
    def is_own(self) -> bool:  # type: ignore[override]
        return bool(self.loss.is_own)

    @property
    def has_std(self) -> bool:  # type: ignore[override]
        return bool(self.loss.has_std)

    @property
    def outputs_per_target(self) -> int:
        return int(self.loss.outputs_per_target)

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(self.loss.levels)

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Any:
        return self.loss.is_correct(logits, targets, xp=xp)

    def check_targets(self, targets: Array, name: str = "y", *, xp: Namespace) -> None:
        self.loss.check_targets(targets, name, xp=xp)

    def point(self, outputs: Array, *, xp: Namespace) -> Any:
        return self.loss.point(outputs, xp=xp)

    def centers(self, outputs: Array, *, xp: Namespace) -> Any:
        return self.loss.centers(outputs, xp=xp)

    def std(self, outputs: Array, *, xp: Namespace) -> Any:
        return self.loss.std(outputs, xp=xp)

    def quantiles(self, outputs: Array, levels: Sequence[float], *, xp: Namespace) -> Any:
        return self.loss.quantiles(outputs, levels, xp=xp)

    def units(self, mean: Array, deviation: Array, *, xp: Namespace) -> Any:
        return self.loss.units(mean, deviation, xp=xp)

    def raw_outputs(self, outputs: Array, *, xp: Namespace) -> Any:
        return self.loss.raw_outputs(outputs, xp=xp)
