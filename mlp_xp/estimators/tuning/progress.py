"""The progress of a search: what is tried, the best loss so far, and the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlp_xp._utils.display.progress import open_bar, time_left


class Progress:
    """The progress of a search; this class displays nothing."""

    def begin(self, configuration: Any, trials: Sequence[Any], clock: Any) -> None:
        """Show what is tried now, the last of the trials."""

    def update(self, trials: Sequence[Any]) -> None:
        """Show the best loss after a fit."""

    def end(self, trials: Sequence[Any]) -> None:
        """Show the results of the last trials."""

    def stop(self) -> None:
        """End the display."""


class Display(Progress):
    """A progress bar in a terminal or notebook, or a printed line per configuration elsewhere."""

    def __init__(self, n_configurations: float) -> None:
        self._most, self._bar, self._n_printed = n_configurations, open_bar(unit="step"), 0
        self._label = ""
        self._clock: Any = None

    def begin(self, configuration: Any, trials: Sequence[Any], clock: Any) -> None:
        """Name the configuration."""
        self._clock = clock
        of = "" if math.isinf(self._most) else f"/{int(self._most)}"
        self._label = f"configuration {len(trials)}{of}: {configuration.name}"
        self.update(trials)

    def update(self, trials: Sequence[Any]) -> None:
        """Update the bar."""
        if self._bar is not None:
            done = self._fraction(len(trials))
            self._bar.update(self._label, done, self._texts(trials), self._left())

    def end(self, trials: Sequence[Any]) -> None:
        """Update the bar, or print a line for each new trial."""
        self.update(trials)
        if self._bar is not None:
            return
        for trial in trials[self._n_printed :]:
            name, losses = trial.configuration.name, trial.losses
            loss = f"loss {sum(losses.values()) / len(losses):.4g}" if losses else ""
            left = self._left()
            parts = [f"{trial.configuration.number + 1} {name}", trial.status, loss]
            parts += [*self._texts(trials), *([] if left is None else [time_left(left)])]
            print("  ".join(filter(None, parts)), flush=True)
        self._n_printed = len(trials)

    def stop(self) -> None:
        """Leave the bar on the screen."""
        if self._bar is not None:
            self._bar.stop(is_done=True)

    def _texts(self, trials: Sequence[Any]) -> list[str]:
        losses = [sum(t.losses.values()) / len(t.losses) for t in trials if t.status == "complete"]
        return [f"best {min(losses):.4g}"] if losses else []

    def _left(self) -> float | None:
        left = math.inf if self._clock is None else self._clock.left
        return None if math.isinf(left) else max(0.0, left)

    def _fraction(self, number: int) -> float:
        clock = self._clock
        passed = (
            0.0 if clock is None or math.isinf(clock.seconds) else 1 - clock.left / clock.seconds
        )
        return min(1.0, max(passed, 0.0 if math.isinf(self._most) else number / self._most))
