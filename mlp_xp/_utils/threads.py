"""Count the threads that a fit may use, and mark threads that fit one of several models."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar, copy_context
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

THREADS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


class Worker(NamedTuple):
    """A thread that fits one of ``n_models`` models; each fit uses ``n_threads`` threads.

    ``is_stopped()`` returns whether all fits must stop; ``report(record)`` is called after each
    epoch.
    """

    n_threads: int
    n_models: int
    is_stopped: Callable[[], bool]
    report: Callable[[Any], None] | None = None


_worker: ContextVar[Worker | None] = ContextVar("worker", default=None)


def current_worker() -> Worker | None:
    """Return this thread's worker, or None."""
    return _worker.get()


def n_models() -> int:
    """Return the number of models being fitted concurrently, including this thread's model."""
    worker = _worker.get()
    return 1 if worker is None else worker.n_models


@contextlib.contextmanager
def working(worker: Worker) -> Iterator[None]:
    """Mark this thread as a worker."""
    token = _worker.set(worker)
    try:
        yield
    finally:
        _worker.reset(token)


def worker_context(worker: Worker) -> Context:
    """Return a copy of the current context in which the worker is set."""
    context = copy_context()
    context.run(_worker.set, worker)
    return context


@contextlib.contextmanager
def reporting(report: Callable[[Any], None] | None) -> Iterator[None]:
    """Call ``report`` after each epoch of this worker's fit."""
    worker = _worker.get()
    assert worker is not None
    with working(worker._replace(report=report)):
        yield


def usable_threads() -> int:
    """Return the number of BLAS threads, from environment variables or the number of processors.

    CPU affinity, a container's quota and ``LOKY_MAX_CPU_COUNT`` limit the number of processors. If
    many models are fitted at once, return the number of threads per model.
    """
    worker = current_worker()
    if worker is not None:
        return worker.n_threads
    for name in THREADS_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    from joblib import cpu_count

    return min(int(cpu_count()), quota())


@functools.cache
def quota(system: Path = Path("/")) -> int:
    """Return the number of processors that the quotas of this process's cgroups allow (Linux)."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = [math.inf]
    for _, controllers, path in (line.split(":", 2) for line in lines):
        # Version 2 of cgroups names no controllers; version 1 mounts them together or separately.
        mounts = {"", "unified"} if not controllers else {controllers, *controllers.split(",")}
        if controllers and "cpu" not in mounts:
            continue
        nested = PurePosixPath(path.lstrip("/"))
        for folder in (
            system / "sys/fs/cgroup" / mount / part
            for mount in mounts
            for part in (nested, *nested.parents)
        ):
            for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
                try:
                    given, period = " ".join((folder / name).read_text() for name in files).split()
                    found += [float(given) / float(period)] if float(given) > 0 else []
                except (OSError, ValueError):  # No such file, or no quota ("max").
                    pass
    least = min(found)
    return max(1, math.ceil(least)) if least < math.inf else 1 << 16
