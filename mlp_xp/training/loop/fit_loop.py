"""The loop of a fit: run epochs until a stopping criterion is met.

`mlp_xp.training.loop.restart` and `mlp_xp.training.loop.lbfgs_loop` contain the loops for a second
training of overfitted networks and for L-BFGS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.sklearn_compat import warn_caller, warn_unconverged
from mlp_xp._utils.threads import current_worker
from mlp_xp._utils.tree import map_leaves
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.data.placement import Data
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.loop.early_stopping import Plateau
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.loop_settings import LoopPosition, LoopSettings, Validation
from mlp_xp.training.loop.records import Record, Running
from mlp_xp.training.loop.requests import Fit, Trained, TrainingRequest
from mlp_xp.training.trainer import Trainer

if TYPE_CHECKING:  # Imported on first use, since few fits have a time limit.
    from mlp_xp.training.loop.time_budget import Budget

Learned = tuple[Params, tuple[BatchStats, ...]]  # Weights and batch statistics.

# Machine code is compiled only if the time limit is at least this many seconds.
_COMPILES_WITHIN = 10.0
# "adaptive" lowers the learning rate only while it is above this value, as in scikit-learn.
_MIN_RATE = 1e-6


class Watcher(Protocol):
    """The receiver of a fit's reports: it publishes attributes and calls callbacks."""

    watches_epochs: bool
    watches_steps: bool
    watches_pauses: bool

    def begin_epoch(self) -> None:
        """Report that an epoch begins."""

    def end_step(self, done: int, n_steps: int) -> bool:
        """Report that a step has ended; return whether the fit should end."""

    def report(self, done: int, n_steps: int, running: Running | None) -> None:
        """Report the number of completed steps in the epoch, and its averages if known."""

    def end_epoch(self, record: Record) -> bool:
        """Report that an epoch has ended; return whether the fit should end."""

    def pause(self, step: int, is_interrupted: bool) -> None:
        """Report that the state can now be saved, after ``step`` steps of an epoch.

        If ``is_interrupted`` is true, the fit ends afterwards because of Ctrl-C.
        """


