"""Time limits for each test of the default run."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROCESSOR_SECONDS, SECONDS = 1.0, 2.0
# The same test took 0.65 s and 1.1 s on two machines that run `_work` equally fast.
MARGIN = 1.5
MANY_MODULES = 20
# The time of `_work` on the machine for which the limits were set; slower machines get more time.
WORK_SECONDS = 0.02


def _processor_seconds() -> float:
    """Return the processor time of this process and its finished children."""
    return sum(os.times()[:4])


def _shares() -> tuple[float, float]:
    """Return the seconds that this thread has run, and has waited for a processor."""
    path = Path("/proc/thread-self/schedstat")
    ran, waited = map(int, path.read_text().split()[:2]) if path.exists() else (1, 0)
    return ran / 1e9, waited / 1e9


def _work() -> float:
    start = time.thread_time()
    sum(i * i for i in range(500_000))
    return time.thread_time() - start


def slowness() -> float:
    """Return the time of `_work` relative to `WORK_SECONDS`, at least 1."""
    return max(1.0, min(_work() for _ in range(3)) / WORK_SECONDS)


class Limits:
    """Fail tests that pass but take too long for this machine.

    The speed of the machine is measured after each long test, because it varies with the load.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        used, took, loaded = _processor_seconds(), time.perf_counter(), len(sys.modules)
        ran, waited = _shares()
        yield
        used, took = _processor_seconds() - used, time.perf_counter() - took
        if used <= PROCESSOR_SECONDS and took <= SECONDS:
            return
        # A test that imports a library gets more time.
        factor = MARGIN * slowness() * (2 if len(sys.modules) - loaded > MANY_MODULES else 1)
        ran, waited = (
            after - before for after, before in zip(_shares(), (ran, waited), strict=True)
        )
        most_used = PROCESSOR_SECONDS * factor
        most = SECONDS * factor * (1 + waited / max(ran, 0.1))
        if used > most_used or took > most:
            pytest.fail(
                f"took {used:.1f} s of processor time and {took:.1f} s in total; on this machine "
                f"the limits are {most_used:.1f} and {most:.1f}: make the test smaller, or mark it "
                "with pytest.mark.matrix",
                pytrace=False,
            )
