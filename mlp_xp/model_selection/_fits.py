"""Run the fits of scikit-learn's calls, including the preprocessing steps of pipelines."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from sklearn import get_config
from sklearn.utils import _safe_indexing

from mlp_xp._utils.signals import interrupts
from mlp_xp.estimators.many import FitTask, fit_many
from mlp_xp.model_selection._calls import Call


def fitted(
    calls: Iterable[Call], n_jobs: int | None
) -> Iterator[tuple[Call, Exception | None, float]]:
    """Fit the calls' estimators in any order; yield each call, its error or None, and its duration.

    In pipelines, the steps before the network are fitted once per combination of samples and
    settings; the duration, in seconds, includes these steps. Ctrl-C raises KeyboardInterrupt before
    the next fit is yielded.
    """
    alone: list[tuple[Call, FitTask, float]] = []
    piped: dict[Any, list[Call]] = defaultdict(list)
    for call in calls:
        if call.preprocessing is None:
            task = FitTask(call.network, call.X, call.y, call.weights, call.rows)
            alone.append((call, task, 0.0))
        else:
            piped[call.preprocessing].append(call)
    yield from _trained(alone, n_jobs)
    together: list[tuple[Call, FitTask, float]] = []
    n_bytes, limit = 0, get_config()["working_memory"] * 2**20
    while piped:
        inputs = _Inputs(piped.pop(next(iter(piped))))
        if inputs.error is not None:
            for call in inputs.calls:
                yield call, inputs.error, inputs.seconds
            continue
        if together and n_bytes + inputs.n_bytes > limit:
            yield from _trained(together, n_jobs)
            n_bytes = 0
        n_bytes += inputs.n_bytes
        together += inputs.tasks()
    yield from _trained(together, n_jobs)


class _Inputs:
    """The network inputs of pipelines with the same samples and the same preprocessing steps."""

    def __init__(self, calls: list[Call]) -> None:
        first, rows = calls[0], calls[0].rows
        self.calls = calls
        self.error: Exception | None = None
        start = time.perf_counter()
        try:
            self.y = _safe_indexing(first.y, rows)
            self.weights = None if first.weights is None else _safe_indexing(first.weights, rows)
            steps = first.estimator[:-1]
            self.X = steps.fit_transform(_safe_indexing(first.X, rows), self.y)
            for call in calls:
                call.estimator.steps[:-1] = steps.steps
        except Exception as error:
            self.error = error
        self.seconds = time.perf_counter() - start

    @property
    def n_bytes(self) -> int:
        """The memory of the inputs in bytes."""
        array = getattr(self.X, "data", self.X) if hasattr(self.X, "nnz") else self.X
        return int(getattr(array, "nbytes", 0))

    def tasks(self) -> list[tuple[Call, FitTask, float]]:
        """Return the calls, each with the network to fit and the time of the preprocessing."""
        return [
            (call, FitTask(call.network, self.X, self.y, self.weights), self.seconds)
            for call in self.calls
        ]


def _trained(
    fits: list[tuple[Call, FitTask, float]], n_jobs: int | None
) -> Iterator[tuple[Call, Exception | None, float]]:
    """Train the networks, and empty the list ``fits`` to free memory during scoring."""
    tasks: list[Any] = [task for _, task, _ in fits]
    waiting = {number: (call, seconds) for number, (call, _, seconds) in enumerate(fits)}
    fits.clear()
    with interrupts() as is_pressed:
        for result in fit_many(tasks, n_jobs=n_jobs):
            tasks[result.number] = None
            call, seconds = waiting.pop(result.number)
            yield call, result.error, seconds + result.seconds
        if waiting or is_pressed():  # Ctrl-C may have been pressed during the last scoring.
            raise KeyboardInterrupt
