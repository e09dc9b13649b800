"""The output of a command: messages and progress for people, and a result for programs."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from mlp_xp._utils.display.progress import LiveBar, NotebookBar, open_bar, spinner
from mlp_xp.cli.terminal.lines import print_line, printable

_PAUSE = 10.0  # The seconds between two lines about what is being done.


class Output:
    """The output of a command.

    With ``--json``, stdout contains a single JSON object, and messages are printed on stderr. With
    ``--quiet``, only the result is printed. ``samples`` is the word for samples in messages,
    e.g. "images".
    """

    samples = "images"

    def __init__(self, args: argparse.Namespace) -> None:
        self._is_json = getattr(args, "json", False)
        self._is_quiet = getattr(args, "quiet", False)

    @property
    def _file(self) -> TextIO:
        return sys.stderr if self._is_json else sys.stdout

    def print(self, text: object) -> None:
        """Print a line, unless ``--quiet`` is given."""
        if not self._is_quiet:
            print_line(text, self._file)

    def result(self, text: str, content: dict[str, Any]) -> None:
        """Print the result as text, or as JSON with ``--json``."""
        if self._is_json:
            print(json.dumps(content, indent=2), flush=True)
            return
        for line in text.split("\n"):
            print_line(line)

    def suggest(self, commands: dict[str, str]) -> None:
        """Print suggested commands and their purposes, if the output is a terminal."""
        if self._is_quiet or self._is_json or not sys.stdout.isatty():
            return
        width = max(map(len, commands))
        print_line("next:")
        for command, purpose in commands.items():
            print_line(f"  {command:{width}}  {purpose}")

    @contextlib.contextmanager
    def doing(self, text: str, *, is_logged: bool = False) -> Iterator[None]:
        """Show a spinner on a terminal; elsewhere, print the text every 10 s.

        If ``is_logged`` is true, it is also printed at once.
        """
        if self._is_quiet:
            yield
            return
        with spinner(printable(text), self._file) as is_shown:
            if is_logged and not is_shown:
                self.print(text)
            with contextlib.nullcontext() if is_shown else self._repeating(text):
                yield

    @contextlib.contextmanager
    def _repeating(self, text: str) -> Iterator[None]:
        """Print a text with the time taken, again and again, until the end of the block."""
        start, is_over = time.perf_counter(), threading.Event()

        def repeat() -> None:
            with contextlib.suppress(OSError, ValueError):  # The output was closed.
                while not is_over.wait(_PAUSE):
                    self.print(f"{text}: {time.perf_counter() - start:.0f} s so far")

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    @property
    def shows_progress(self) -> bool:
        """Whether a function of the library may print its progress on stdout."""
        return not (self._is_quiet or self._is_json)

    def open_bar(self) -> LiveBar | NotebookBar | None:
        """Open a progress bar if the output is a terminal or a notebook."""
        return None if self._is_quiet else open_bar(self._file)
