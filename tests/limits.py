"""The limits of time that each test of the default run has."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROCESSOR_SECONDS, SECONDS = 1.0, 2.0
# What `_work` takes on the machine that the limits were set on; slower ones have more time.
WORK_SECONDS = 0.02


def _processor_seconds() -> float:
    """Return what this process and its children, once they ended, have used."""
    return sum(os.times()[:4])


def _waited_seconds() -> float:
    """Return how long this thread has waited for a processor; 0 where the system does not say."""
    path = Path("/proc/thread-self/schedstat")
    return int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0


def _work() -> float:
    start = time.thread_time()
    sum(i * i for i in range(500_000))
    return time.thread_time() - start


class Limits:
    """Fail a test that passes and takes too long; the time it waits for a processor is free."""

    def __init__(self) -> None:
        self._factor = max(1.0, min(_work() for _ in range(3)) / WORK_SECONDS)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        start = _processor_seconds(), time.perf_counter(), _waited_seconds()
        yield
        used = _processor_seconds() - start[0]
        took = time.perf_counter() - start[1] - (_waited_seconds() - start[2])
        if used > PROCESSOR_SECONDS * self._factor or took > SECONDS * self._factor:
            pytest.fail(
                f"took {used:.1f} s of processor time and {took:.1f} s in all, a test of the "
                f"default run has {PROCESSOR_SECONDS} and {SECONDS} (times {self._factor:.1f} on this "
                "machine): make it smaller, or mark it with pytest.mark.matrix",
                pytrace=False,
            )
