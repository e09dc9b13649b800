"""Progress bars: a line that is updated in a terminal, or about twenty printed lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from mlp_xp._utils.display.notebook import NotebookPlace, bar_html, in_notebook
from mlp_xp._utils.signals import ctrl_c_pressed

_LINES = 20
_SHORTEST, _LONGEST = 6, 40  # The width of a bar, in characters.

# Leave room for the "^C" that the terminal prints, since a wrapped line cannot be cleared.
_ECHO = len("^C")


class LiveBar:
    """A terminal line with a label, a bar, a percentage, metrics and the time left.

    ``unit`` names what is completed before a stop by Ctrl-C, e.g. ``"epoch"``.
    """

    def __init__(self, console: Any, unit: str = "step") -> None:
        self._unit = unit
        self._label, self._measures = "", tuple[str, ...]()
        self._fraction: float | None = None
        self._end: float | None = None
        self._start = time.perf_counter()
        self._is_done = False
        self._live = _live(self, console)
        self._live.start()

    def update(
        self, label: str, fraction: float | None, texts: Iterable[str], seconds_left: float | None
    ) -> None:
        """Update the bar: its label, the fraction done, metrics, and the time left.

        If ``fraction`` is None, the bar pulses. Metrics are sorted by importance, and the last ones
        are dropped if the line is too narrow.
        """
        self._label, self._fraction, self._measures = label, fraction, tuple(texts)
        self._end = None
        if seconds_left is not None and math.isfinite(seconds_left):
            self._end = time.perf_counter() + seconds_left
        if fraction is None:
            # Draw now, since the next call may hold the interpreter lock for a long time.
            self._live.refresh()

    def stop(self, *, is_done: bool) -> None:
        """Stop updating but leave the line on the screen, at 100 % if ``is_done``."""
        if is_done:
            self._fraction, self._is_done = 1.0, True
        self._live.stop()

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        percent = [] if self._fraction is None else [f"{int(100 * self._fraction):3} %"]
        last = self._last()
        measures = [*self._measures]
        room = options.max_width - _ECHO - _SHORTEST - len(self._label) - 2
        while measures and len("  ".join([*percent, *measures, *last])) > room:
            measures.pop()
        text = "  ".join([*percent, *measures, *last])
        label = self._label
        if room < len(text):
            label = f"{label[: room - len(text) - 1]}…"
        width = min(max(room - len(text), 0) + _SHORTEST, _LONGEST)
        bar = ProgressBar(1.0, self._fraction or 0.0, width, pulse=self._fraction is None)
        line = Table.grid(padding=(0, 1))
        for _ in range(3):
            line.add_column(no_wrap=True)
        line.add_row(label, bar, text)
        yield line

    def _last(self) -> list[str]:
        """Return the end of the line: the time left or the elapsed time, for example."""
        now = time.perf_counter()
        if self._is_done:
            return [f"took {_minutes(now - self._start)}"]
        if ctrl_c_pressed():
            return [f"stopping after this {self._unit}"]
        if self._end is not None:
            return [time_left(self._end - now)]
        return [] if self._fraction is None else [f"{_minutes(now - self._start)} so far"]


class NotebookBar:
    """The notebook version of `LiveBar`: a line below the cell, with optional HTML under it."""

    def __init__(self) -> None:
        self._place, self._bar, self._text, self._below = NotebookPlace(), "", "", ""

    def update(
        self, label: str, fraction: float | None, texts: Iterable[str], seconds_left: float | None
    ) -> None:
        """Update the bar; the parameters are the same as in `LiveBar.update`."""
        is_known = seconds_left is not None and math.isfinite(seconds_left)
        text = "  ".join([*texts, *([time_left(seconds_left or 0.0)] if is_known else [])])
        self._bar, self._text = bar_html(fraction, label, text), f"{label}  {text}"
        self._place.update(self._bar + self._below, self._text)

    def draw_below(self, html: str) -> None:
        """Show HTML below the bar."""
        self._below = html
        self._place.update(self._bar + html, self._text)

    def stop(self, *, is_done: bool) -> None:
        """Stop updating; the bar remains in the notebook."""


def open_bar(file: TextIO | None = None, unit: str = "step") -> LiveBar | NotebookBar | None:
    """Open a progress bar if rich is installed and the output is a notebook or a terminal."""
    if in_notebook():
        return NotebookBar()
    console = _terminal(file)
    return None if console is None else LiveBar(console, unit)


@contextlib.contextmanager
def spinner(text: str, file: TextIO) -> Iterator[bool]:
    """Show a text next to a spinner if the file is a terminal; yield whether it is a terminal."""
    console = _terminal(file)
    if console is None:
        yield False
        return
    from rich.spinner import Spinner

    with _live(Spinner("dots", text), console, transient=True):
        yield True


def _terminal(file: TextIO | None) -> Any:
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=file)
    # FORCE_COLOR makes rich treat a file as a terminal, but a bar in a file is unreadable.
    return console if console.is_interactive and console.file.isatty() else None


def _live(drawn: Any, console: Any, *, transient: bool = False) -> Any:
    """Return rich's live display for an object."""
    from rich.live import Live

    # Printed lines appear above the display; streams that are not terminals are not redirected.
    out, err = (stream is console.file or stream.isatty() for stream in (sys.stdout, sys.stderr))
    return Live(
        drawn,
        console=console,
        refresh_per_second=8,
        redirect_stdout=out,
        redirect_stderr=err,
        transient=transient,
    )


class TaskBar:
    """A progress bar with the number of finished tasks, metrics and the time left.

    If stdout is not a terminal, or the ``cli`` extra is not installed, about twenty lines are
    printed instead. ``name`` is the plural noun for the tasks.

    Examples
    --------
    >>> from mlp_xp._utils.display.progress import TaskBar
    >>> bar = TaskBar("models", 2)
    >>> bar.update("score 0.9")
    models 1/2  score 0.9  0:00 left
    >>> bar.update("score 0.95")
    models 2/2  score 0.95  0:00 left
    >>> bar.stop()
    """

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._start = time.perf_counter()
        self._live = open_bar(unit=name.removesuffix("s"))
        if self._live is not None:
            self._live.update(f"{name} 0/{total}", 0.0, (), None)

    def update(self, measures: str = "") -> None:
        """Count a task as finished, and update the bar."""
        self._done += 1
        elapsed = time.perf_counter() - self._start
        left = elapsed / self._done * (self._total - self._done)
        if self._live is not None:
            label = f"{self._name} {self._done}/{self._total}"
            self._live.update(label, self._done / self._total, filter(None, [measures]), left)
        elif _LINES * self._done // self._total > _LINES * (self._done - 1) // self._total:
            count = f"{self._done:{len(str(self._total))}}/{self._total}"
            parts = f"{self._name} {count}", measures, time_left(left)
            print("  ".join(filter(None, parts)), flush=True)

    def stop(self) -> None:
        """Stop the bar and leave it on the screen."""
        bar, self._live = self._live, None
        if bar is not None:
            bar.stop(is_done=self._done == self._total)


def time_left(seconds: float) -> str:
    """Return the time left as text, in minutes and seconds.

    Examples
    --------
    >>> from mlp_xp.callbacks import time_left
    >>> time_left(61.2)
    '1:01 left'
    """
    return f"{_minutes(seconds)} left"


def _minutes(seconds: float) -> str:
    minutes, seconds_over = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{seconds_over:02}"
