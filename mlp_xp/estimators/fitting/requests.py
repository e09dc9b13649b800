"""A fit from its preparation to its publication, which asks for epochs in between."""

from __future__ import annotations

import contextlib
from typing import Any

from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.workers import current_worker
from mlp_xp.backends import get_backend
from mlp_xp.distributed import join_ranks
from mlp_xp.estimators.fitting.baseline import warn_if_useless
from mlp_xp.estimators.fitting.generators import draw_epochs
from mlp_xp.estimators.fitting.prepare import prepare_fit
from mlp_xp.estimators.fitting.reporting import calibrate, new_reporter, publish_training
from mlp_xp.training.data.rows import home
from mlp_xp.training.loop.requests import Fit

__all__ = ["fit_requests", "partial_fit_requests"]

Samples = tuple[Any, Any, Any]


def fit_requests(
    model: Any, start: float, given: Samples, held_out: Samples, **options: Any
) -> Fit[bool]:
    """Fit a model, and return, on rank 0, whether Ctrl-C has ended it.

    ``start`` is when `max_time` began, of `time.perf_counter`; options are as for `prepare_fit`.
    """
    ranks = join_ranks(model.distributed)
    with ranks.fitting(), contextlib.ExitStack() as stack:
        with model._unchanged_by_errors(), ranks.sharing_errors():
            options |= {"continues": model.warm_start, "ranks": ranks}
            loop, baseline = prepare_fit(model, given, held_out, **options)
            reporter = new_reporter(model, loop, home(given[0]), given, ranks)
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
    return is_over and ranks.rank == 0  # Which alone warns.


def partial_fit_requests(
    model: Any, given: Samples, held_out: Samples, classes: Any = None
) -> Fit[None]:
    """Train a model for one epoch, without callbacks: they belong to a whole fit."""
    ranks = join_ranks(model.distributed)
    with ranks.fitting():
        with model._unchanged_by_errors(), ranks.sharing_errors():
            options = {"continues": True, "classes": classes, "ranks": ranks}
            loop, _ = prepare_fit(model, given, held_out, **options)
        with interrupts() as is_pressed:
            is_interrupted = ranks.asking_first(is_pressed)
            try:
                yield from loop.run_epoch(is_interrupted)
            finally:
                publish_training(model, loop, get_backend(given[0]))
                draw_epochs(model, model.history_[-1:])
            calibrate(model, loop)
            is_over = is_interrupted()
    if is_over:  # The caller's loop should end.
        raise KeyboardInterrupt
