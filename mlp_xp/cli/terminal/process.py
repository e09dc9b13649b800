"""The process of a command: Ctrl-C, start time, closed pipes and error messages."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from mlp_xp.cli.terminal.lines import printable

_AGAIN = 0.01  # Seconds until a lost Ctrl-C is raised again.


@contextlib.contextmanager
def exits_on_ctrl_c(*, is_process: bool) -> Iterator[None]:
    """Exit with status 130 on Ctrl-C while libraries are loaded.

    An exception during an import would cause a traceback or a half-finished import. If a program
    calls the command, ``is_process`` is false and Ctrl-C is not handled here.
    """
    is_installed = exit_on_ctrl_c(is_process=is_process)
    try:
        yield
    finally:
        if is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def exit_on_ctrl_c(*, is_process: bool) -> bool:
    """Install a handler that exits with status 130 on Ctrl-C; return whether this was possible."""
    if not is_process or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    return True


@contextlib.contextmanager
def repeats_lost_ctrl_c(*, is_process: bool) -> Iterator[None]:
    """Raise a `KeyboardInterrupt` again if it occurred where Python prints and ignores exceptions.

    This happens, for example, in the import system's weak-reference callbacks.
    """
    if not is_process:
        yield
        return
    former = sys.unraisablehook

    def handle(found: Any) -> None:
        if not issubclass(found.exc_type, KeyboardInterrupt):
            former(found)
            return
        # Raise the interrupt again after the callback has returned.
        timer = threading.Timer(_AGAIN, _thread.interrupt_main)
        timer.daemon = True
        timer.start()

    sys.unraisablehook = handle
    try:
        yield
    finally:
        sys.unraisablehook = former


def start_time(*, is_process: bool = True) -> float:
    """Return the `time.perf_counter()` value at the start of the process, or now if unknown."""
    now = time.perf_counter()
    if not is_process:
        return now
    try:
        # Read the start time in ticks since boot. The name in parentheses may contain spaces.
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - age


@contextlib.contextmanager
def starting(text: str) -> Iterator[None]:
    """Show a text on stderr during the context, if stderr is a terminal."""
    stream = sys.stderr
    if stream is None or not stream.isatty() or "--quiet" in sys.argv:
        yield
        return
    print(f"mlp-xp: {text}", end="", file=stream, flush=True)
    try:
        yield
    finally:
        blank = " " * len(f"mlp-xp: {text}")  # Old consoles of Windows do not know "\x1b[K".
        print(f"\r{blank}\r", end="", file=stream, flush=True)


@contextlib.contextmanager
def without_pandas(*, is_process: bool) -> Iterator[None]:
    """Disable the import of pandas during the context.

    scikit-learn would import pandas, which takes 30 MB and 0.3 s, but no command uses data frames.
    None in `sys.modules` is Python's way to make an import fail:
    https://docs.python.org/3/reference/import.html#the-module-cache.
    """
    if not is_process or "pandas" in sys.modules:
        yield
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["pandas"]


def open_streams(*, is_process: bool) -> None:
    """Discard output to closed streams, and escape characters that a stream's encoding lacks."""
    for name in ("stdout", "stderr") if is_process else ():
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Discard further output after the reader, e.g. ``head``, has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def message_for_user(error: Exception) -> str | None:
    r"""Return a message for an error that the user can fix, or None for a bug in this library."""
    expected: tuple[type[Exception], ...] = (ValueError, ImportError, OSError, OverflowError)
    if (backends := sys.modules.get("mlp_xp.backends")) is not None:
        expected = (*expected, backends.BackendError)
    if (distributed := sys.modules.get("mlp_xp.distributed")) is not None:
        expected = (*expected, distributed.RankError)
    text = printable(" ".join(str(error).split()))
    if isinstance(error, MemoryError):
        reason = f" ({text})" if text else ""
        return f"not enough memory{reason}: use less, e.g. a smaller --hidden or --batch-size"
    if not isinstance(error, expected):
        return None
    return text or type(error).__name__
