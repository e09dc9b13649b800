"""The limits of time that each test of the default run has."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROCESSOR_SECONDS, SECONDS = 1.0, 2.0
# The same test has taken 0.65 and 1.1 s on two machines that do `_work` equally fast.
MARGIN = 1.5
MANY_MODULES = 20
# What `_work` takes on the machine that the limits were set on; slower ones have more time.
WORK_SECONDS = 0.02


def _processor_seconds() -> float:
    """Return what this process and its children, once they ended, have used."""
    return sum(os.times()[:4])


def _shares() -> tuple[float, float]:
    """Return the seconds that this thread has run and waited for a processor, if known."""
    path = Path("/proc/thread-self/schedstat")
    ran, waited = map(int, path.read_text().split()[:2]) if path.exists() else (1, 0)
    return ran / 1e9, waited / 1e9


def _work() -> float:
    start = time.thread_time()
    sum(i * i for i in range(500_000))
    return time.thread_time() - start


def _slowness() -> float:
    """Return how many times longer than on that machine the same work takes now; at least 1."""
    return max(1.0, min(_work() for _ in range(3)) / WORK_SECONDS)


class Limits:
    """Fail a test that passes and takes too long for this machine, which may be slow or busy.

    How slow it is now is measured after a test that took long: clock rates and neighbors change.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        used, took, loaded = _processor_seconds(), time.perf_counter(), len(sys.modules)
        yield
        used, took = _processor_seconds() - used, time.perf_counter() - took
        if used <= PROCESSOR_SECONDS and took <= SECONDS:
            return
        # The first test of a process that needs a library waits for its import.
        factor = MARGIN * _slowness() * (2 if len(sys.modules) - loaded > MANY_MODULES else 1)
        ran, waited = _shares()  # From the start: a child's own are not known.
        most_used = PROCESSOR_SECONDS * factor
        most = SECONDS * factor * (1 + waited / ran)
        if used > most_used or took > most:
            pytest.fail(
                f"took {used:.1f} s of processor time and {took:.1f} s in all; on this machine a "
                f"test of the default run has {most_used:.1f} and {most:.1f}: make it smaller, or "
                "mark it with pytest.mark.matrix",
                pytrace=False,
            )
