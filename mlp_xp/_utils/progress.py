"""The progress of a known number of tasks: a bar on a terminal, about twenty lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["TaskBar", "time_left"]

_LINES = 20


class TaskBar:
    """A progress bar with tasks done, facts and time left.

    Where stdout is no terminal, or the ``cli`` extra is not installed, about twenty lines are
    printed instead.

    Parameters
    ----------
    name : str
        What a task is, in the plural.
    total : int

    Examples
    --------
    >>> from mlp_xp._utils.progress import TaskBar
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
        self._live = self._open()

    def _open(self) -> Any:
        try:
            import rich.console
            import rich.progress
        except ImportError:
            return None
        console = rich.console.Console()
        # FORCE_COLOR makes rich take a file for a terminal; a bar in a file is garbage.
        if not (console.is_interactive and console.file.isatty()):
            return None
        columns = (
            f"{self._name} {{task.completed}}/{self._total}",
            rich.progress.BarColumn(bar_width=None),
            "{task.fields[facts]}",
            "{task.fields[left]}",
        )
        bar = rich.progress.Progress(*columns, console=console, expand=True, refresh_per_second=4)
        bar.add_task("", total=self._total, facts="", left="")
        bar.start()
        return bar

    def update(self, facts: str = "") -> None:
        """Count a task as done."""
        self._done += 1
        elapsed = time.perf_counter() - self._start
        left = time_left(elapsed / self._done * (self._total - self._done))
        if self._live is not None:
            self._live.update(0, completed=self._done, facts=facts, left=left)
        elif _LINES * self._done // self._total > _LINES * (self._done - 1) // self._total:
            count = f"{self._done:{len(str(self._total))}}/{self._total}"
            print("  ".join(filter(None, (f"{self._name} {count}", facts, left))), flush=True)

    def stop(self) -> None:
        """Stop the bar and leave it on the screen."""
        bar, self._live = self._live, None
        if bar is not None:
            bar.stop()


def time_left(seconds: float) -> str:
    """Return seconds as minutes and seconds.

    Examples
    --------
    >>> from mlp_xp.callbacks import time_left
    >>> time_left(61.2)
    '1:01 left'
    """
    minutes, seconds_over = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{seconds_over:02} left"
