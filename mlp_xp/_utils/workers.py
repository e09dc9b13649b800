"""The threads that each fit one of many models, and what such a thread knows of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any, NamedTuple

__all__ = ["Worker", "current_worker", "n_models", "reporting", "worker_context", "working"]


class Worker(NamedTuple):
    """A thread that fits one of ``n_models`` models, each on ``n_threads`` threads.

    ``is_stopped()`` is whether all of them are to end, and ``report(record)`` is called after each
    epoch.
    """

    n_threads: int
    n_models: int
    is_stopped: Callable[[], bool]
    report: Callable[[Any], None] | None = None


_worker: ContextVar[Worker | None] = ContextVar("worker", default=None)


def current_worker() -> Worker | None:
    """Return the worker that this thread is, or None."""
    return _worker.get()


def n_models() -> int:
    """Return how many models are fitted together with this thread's model."""
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
    """Return a copy of the context in which this thread is a worker."""
    context = copy_context()
    context.run(_worker.set, worker)
    return context


@contextlib.contextmanager
def reporting(report: Callable[[Any], None] | None) -> Iterator[None]:
    """Report the epochs of the fit that this worker begins now."""
    worker = _worker.get()
    assert worker is not None
    with working(worker._replace(report=report)):
        yield
