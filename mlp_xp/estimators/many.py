"""Fits of many models that share their data, in one training."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import _safe_indexing

from mlp_xp._utils.processors import usable_threads
from mlp_xp._utils.workers import reporting
from mlp_xp.estimators.config import training_backend
from mlp_xp.training.records import Record
from mlp_xp.training.workers import work_in_threads

__all__ = ["FitResult", "FitTask", "fit_many"]


class FitTask(NamedTuple):
    """A model to fit, and its samples.

    ``model`` is an estimator of ours that nobody else uses, such as a clone. ``X``, ``y`` and
    ``sample_weight`` are what its `fit` takes; ``rows``, ``(samples,)`` integer positions, choose
    some of them, None all. Tasks share data that are the very same objects. ``fit_params`` are
    other arguments of `fit`, given as they are.
    """

    model: Any
    X: Any
    y: Any
    sample_weight: Any = None
    rows: np.ndarray | None = None
    fit_params: Mapping[str, Any] = {}


class FitResult(NamedTuple):
    """The end of a fit: the position of its task, the error or None, and seconds.

    Without an error the task's model is fitted.
    """

    number: int
    error: Exception | None
    seconds: float


def fit_many(
    tasks: Sequence[FitTask],
    *,
    n_jobs: int | None = None,
    on_epoch: Callable[[int, Record], None] | None = None,
) -> Generator[FitResult]:
    """Fit many models at once, each as its own `fit` would.

    Where the backend computes on the processors of this machine by itself, some threads fit one
    model each. Ctrl-C ends the iteration: models that have not been returned are not fitted.
    Closing the generator does the same.

    Parameters
    ----------
    tasks : sequence of FitTask
    n_jobs : int of at least 1, optional
        Models at once, at most; default as many as there are processors.
    on_epoch : callable, optional
        ``on_epoch(number, record)`` is called after each epoch of each task, by any thread.

    Yields
    ------
    FitResult
        In the order in which the fits end. An error, such as that of a fit that diverges, costs the
        others nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp import MLPRegressor
    >>> from mlp_xp.estimators.many import FitTask, fit_many
    >>> X, y = np.asarray([[0.0], [1.0]]), np.asarray([0.0, 1.0])
    >>> models = [MLPRegressor(max_iter=2, learning_rate="cosine") for _ in range(3)]
    >>> results = fit_many([FitTask(model, X, y) for model in models])
    >>> sorted(result.number for result in results), models[0].n_iter_
    ([0, 1, 2], 2)
    """
    if not tasks:
        return
    backend = training_backend(tasks[0].model._params(), tasks[0].X)
    most = usable_threads()
    n_workers = min(n_jobs or most, len(tasks)) if backend.has_workers else 1
    yield from work_in_threads(
        lambda number: _fit(number, tasks[number], on_epoch),
        range(len(tasks)),
        n_jobs=len(tasks),
        n_workers=n_workers,
        n_threads=max(1, most // n_workers),
        backend=backend,
    )


def _fit(number: int, task: FitTask, on_epoch: Callable[[int, Record], None] | None) -> FitResult:
    """Fit a model by itself."""
    start = time.perf_counter()
    report = None if on_epoch is None else partial(on_epoch, number)
    given = (
        None if values is None or task.rows is None else _safe_indexing(values, task.rows)
        for values in (task.X, task.y, task.sample_weight)
    )
    X, y, weights = given if task.rows is not None else (task.X, task.y, task.sample_weight)
    try:
        with reporting(report):
            task.model.fit(X, y, weights, **task.fit_params)
    except Exception as error:
        return FitResult(number, error, time.perf_counter() - start)
    return FitResult(number, None, time.perf_counter() - start)
