"""Worker threads, each of which fits models one after another."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
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
    is_over: Callable[[], bool] = lambda: False,
) -> Generator[R]:
    """Yield the results of tasks as they finish, in any order.

    The tasks in progress end after the current step, without results, when the generator is closed,
    on Ctrl-C, or once ``is_over()`` returns True. ``work(task)`` returns a result and raises no
    errors. ``n_workers`` of the ``n_tasks`` tasks run at once, each on ``n_threads`` threads.
    """
    is_closed, config = threading.Event(), sklearn.get_config()
    with interrupts() as is_pressed, backend.sharing(n_threads):

        def is_stopped() -> bool:
            return is_closed.is_set() or is_pressed() or is_over()

        worker = Worker(n_threads, n_tasks, is_stopped)

        def run(task: T) -> Any:
            if is_stopped():
                return None
            # A new thread would start with scikit-learn's defaults.
            with sklearn.config_context(**config), working(worker):
                return work(task)

        remaining, waiting = iter(tasks), set[Future[Any]]()
        if n_workers == 1:
            # Run the tasks here: a worker thread would compete with this thread for the interpreter
            # lock.
            for task in remaining:
                result = run(task)
                if is_stopped():
                    return
                yield result
            return
        pool = ThreadPoolExecutor(n_workers, "mlp_xp-model")
        try:
            while not is_stopped():
                # Each thread has its next task queued, so it need not wait for the caller.
                for task in itertools.islice(remaining, 2 * n_workers - len(waiting)):
                    waiting.add(pool.submit(copy_context_for_thread().run, run, task))
                if not waiting:
                    return
                ended, waiting = wait(waiting, _LONGEST, FIRST_COMPLETED)
                for future in ended:
                    result = future.result()
                    if is_stopped():
                        return
                    yield result
        finally:
            is_closed.set()
            pool.shutdown(cancel_futures=True)
