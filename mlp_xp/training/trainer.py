"""A network in training: run epochs, save and restore the state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mlp_xp._utils.tree import leaves
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.optimizers import family
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.placement import Data
from mlp_xp.training.divergence.guard import Guard
from mlp_xp.training.loop.records import Record, ResumeState
from mlp_xp.training.step.base_trainer import BaseTrainer
from mlp_xp.training.step.inputs import Batch
from mlp_xp.training.step.step_context import step_context, step_work
from mlp_xp.training.step.step_table import (
    Epoch,
    EpochArguments,
    SchedulePosition,
    StepTable,
    draw_arguments,
    put_tables,
    step_ranges,
)

if TYPE_CHECKING:  # Imported on first use, since few fits have a time limit.
    from mlp_xp.training.loop.time_budget import Budget

# The maximum number of steps per call. Combining steps saves the fixed cost of each call.
_STEPS_AT_ONCE = 2_000


class Trainer(BaseTrainer):
    """A network in training: its state on the device, and its number of completed steps.

    For the parameters, see `BaseTrainer`.
    """

    guard_type: ClassVar[type[Guard]] = Guard

    def __init__(
        self, *args: Any, params: Params, batch_stats: tuple[BatchStats, ...] = (), **settings: Any
    ) -> None:
        super().__init__(*args, params=params, batch_stats=batch_stats, **settings)
        self.guard = self.guard_type(
            self.processes, lambda trainer: trainer.reset(params, batch_stats)
        )

    def begin_fit(self, *, is_planned: bool, may_compile: bool | None = None) -> None:
        """Set `is_planned` and `may_compile` for the next fit; see `BaseTrainer`."""
        self.is_planned = is_planned
        self.may_compile = self.may_compile if may_compile is None else may_compile

    def want_accuracy(self, wants: bool) -> None:
        """Set whether records contain the training accuracy."""
        self.with_accuracy = wants

    @property
    def learned(self) -> Params:
        """The parameters for predictions: the moving average, if any."""
        return self.state.average or self.state.params

    def copy_learned(self) -> tuple[Params, tuple[BatchStats, ...]]:
        """Return copies of `learned` and the batch statistics, on the device."""
        with self.home.scope():
            copied: tuple[Params, tuple[BatchStats, ...]]
            copied = self._put_copy((self.learned, self.state.batch_stats))
            return copied

    def set_learned(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Replace the weights with copies of arrays from any library."""
        self.guard.forget()
        with self.home.scope():
            new = self._put_copy((params, batch_stats, params if self.state.average else ()))
        self.state = self.state._replace(params=new[0], batch_stats=new[1], average=new[2])

    def release_memory(self) -> None:
        """Release the memory needed only by steps; the next step allocates it again."""
        for compiled in (self._step, self._loop):
            self.release(compiled)
        self._compile()
        self.guard.forget()

    def progress(self) -> ResumeState:
        """Return the state needed by a later fit besides the weights, in host memory."""
        has_average = self.rules.ema_decay is not None
        state = self.copy("opt_state", "loss_scale", *["params"] * has_average)
        return ResumeState(
            state.params if has_average else (),
            state.opt_state,
            self.n_epochs,
            self.n_steps,
            self.n_samples,
            family(self.rules.optimizer),
            self.rule_start,
            loss_scale=state.loss_scale,
        )

    def resume(self, progress: ResumeState) -> None:
        """Continue from another trainer's state.

        If the kind of update rule changes, the optimizer is reset.
        """
        self.guard.forget()
        shapes = [leaf.shape for leaf in leaves(progress.opt_state)]
        fits = shapes == [leaf.shape for leaf in leaves(self.state.opt_state)]
        continues = fits and progress.rule == family(self.rules.optimizer)
        state = self.state
        with self.home.scope():
            if continues:
                state = state._replace(opt_state=self._put_copy(progress.opt_state))
            if progress.params and state.average:
                state = state._replace(params=self._put_copy(progress.params))
            if progress.loss_scale and state.loss_scale:
                state = state._replace(loss_scale=self._put_copy(progress.loss_scale))
        self.state = state
        self.n_epochs, self.n_steps = progress.n_epochs, progress.n_steps
        self.n_samples = progress.n_samples
        self.rule_start = progress.rule_start if continues else progress.n_steps

    def run_epoch(
        self,
        data: Data,
        plan: EpochPlan,
        *,
        n_epochs: int,
        first_epoch: int = 0,
        rate_factor: float = 1.0,
        after_step: Callable[[int, int], bool] | None = None,
        budget: Budget | None = None,
        step_by_step: bool = True,
        first_step: int = 0,
        ahead: Callable[[], object] | None = None,
    ) -> Record:
        """Train for one epoch of a schedule of ``n_epochs`` that began at ``first_epoch``.

        ``after_step(done, n_steps)`` is called after each step, or about every tenth of a second if
        ``step_by_step`` is False. If it returns True, the epoch ends there, and the record covers
        the steps so far. If a budget is given, the schedule follows the remaining time, and the
        epoch ends when no time is left, but after at least one step. ``first_step`` steps of the
        epoch are already completed. ``ahead()`` is called after all steps are queued on the device,
        while the host would otherwise wait. After a `NonFiniteError`, the trainer is left in its
        last finite state.
        """
        backend, n_steps, start = self.backend, len(plan.counts), time.perf_counter()
        position = SchedulePosition(self.n_epochs - first_epoch, n_epochs, rate_factor)
        with backend.scope(), step_context(self, data, plan, position):
            # Call `place_state` only now: all processes must take part, but one could have failed
            # earlier.
            params, opt_state = backend.place_state(self.rules.optimizer, *self.state[:2])
            self.state = self.state._replace(params=params, opt_state=opt_state)
            if not first_step:
                zero = backend.xp.zeros_like(self.state.loss)
                accuracy_sum = backend.xp.zeros_like(zero) if self.with_accuracy else ()
                self.state = self.state._replace(loss=zero, accuracy=accuracy_sum)
            epoch = Epoch(data, plan._replace(draws=None), self.n_epochs, first_step, [])
            self.guard.begin(self, epoch, start)
            # Under a time limit, processes run single steps, so that all stop at the same step.
            has_loop = self._loop is not None and (budget is None or self.processes.is_single)
            work, *_ = step_work(self, data, plan)
            most = max(1, min(backend.work_at_once // work, _STEPS_AT_ONCE))
            at_once = 1 if step_by_step else most
            every = 1 if self.processes.is_single else at_once
            arguments = draw_arguments(self, epoch, plan.draws)
            stacks = data.stacked([arguments.plan]) if has_loop else []
            # A call may return before its steps have run, so check the loss after every call.
            waits = bool(stacks) and not step_by_step and backend.shares_host_memory
            tables = put_tables(self, epoch, position, budget)
            rates, done = [0.0], first_step
            with contextlib.closing(self._run(arguments, tables, stacks, at_once)) as calls:
                for rates in calls:
                    done += len(rates)
                    if (done - first_step) % every and done < n_steps:
                        continue
                    if after_step is not None and after_step(done, n_steps):
                        break
                    if done < n_steps:  # `Guard.end` checks the last step.
                        self.guard.look(self, done, waits=waits)
            if ahead is not None and not backend.shares_host_memory:
                ahead()
            loss, *accuracy = self.read_sums()  # Only this line waits for the device.
            self.guard.end(self, done, loss)
        return self.record(plan, rates, [loss, *accuracy], time.perf_counter() - start, done)

    def _run(
        self, arguments: EpochArguments, tables: Iterable[StepTable], stacks: list[Batch], most: int
    ) -> Generator[list[float]]:
        """Run steps, ``most`` per call if batches are stacked; yield their learning rates."""
        if stacks:
            assert self._loop is not None
            for call in step_ranges(stacks, tables, arguments.keys, self.backend, most):
                given = *call.given, self.scaling
                self.state = self._loop(call.start, call.stop, self.state, *given)
                yield call.rates
            return
        with contextlib.closing(arguments.steps(tables, self)) as steps:
            for rate, one in steps:
                self.run_step(one)
                yield [rate]

    def record(
        self,
        plan: EpochPlan,
        rates: list[float],
        sums: Sequence[float],
        seconds: float,
        done: int | None = None,
    ) -> Record:
        """Count an epoch, or its first ``done`` steps, and return its record."""
        counts = plan.counts[:done]
        n_samples = sum(counts)
        loss, *accuracy = (total / (n_samples / sum(plan.counts)) for total in sums)
        self.count(len(counts), n_samples)
        correct = accuracy[0] if accuracy else None
        return Record(self.n_epochs, loss, correct, float(rates[-1]), n_samples, seconds)

    def count(self, n_steps: int, n_samples: int) -> None:
        """Add an epoch to the counts."""
        self.n_epochs += 1
        self.n_steps += n_steps
        self.n_samples += n_samples
