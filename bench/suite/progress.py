"""The progress of a run on stderr: a bar on a terminal, otherwise a line per part."""

import sys
import time
from collections.abc import Sequence


class Progress:
    """A progress bar over the parts of a run, with the current turn and the time left."""

    def __init__(self, parts: Sequence[str]) -> None:
        from mlp_xp._utils.display.progress import open_bar
        from mlp_xp.training.loop.time_budget import Pace

        self._parts, self._start, self._pace = parts, time.perf_counter(), Pace()
        self._share, self._label = 0.0, ""
        # Update once per second, because the timed contender needs the CPU cores.
        self._bar = open_bar(sys.stderr, refresh_per_second=1)

    def begin(self, part: str, title: str) -> None:
        """Start a part."""
        number, total = self._parts.index(part), len(self._parts)
        self._share, self._label = number / total, f"{number + 1}/{total} {part}"
        self._pace.update(self._share)
        if self._bar is None:
            taken = time.perf_counter() - self._start
            text = f"part {number + 1} of {total}, {title}  ({taken:.0f} s so far)"
            print(text, file=sys.stderr, flush=True)
        self.announce("preparing")

    def announce(self, turn: str) -> None:
        """Show the turn that starts."""
        if self._bar is not None:
            left = self._pace.seconds_left() if self._share else None
            self._bar.update(f"{self._label}: {turn}", self._share, (), left)
            self._bar.draw()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Stop the bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.stop(is_done=error is None)
