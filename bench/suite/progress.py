"""The progress of a run: a bar on a terminal, elsewhere a line for each part; both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

_KNOWN = 0.1  # Share that is done before a time left is shown: first turns import and compile.


class Progress:
    """A bar over the turns that each part announces, by its name, in their order."""

    def __init__(self, n_turns: Mapping[str, int]) -> None:
        from mlp_xp._utils.display.progress import open_bar
        from mlp_xp.training.loop.time_budget import Pace

        self._n_turns, self._total = dict(n_turns), max(1, sum(n_turns.values()))
        self._start, self._pace = time.perf_counter(), Pace()
        self._done, self._label = 0, ""
        # Once a second: a contender that is timed must have the processors.
        self._bar = open_bar(sys.stderr, refresh_per_second=1)

    def begin(self, part: str, title: str) -> None:
        """Start a part: those before it are done, also where some of their turns failed."""
        names = [*self._n_turns]
        place = names.index(part)
        self._done = sum(self._n_turns[name] for name in names[:place])
        self._label = f"{place + 1}/{len(names)} {part}"
        if self._bar is None:
            taken = time.perf_counter() - self._start
            text = f"part {place + 1} of {len(names)}, {title}  ({taken:.0f} s so far)"
            print(text, file=sys.stderr, flush=True)
        self.draw("preparing")

    def announce(self, turn: str) -> None:
        """Draw which turn begins; the former one is done."""
        self.draw(turn)
        self._done += 1

    def draw(self, text: str) -> None:
        """Draw the bar with a text."""
        if self._bar is not None:
            share = min(1.0, self._done / self._total)
            self._pace.update(share)
            left = self._pace.seconds_left() if share >= _KNOWN else None
            self._bar.update(f"{self._label}: {text}", share, (), left)
            self._bar.draw()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Stop the bar and leave it on the screen, at 100 % where nothing is raised."""
        if self._bar is not None:
            self._bar.stop(is_done=error is None)
