"""A joblib backend that trains many networks at once in scikit-learn's unmodified functions."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numpy as np
from joblib.parallel import (
    LokyBackend,
    MultiprocessingBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
    get_active_backend,
    parallel_config,
)

from mlp_xp._utils.display.progress import TaskBar
from mlp_xp.model_selection._calls import Call, is_network
from mlp_xp.model_selection._fits import fitted

_LOCAL = LokyBackend, MultiprocessingBackend, SequentialBackend, ThreadingBackend


class Unfinished(dict[str, Any]):
    """A placeholder, with the usual keys, for the result of a fit that Ctrl-C canceled."""


@contextlib.contextmanager
def many_models(
    estimator: Any,
    *,
    n_jobs: int | None,
    verbose: int = 0,
    keeps_finished: bool = False,
    metric: Any = None,
) -> Iterator[None]:
    """Train many networks at once in scikit-learn's functions, within this context.

    Estimators of other packages are unaffected, and so are joblib backends that use several
    machines, such as Dask. ``n_jobs`` is the number of threads, as in joblib; None chooses the
    number. ``verbose=1`` shows a progress bar with the best score so far; ``metric`` is the
    search's ``refit``. If ``keeps_finished``, Ctrl-C keeps finished fits, and all other results are
    `Unfinished`. Inside another joblib call, such as a cross-validation of a search, Ctrl-C raises
    KeyboardInterrupt instead.
    """
    outer, outer_n_jobs = get_active_backend()
    has_callbacks = getattr(estimator, "_skl_callbacks", None)
    is_ours = is_network(estimator) and isinstance(outer, _LOCAL) and not has_callbacks
    if not is_ours:
        yield
        return
    n_jobs = outer_n_jobs if n_jobs is None else n_jobs
    keeps_finished = keeps_finished and not _is_called_by_joblib()
    settings = {"shows_bar": bool(verbose), "keeps_finished": keeps_finished, "metric": metric}
    with parallel_config(backend=ManyModels(outer, n_jobs, **settings)):
        yield


def _is_called_by_joblib() -> bool:
    # Sequential joblib can be detected only in the call stack.
    names = (frame.f_globals.get("__name__") for frame, _ in traceback.walk_stack(None))
    return joblib.parallel.__name__ in names


class ManyModels(ParallelBackendBase):  # type: ignore[misc]
    """A joblib backend that collects scikit-learn's calls and trains their networks at once.

    Other calls are passed to the previously active backend. Parameters are as in `many_models`;
    ``is_interrupted`` is true if Ctrl-C ended the last fits.
    """

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    def __init__(
        self,
        outer: Any,
        n_jobs: int | None,
        *,
        shows_bar: bool,
        keeps_finished: bool,
        metric: Any,
    ) -> None:
        super().__init__(nesting_level=outer.nesting_level)
        self._outer, self._n_jobs = outer, n_jobs
        self._shows_bar, self._keeps_finished = shows_bar, keeps_finished
        self._metric = metric
        # A map from joblib's batches of calls to the callbacks for their results.
        self._submitted: dict[Any, Callable[[Any], None]] = {}
        self.is_interrupted = False

    def configure(self, n_jobs: int = 1, parallel: Any = None, **settings: Any) -> int:
        """Configure joblib to submit all calls at once, without output; return the worker count."""
        # With pre_dispatch="all", joblib would swallow an error raised in the first split.
        self.parallel, parallel.pre_dispatch, parallel.verbose = parallel, sys.maxsize, 0
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return at least two workers; with one worker, joblib would not use this backend."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return max(2, self._n_threads or joblib.cpu_count())

    @property
    def _n_threads(self) -> int | None:
        if self._n_jobs is None:
            # A nested call uses one thread, since other fits are running.
            return 1 if self.nesting_level else None
        return self._n_jobs if self._n_jobs > 0 else max(1, joblib.cpu_count() + 1 + self._n_jobs)

    def submit(self, func: Any, callback: Any = None) -> None:
        """Store a call for `retrieval_context`."""
        self._submitted[func] = callback

    apply_async = submit  # The name of `submit` before joblib 1.5.

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return a result that is ready."""
        return out

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Train and score all models before joblib collects the results."""
        has_lines = any(batch.items[0][2].get("verbose", 0) > 1 for batch in self._submitted)
        shows_bar = self._shows_bar and not has_lines
        bar = TaskBar("models", len(self._submitted)) if shows_bar else None
        result, scores = None, _BestScore(self._metric)
        try:
            # Let pipeline steps and scorers that call joblib use the outer backend.
            with parallel_config(backend=self._outer):
                for batch, result in self._results():
                    self._submitted.pop(batch)([result])
                    if bar is not None:
                        bar.update(scores.add(batch.items[0][2], result))
        except KeyboardInterrupt:
            if result is None or not self._keeps_finished:
                raise
            self.is_interrupted = True
            for finish in self._submitted.values():
                finish([Unfinished(result, fit_error=None)])
        finally:
            self._submitted.clear()
            if bar is not None:
                bar.stop()
        yield

    def _results(self) -> Iterator[tuple[Any, Any]]:
        batches, others = {}, []
        for batch in self._submitted:
            call = Call.read(*batch.items[0])
            if call is None:
                others.append(batch)
            else:
                batches[call] = batch
        for call, error, seconds in fitted(batches, self._n_threads):
            yield batches.pop(call), call.make(error, seconds)
        if others:
            results = joblib.Parallel(n_jobs=self._n_jobs)(batch.items[0] for batch in others)
            yield from zip(others, results, strict=True)


class _BestScore:
    """The best mean score so far, among a search's candidates whose folds have all been scored."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._scores: dict[int, list[float]] = {}
        self._best: float | None = None

    def add(self, call: dict[str, Any], result: Any) -> str:
        """Add a result, and return the best score so far as text."""
        score = result.get("test_scores") if isinstance(result, dict) else None
        if isinstance(score, dict):
            score = score.get(self._metric) if isinstance(self._metric, str) else None
        if "candidate_progress" in call and isinstance(score, float):
            scores = self._scores.setdefault(call["candidate_progress"][0], [])
            scores.append(score)
            if len(scores) == call["split_progress"][1]:
                mean = float(np.mean(scores))
                self._best = mean if self._best is None else float(np.fmax(self._best, mean))
        return "" if self._best is None else f"best score {self._best:.4f}"
