"""Reports of a distributed fit, made by rank 0 for all ranks."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlp_xp._utils.signals import interrupts, terminations
from mlp_xp.estimators.fitting.reporting import Reporter
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.loop.loop_settings import LoopSettings
from mlp_xp.training.loop.records import Record, Running

if TYPE_CHECKING:  # Imported late, since few fits have checkpoints.
    from mlp_xp.training.checkpoints.snapshot import Snapshot

# Rank 0 sends this message to the other ranks before it saves the training state.
_CHECK = "check that the weights are finite"


class RankZeroReporter(Reporter):
    """The reporter of a distributed fit: rank 0 reports and decides for all ranks."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._is_terminated: Callable[[], bool] = lambda: False
        watches = self.watches_steps, self.watches_pauses, self.watches_epochs
        self.watches_steps, self.watches_pauses, self.watches_epochs = self._processes.first(
            watches
        )

    @contextlib.contextmanager
    def fit(self) -> Iterator[Callable[[], bool]]:
        """Report the beginning and the end of a fit on rank 0; see `Reporter.fit`."""
        with contextlib.ExitStack() as stack:
            if self._processes.is_first:
                is_pressed = stack.enter_context(super().fit())
            else:
                self._begin()
                is_pressed = stack.enter_context(interrupts())
                # On SIGTERM, wait until rank 0 has saved the training state.
                if self.watches_pauses:
                    self._is_terminated = stack.enter_context(terminations())
            yield self._processes.asking_first(is_pressed)

    def settings(self) -> LoopSettings:
        """Return rank 0's settings; the other ranks print nothing."""
        settings = self._processes.first(super().settings())
        return settings if self._processes.is_first else replace(settings, verbose=False)

    def begin_epoch(self) -> None:
        """Report on rank 0; see `Reporter.begin_epoch`."""
        self._processes.call_in_first(super().begin_epoch)

    def end_step(self, done: int, n_steps: int) -> bool:
        """Report on rank 0; see `Reporter.end_step`."""
        return self._processes.call_in_first(super().end_step, done, n_steps)

    def report(self, done: int, n_steps: int, running: Running | None) -> None:
        """Report progress on rank 0; see `Reporter.report`."""
        if self._processes.is_first:
            super().report(done, n_steps, running)

    def pause(self, step: int, is_interrupted: bool) -> None:
        """Report on rank 0; the other ranks check their weights when rank 0 takes a snapshot."""
        processes, trainer = self._processes, self._loop.trainer
        if any(processes.exchange(self._is_terminated())) and processes.is_first:
            signal.raise_signal(signal.SIGTERM)  # Callbacks of rank 0 save the training state.
        while processes.call_in_first(super().pause, step, is_interrupted) == _CHECK:
            try:
                trainer.guard.check(trainer, step or None)
            except NonFiniteError:
                processes.decide(None)  # Receive the same error from rank 0.
                raise

    def _snapshot(self, step: int) -> Snapshot:
        self._processes.decide(_CHECK)
        return super()._snapshot(step)

    def end_epoch(self, record: Record) -> bool:
        """Report on rank 0; see `Reporter.end_epoch`."""
        return self._processes.call_in_first(super().end_epoch, record)

    def end_fit(self) -> None:
        """Report on rank 0; see `Reporter.end_fit`."""
        self._processes.call_in_first(super().end_fit)
