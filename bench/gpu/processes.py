"""Processes of check.py: each has a log and a group, and ends when it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

__all__ = ["STOPPING", "Process", "stop"]

# The seconds in which an interrupted process may write its results, as pytest does, and those after
# which a killed one is left alone: it may wait for a GPU for ever.
_GRACE, _LAST = 8, 2
STOPPING = _GRACE + _LAST


class Process:
    """A command that runs, with its output in a file.

    Parameters
    ----------
    command : list of str
    log : Path
    folder : Path
        Where it runs.
    env : dict of str to str
    """

    def __init__(self, command: list[str], log: Path, folder: Path, env: dict[str, str]) -> None:
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, None if it still runs after some seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(max(seconds, 0.0))
        return None

    def send(self, signum: int) -> None:
        """Send a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)


def stop(processes: Collection[Process], now: Callable[[], float] = time.monotonic) -> None:
    """Stop processes and their children, in `STOPPING` seconds at most."""
    for signum, seconds in ((signal.SIGINT, _GRACE), (signal.SIGKILL, _LAST)):
        running = [process for process in processes if process.wait(0) is None]
        end = now() + seconds
        for process in running:
            process.send(signum)
        for process in running:
            process.wait(end - now())
    for process in processes:  # Children may outlive what started them.
        process.send(signal.SIGKILL)
