"""The first and last moments of a command; needs nothing that takes time to load."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

__all__ = [
    "discard_output",
    "message_for_user",
    "printable",
    "process_began",
    "quit_at_ctrl_c",
    "quits_at_ctrl_c",
]


@contextlib.contextmanager
def quits_at_ctrl_c(*, is_process: bool) -> Iterator[None]:
    """End the process at Ctrl-C, with status 130: while libraries load, there is nothing to keep.

    An exception in the middle of an import would end in a traceback, or worse, in an import that
    half succeeded. Where the process is not the command's own, nothing changes.
    """
    if not quit_at_ctrl_c(is_process=is_process):
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def quit_at_ctrl_c(*, is_process: bool) -> bool:
    """End the process at Ctrl-C from now on, also while it exits; return whether that is ours."""
    if not is_process or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    return True


def process_began(*, is_process: bool = True) -> float:
    """Return when this process began, of `time.perf_counter`; where that is unknown, now."""
    now = time.perf_counter()
    if not is_process:
        return now
    try:
        # After the name, which may hold spaces and brackets; in ticks since the machine started.
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - age


def discard_output() -> None:
    """Send the rest of the output nowhere: its reader, e.g. `head`, has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def message_for_user(error: Exception) -> str | None:
    r"""Return one line for an error that the user can mend, None for a bug of ours.

    Examples
    --------
    >>> from mlp_xp.cli.start import message_for_user
    >>> message_for_user(ValueError("first line\nsecond line"))
    'first line second line'
    """
    expected: tuple[type[Exception], ...] = (ValueError, ImportError, OSError, OverflowError)
    if (backends := sys.modules.get("mlp_xp.backends")) is not None:
        expected = (*expected, backends.BackendError)
    text = printable(" ".join(str(error).split()))
    if isinstance(error, MemoryError):
        reason = f" ({text})" if text else ""
        return f"not enough memory{reason}: ask for less, e.g. a smaller --hidden or --batch-size"
    if not isinstance(error, expected):
        return None
    return text or type(error).__name__


def printable(text: object) -> str:
    r"""Return text with its control characters escaped: a file must not steer the terminal.

    Examples
    --------
    >>> from mlp_xp.cli.start import printable
    >>> print(printable("cat\x1b[2J"), printable("Löwe"))
    cat\x1b[2J Löwe
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )
