"""Worker threads that fit many models, one after another."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import sklearn

from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.sklearn_compat import copy_context_for_thread
from mlp_xp._utils.threads import Worker, working
from mlp_xp.backends import Backend

T = TypeVar("T")
R = TypeVar("R")
# Seconds to wait for a result: on Windows, Python handles Ctrl-C only between waits.
_LONGEST = 0.1 if os.name == "nt" else None


def work_in_threads(
    work: Callable[[T], R],
    tasks: Iterable[T],
    *,
    n_tasks: int,
    n_workers: int,
    n_threads: int,
    backend: Backend,
) -> Generator[R]:
    """Yield the results of tasks as they finish, in any order.

    Closing the generator, or Ctrl-C, ends the tasks in progress after the current step, without
    results. ``work(task)`` returns a result and raises no errors. ``n_workers`` of the ``n_tasks``
    tasks run at once, each on ``n_threads`` threads.
    """
    results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    remaining, lock, is_closed = iter(tasks), threading.Lock(), threading.Event()
    config = sklearn.get_config()  # New threads would start with scikit-learn's defaults.
    end: Any = object()

    def next_task() -> Any:
        with lock:
            return next(remaining, end)

    def run(worker: Worker) -> None:
        error = None
        try:
            with sklearn.config_context(**config), working(worker):
                while not worker.is_stopped() and (task := next_task()) is not end:
                    result = work(task)
                    if not worker.is_stopped():
                        results.put((False, result))
        except BaseException as raised:
            error = raised
        finally:
            results.put((True, error))

    with contextlib.ExitStack() as context:
        is_pressed = context.enter_context(interrupts())
        context.enter_context(backend.sharing(n_threads))

        def is_stopped() -> bool:
            return is_closed.is_set() or is_pressed()

        worker = Worker(n_threads, n_tasks, is_stopped)
        if n_workers == 1:
            # Run the tasks here: a worker thread would compete with this thread for the interpreter
            # lock.
            while not is_stopped() and (task := next_task()) is not end:
                with working(worker):
                    result = work(task)
                if not is_stopped():
                    yield result
            return
        threads = [
            threading.Thread(
                target=copy_context_for_thread().run,
                args=(run, worker),
                name=f"mlp_xp-model-{number}",
            )
            for number in range(n_workers)
        ]
        try:
            for thread in threads:
                thread.start()
            n_ended = 0
            while n_ended < n_workers:
                try:
                    is_end, result = results.get(timeout=_LONGEST)
                except queue.Empty:
                    continue
                n_ended += is_end
                if not is_end:
                    yield result
                elif result is not None:
                    raise result
        finally:
            is_closed.set()
            for thread in threads:
                thread.join()
