"""Infinity and NaN in training: find the faulty step, and restore finite weights."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from mlp_xp._utils.tree import leaves
from mlp_xp.training.divergence.finite import NON_FINITE_WEIGHTS, NonFiniteError, is_finite
from mlp_xp.training.loop.records import Running
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.step.base_trainer import BaseTrainer
from mlp_xp.training.step.step import StepArguments
from mlp_xp.training.step.step_table import Epoch, repeat

# Seconds between two checks of the loss. Checks are rare because each one waits for the device.
_LOOK_SECONDS = 0.1
# The maximum fraction of the training time to spend on copies of the state.
_COPY_SHARE = 0.0025
# Estimated time for the first copy: seconds per copy, plus seconds per element.
_COPY_SECONDS, _COPY_NUMBER_SECONDS = 1e-4, 2e-9
# The number of recent steps to search for the cause, which may precede infinity or NaN.
_RECENT = 8


def has_finite_state(trainer: BaseTrainer) -> bool:
    """Whether the weights, optimizer state and batch statistics are finite."""
    # Adam never changes a weight again if the average of its squared gradients is infinite.
    state = trainer.state
    tree = state.params, state.opt_state, state.batch_stats, state.average
    return is_finite(trainer.home, tree)


class Guard:
    """Detect a non-finite loss or state, and restore the last finite state.

    The loss is checked every tenth of a second, which also updates ``running``, the averages of the
    epoch so far. If a value is not finite, the trainer returns to its restore point: the state set
    by ``restore``, or a later copy. It then repeats the steps one by one until it finds the faulty
    step and layer, and restores the state before this step. Copies may take up to `_COPY_SHARE` of
    the time. Epochs are not kept between calls to `partial_fit`, so an error in a later call also
    discards earlier calls' updates since the last copy. All processes check at the same time and
    raise the same error.
    """

    def __init__(self, processes: SingleProcess, restore: Callable[[BaseTrainer], None]) -> None:
        self._processes = processes
        self.running: Running | None = None
        self._look_at = 0.0
        self._since = time.perf_counter()  # The time at which the restore point was set.
        self._cost: float | None = None  # Seconds for a copy; None until estimated or measured.
        self._restore: Callable[[BaseTrainer], None] | None = restore
        self._epochs: list[Epoch] = []  # The epochs since the restore point, up to the current one.
        self._first = 0  # The number of steps of `_epochs[0]` before the restore point.

    def forget(self) -> None:
        """Drop the restore point, after training has ended or the weights were replaced."""
        self._restore = None

    def release(self) -> None:
        """Discard the stored epochs, which keep the data in memory."""
        self._epochs, self._first = [], 0

    def begin(self, trainer: BaseTrainer, epoch: Epoch, now: float) -> None:
        """Store an epoch before its first step, and copy the state if a copy is due."""
        self._epochs.append(epoch)
        self.running = None
        if self._processes.decide(self._is_copy_due(trainer, now)):
            self._copy_state(trainer, epoch.first)

    def look(self, trainer: BaseTrainer, done: int, *, waits: bool) -> None:
        """Check the loss after ``done`` steps of the epoch if a check is due.

        A check waits for the device. If ``waits`` is true, every check is due.
        """
        now = time.perf_counter()
        is_due = waits or now >= self._look_at or self._restore is None
        if self._processes.decide(is_due):
            loss, *accuracy = trainer.read_sums()
            self.end(trainer, done, loss)
            counts = self._epochs[-1].plan.counts
            fraction = sum(counts[:done]) / sum(counts)
            self.running = Running(loss / fraction, accuracy[0] / fraction if accuracy else None)
            self._look_at = now + _LOOK_SECONDS
            if self._processes.decide(self._is_copy_due(trainer, now)):
                self._copy_state(trainer, done)

    def end(self, trainer: BaseTrainer, done: int, loss: float) -> None:
        """Raise `NonFiniteError` if the epoch's loss so far is not finite."""
        if not math.isfinite(loss):
            raise self._processes.locate_error(self._error(trainer, done))

    def check(self, trainer: BaseTrainer, done: int | None = None) -> None:
        """Raise `NonFiniteError` if the state is not finite after the last update.

        ``done`` is the number of steps of the epoch so far, or None after the epoch.
        """
        if not has_finite_state(trainer):
            raise self._processes.locate_error(self._error(trainer, done))

    def _is_copy_due(self, trainer: BaseTrainer, now: float) -> bool:
        if self._cost is None:
            n_numbers = sum(math.prod(leaf.shape) for leaf in leaves(trainer.state))
            self._cost = _COPY_SECONDS + _COPY_NUMBER_SECONDS * n_numbers
        return self._restore is None or (now - self._since) * _COPY_SHARE >= self._cost

    def _copy_state(self, trainer: BaseTrainer, done: int) -> None:
        """Copy the current state as the restore point."""
        start = time.perf_counter()
        self.check(trainer, done)
        # Free the old copy before making a new one, so that memory holds only one copy.
        self.forget()
        copied, n_steps = trainer.copy(), trainer.n_steps + done
        self._restore = lambda trainer: trainer.restore(copied, n_steps)
        self._epochs, self._first = self._epochs[-1:], done
        self._since = time.perf_counter()
        self._cost = self._since - start

    def _error(self, trainer: BaseTrainer, done: int | None) -> NonFiniteError:
        """Find the faulty step, restore the state before it, and return the error."""
        last = trainer.n_epochs + (done is not None)
        restore, epochs, first = self._restore, self._epochs, self._first
        self.forget()
        self.release()
        if restore is None:
            when = f"step {done} of epoch {last}" if done else "the first step"
            message = f"{NON_FINITE_WEIGHTS} They were already non-finite before {when}."
            return NonFiniteError(message, epoch=last, step=done)
        # Imported on first use, since few fits diverge.
        from mlp_xp.training.divergence.diagnosis import diagnose

        restore(trainer)
        rate, recent = 0.0, deque[StepArguments](maxlen=_RECENT)
        with (
            trainer.backend.scope(),
            np.errstate(all="ignore"),
            contextlib.closing(repeat(trainer, epochs, first)) as steps,
        ):
            for n_steps, (number, step, rate, arguments) in enumerate(steps, trainer.n_steps):
                before = trainer.copy()
                recent.append(arguments)
                trainer.run_step(arguments)
                if not is_finite(trainer.backend, trainer.state):
                    after = trainer.state.params
                    trainer.restore(before, n_steps)
                    found = diagnose(trainer, recent, after)
                    return found.error(rate, epoch=last - len(epochs) + number, step=step)
        restore(trainer)
        when = f", step {done}" if done else ""
        return NonFiniteError(
            f"{NON_FINITE_WEIGHTS} The learning rate was {rate:.3g}: try a smaller "
            f"learning_rate_init. First seen in epoch {last}{when}.",
            epoch=last,
            step=done,
        )
