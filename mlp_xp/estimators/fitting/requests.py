"""A fit from preparation to publication, which requests epochs in between."""

from __future__ import annotations

import contextlib
from typing import Any

from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.threads import current_worker
from mlp_xp.backends import get_backend
from mlp_xp.estimators.checks.processes import processes_of
from mlp_xp.estimators.fitting.baseline import warn_if_useless
from mlp_xp.estimators.fitting.generators import draw_epochs
from mlp_xp.estimators.fitting.prepare import prepare_fit
from mlp_xp.estimators.fitting.reporting import Reporter, calibrate, publish_training
from mlp_xp.training.loop.fit_loop import FitLoop
from mlp_xp.training.loop.requests import Fit
from mlp_xp.training.processes import SingleProcess

__all__ = ["fit_requests", "partial_fit_requests"]

Samples = tuple[Any, Any, Any]


def fit_requests(
    model: Any, start: float, given: Samples, held_out: Samples, **options: Any
) -> Fit[bool]:
    """Fit a model; return whether Ctrl-C ended it, in the process that warns.

    ``start`` is when `max_time` began, of `time.perf_counter`; options are as for `prepare_fit`.
    """
    processes = processes_of(model.distributed)
    with processes.fitting(), contextlib.ExitStack() as stack:
        with model._unchanged_by_errors(), processes.sharing_errors():
            options |= {"continues": model.warm_start, "processes": processes}
            loop, baseline = prepare_fit(model, given, held_out, **options)
            reporter = _reporter(model, loop, given, processes)
            is_interrupted = stack.enter_context(reporter.fit())
            settings = reporter.settings()
        try:
            yield from loop.run(start, settings, reporter, is_interrupted)
        finally:
            reporter.publish()
            draw_epochs(model, model.history_[len(model.history_) - model.n_iter_ :])
        calibrate(model, loop)
        is_over = is_interrupted() and current_worker() is None
        reporter.end_fit()
        warn_if_useless(model, loop, baseline)
    return is_over and processes.is_first


def _reporter(model: Any, loop: FitLoop, given: Samples, processes: SingleProcess) -> Reporter:
    """Return the watcher of a fit for all its processes."""
    if processes.is_single:
        return Reporter(model, loop, given)
    from mlp_xp.estimators.fitting.rank_zero import RankZeroReporter  # Few fits need it.

    return RankZeroReporter(model, loop, given, processes)


def partial_fit_requests(
    model: Any, given: Samples, held_out: Samples, classes: Any = None
) -> Fit[None]:
    """Train a model for one epoch, without callbacks: they belong to a whole fit."""
    processes = processes_of(model.distributed)
    with processes.fitting():
        with model._unchanged_by_errors(), processes.sharing_errors():
            options = {"continues": True, "classes": classes, "processes": processes}
            loop, _ = prepare_fit(model, given, held_out, **options)
        with interrupts() as is_pressed:
            is_interrupted = processes.asking_first(is_pressed)
            try:
                yield from loop.run_epoch(is_interrupted)
            finally:
                publish_training(model, loop, get_backend(given[0]))
                draw_epochs(model, model.history_[-1:])
            calibrate(model, loop)
            is_over = is_interrupted()
    if is_over:  # Ctrl-C must end the caller's loop.
        raise KeyboardInterrupt