class FitLoop:
    """A fit in progress: it requests epochs, receives their records, and decides when to stop.

    The loop changes the trainer and its own attributes, but no estimator. ``best`` contains the
    weights and batch statistics with the best score so far, including epochs before an
    interruption. ``identity()`` describes the settings and data, which must be unchanged when a fit
    is resumed. ``first_step`` is the number of steps that a resumed fit has already completed in
    its first epoch. ``start`` and ``epoch_start`` are the `time.perf_counter()` values at which the
    fit and the epoch began. Before `run`, they are the seconds already spent, with a minus sign.
    """

    def __init__(
        self,
        trainer: Trainer,
        data: Data,
        settings: LoopSettings,
        *,
        weights: np.ndarray | None,
        validation: Validation | None,
        history: History,
        position: LoopPosition,
        best: Tree = (),
        identity: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self.trainer = trainer
        self.history = history
        # Only "adaptive" continues with a lowered rate.
        self.position = position if settings.is_adaptive else position._replace(rate_factor=1.0)
        self.identity = identity
        self._data = data
        self._settings = settings
        self._weights = weights
        self.validation = validation
        self._watcher: Watcher | None = None
        self.best: Learned | None = self.put(best) if best else None
        self.is_resumed = self.is_stopped = False
        self.first_step, self.start, self.epoch_start = 0, 0.0, 0.0
        self._budget: Budget | None = None
        self._at_end = ExitStack()
        by_score = settings.stops_by_score
        history.begin(has_validation=validation is not None, stops_by_score=by_score)
        best = -history.best_score if by_score else history.best_loss  # type: ignore[operator]
        self.plateau = Plateau(settings.tol, settings.patience, best)

    def restore(
        self,
        *,
        best: Tree,
        history: History,
        position: LoopPosition,
        plateau: tuple[float, int],
        is_stopped: bool,
        first_step: int,
        seconds: float,
        epoch_seconds: float,
    ) -> None:
        """Restore the state of an interrupted fit, including the seconds already spent."""
        if best:
            self.best = self.put(best)
        self.history, self.position = history, position
        self.plateau = Plateau(self.plateau.tol, self.plateau.patience, *plateau)
        self.is_resumed, self.is_stopped, self.first_step = True, is_stopped, first_step
        self.start, self.epoch_start = -seconds, -epoch_seconds

    def begin(self) -> None:
        """Reset the epoch count; a continued fit starts with its current network as the best."""
        if self.is_resumed:
            return
        self.history.n_epochs = 0
        if self._settings.stops_by_score and self.history.records and self.best is None:
            assert self.validation is not None
            _, score = self.validation.measure()
            score = score if np.isfinite(score) else -np.inf
            self.history.best_score = score
            self.plateau.best = -score
            self.best = self.trainer.copy_learned()

    def run(
        self,
        start: float,
        settings: LoopSettings,
        watcher: Watcher,
        is_interrupted: Callable[[], bool],
    ) -> Fit[None]:
        """Train until the fit ends.

        ``start`` is the `time.perf_counter()` value from which `max_time` counts. ``settings``
        replace earlier settings, except ``stops_by_score``. ``is_interrupted()`` returns True after
        Ctrl-C.
        """
        trainer, by_score = self.trainer, self._settings.stops_by_score
        self._settings = settings = replace(settings, stops_by_score=by_score)
        self._watcher, self._is_interrupted = watcher, is_interrupted
        self.start += start
        if not self.is_resumed:
            self.position = LoopPosition(first_epoch=trainer.n_epochs)
        try:
            # Under a shorter time limit, compilation would take most of the time.
            may_compile = (settings.max_time or np.inf) >= _COMPILES_WITHIN
            trainer.begin_fit(is_planned=settings.is_planned, may_compile=may_compile)
            self._start_budget()
            yield from self._train()
            self._at_end.close()
            trainer.guard.check(trainer)
        except NonFiniteError as error:
            if self.best is None:
                raise
            self._keep_best(error)
        finally:
            self._at_end.close()
            if self.best is not None:
                trainer.set_learned(*self.best)
                self.best = None
            # A later `partial_fit` starts a new schedule, at the rate lowered by plateaus.
            self.position = LoopPosition(trainer.n_epochs, self.position.rate_factor)
            trainer.guard.release()
            if not settings.keeps_step:
                trainer.release_memory()
            self._watcher = None  # Break a reference cycle that would keep the data in memory.

    def run_epoch(self, is_interrupted: Callable[[], bool]) -> Fit[None]:
        """Train for one more epoch; the schedule and the epoch count continue."""
        trainer = self.trainer
        self._is_interrupted = is_interrupted
        trainer.begin_fit(is_planned=self._settings.is_planned)
        self.plateau.count = self.position.stale_epochs
        try:
            [trained] = yield self._request(1, n_left=1)
            if self._end_epoch(trained) and self._settings.is_adaptive:
                self._lower_rate()
            self._at_end.close()
            trainer.guard.check(trainer)
        finally:
            self._at_end.close()
            trainer.guard.release()
            self.position = self.position._replace(stale_epochs=self.plateau.count)

    def _start_budget(self) -> None:
        """Start the clock if there is a time limit, and measure the duration of a validation."""
        settings = self._settings
        if settings.max_time is None:
            return
        from mlp_xp.training.loop.time_budget import Budget

        # Whoever fits many networks evaluates each one once more.
        n_after = settings.n_calibrations + (current_worker() is not None)
        decide = self.trainer.processes.decide
        self._budget = Budget(settings.max_time, self.start, decide, n_after)
        # For L-BFGS, validation is measured as part of an iteration.
        if self.validation is not None and settings.max_fun is None:
            self._budget.lap()
            self.validation.measure()
            self._budget.between()  # Reserve this time after each epoch.

    def _train(self) -> Fit[None]:
        """Request all epochs of the fit."""
        yield from self._train_until(self._settings.max_iter)

    def _train_until(self, last: int) -> Fit[None]:
        """Request epochs up to the fit's ``last`` one, unless the fit ends before."""
        settings, history, watcher = self._settings, self.history, self._watcher
        is_watched = self._is_watched()
        while not self.is_stopped and history.n_epochs < last:
            n_epochs, n_left = 1, last - history.n_epochs
            if not is_watched:  # Only the last one of these epochs can end the fit.
                n_epochs = int(min(n_left, self.plateau.n_before))
            elif watcher is not None:
                watcher.begin_epoch()
            request = self._request(n_epochs, n_left=n_left)
            trained = yield request
            if request.first_step:  # Include the seconds before the interruption.
                seconds = time.perf_counter() - self.epoch_start
                trained = [Trained(epoch.record._replace(seconds=seconds)) for epoch in trained]
            self.epoch_start = 0.0
            is_plateau = [self._end_epoch(epoch, is_watched) for epoch in trained][-1]
            if is_plateau and not self._lower_rate():
                self.is_stopped = True
            elif not self.is_stopped and self._budget is not None:
                self._budget.between()
                self.is_stopped = self._budget.next_steps(1) == 0
            self._pause(0)
        if self.is_stopped:
            return
        # A schedule that ends at max_iter is complete, so no warning is needed.
        if settings.has_open_end:
            warn_unconverged(
                f"Stochastic Optimizer: Maximum iterations ({settings.max_iter}) reached and the "
                "optimization hasn't converged yet."
            )

    def _is_watched(self) -> bool:
        """Whether the loop must act after every epoch, e.g. for callbacks or a time limit."""
        settings, watcher, validation = self._settings, self._watcher, self.validation
        assert watcher is not None
        return bool(
            watcher.watches_epochs
            or watcher.watches_steps
            or watcher.watches_pauses
            or settings.verbose
            or settings.max_time is not None
            or self.is_resumed
            # All processes must behave identically, although only the first is verbose.
            or not self.trainer.processes.is_single
            or (validation is not None and validation.looks_at_model)
        )

    def _request(self, n_epochs: int, *, n_left: int) -> TrainingRequest:
        first_step, self.first_step = self.first_step, 0
        self.epoch_start += time.perf_counter()
        return TrainingRequest(
            trainer=self.trainer,
            data=self._data,
            settings=self._settings,
            position=self.position,
            weights=self._weights,
            validation=self.validation,
            at_end=self._at_end,
            n_epochs=n_epochs,
            budget=self._budget,
            after_step=self._after_step,
            step_by_step=self._watcher is not None and self._watcher.watches_steps,
            first_step=first_step,
            n_left=n_left,
        )

    def _after_step(self, done: int, n_steps: int) -> bool:
        """Report a step; return whether the fit should end."""
        watcher = self._watcher
        if watcher is not None:
            if watcher.watches_steps and watcher.end_step(done, n_steps):
                self.is_stopped = True
            watcher.report(done, n_steps, self.trainer.guard.running)
        if done < n_steps and not self.is_stopped:
            self._pause(done)
        return self.is_stopped

    def _pause(self, step: int) -> None:
        """Report that the state can be saved now; after Ctrl-C, end the fit."""
        watcher, is_interrupted = self._watcher, self._is_interrupted()
        # After Ctrl-C, save only once: a second save would count the unfinished epoch as complete.
        if watcher and watcher.watches_pauses and not (is_interrupted and self.is_stopped):
            watcher.pause(step, is_interrupted)
        self.is_stopped = self.is_stopped or is_interrupted

    def _end_epoch(self, trained: Trained, is_watched: bool = True) -> bool:
        """Evaluate, record and report an epoch; return whether a plateau is reached."""
        settings, history, watcher = self._settings, self.history, self._watcher
        record, learned = trained
        by_score = settings.stops_by_score
        if self.validation is not None and learned is None:
            measured = self.validation.measure()
            record = record._replace(validation_loss=measured[0], validation_score=measured[1])
        score = record.validation_score
        if history.add(record, self._score_to_beat()) and by_score:
            self.best = (learned or self.trainer.copy_learned)()
        self._count(record)
        if settings.verbose and score is not None:
            print(f"Validation score: {score:f}")
        if watcher is not None and is_watched:
            if watcher.watches_epochs:
                self.trainer.guard.check(self.trainer)  # Raise before a callback can save NaN.
            self.is_stopped = watcher.end_epoch(record) or self.is_stopped
        worker = current_worker()
        if worker is not None and worker.report is not None:
            worker.report(record)
        return self.plateau.reached(-score if by_score and score is not None else record.loss)

    def _count(self, record: Record) -> None:
        """Count an epoch's samples, and print its loss as scikit-learn does."""
        self.history.n_samples += record.n_samples
        if self._settings.verbose:
            print(f"Iteration {self.history.n_epochs}, loss = {record.loss:.8f}")

    def _lower_rate(self) -> bool:
        """Reduce the learning rate at a plateau; return whether it was reduced."""
        settings = self._settings
        message = self.plateau.message(by_score=settings.stops_by_score)
        rate = self.trainer.rules.learning_rate * self.position.rate_factor
        is_lowered = settings.is_adaptive and rate > _MIN_RATE
        if is_lowered:
            self.position = self.position._replace(rate_factor=self.position.rate_factor / 5.0)
            self.plateau.count = 0
            message += f" Setting learning rate to {rate / 5.0:f}"
        else:
            is_low = settings.is_adaptive
            message += " Learning rate too small. Stopping." if is_low else " Stopping."
        if settings.verbose:
            print(message)
        return is_lowered

    def _score_to_beat(self) -> float:
        """Return the score above which an epoch's weights can become the best ones."""
        return -np.inf

    def _keep_best(self, error: NonFiniteError) -> None:
        """Warn that the best weights are kept, as scikit-learn does; record the epoch with NaN."""
        warn_caller(f"{error} The best weights so far are kept.", RuntimeWarning)
        records = self.history.records
        if records and records[-1].epoch >= error.epoch:
            return  # The epoch is already recorded, and only its last update is not finite.
        self.history.add(Record(error.epoch, np.nan, None, np.nan, 0, 0.0, np.nan, np.nan))

    def learned(self) -> Learned:
        """Return weights and batch statistics that later steps do not overwrite."""
        trainer = self.trainer
        # Copy the arrays, since a compiled step reuses the old state's memory.
        if trainer.home.donates:
            return trainer.copy_learned()
        return trainer.learned, trainer.state.batch_stats

    def put(self, tree: Tree) -> Any:
        """Return a tree as arrays of the trainer's backend."""
        trainer = self.trainer
        with trainer.backend.scope():
            return map_leaves(lambda leaf: trainer.backend.put(leaf, trainer.dtype), tree)
