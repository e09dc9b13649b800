"""A network in training: its state on the device, and the steps of an epoch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.optimizers import family
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.placement import Data
from mlp_xp.training.divergence.guard import Guard
from mlp_xp.training.loop.records import Record, ResumeState
from mlp_xp.training.processes import SINGLE_PROCESS, SingleProcess
from mlp_xp.training.step.scalars import SchedulePosition
from mlp_xp.training.step.step import (
    StepArguments,
    TrainState,
    init_state,
    make_indexed_step,
    make_step,
)
from mlp_xp.training.step.step_context import step_context, step_work
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.step.step_table import (
    Epoch,
    EpochArguments,
    Group,
    StepRange,
    draw_arguments,
    put_group,
    put_groups,
)

if TYPE_CHECKING:  # Few fits have a time limit: others start without this module.
    from mlp_xp.training.loop.time_budget import Budget

__all__ = ["Trainer"]

# The most steps of one call: each takes some time however little it computes.
_STEPS_AT_ONCE = 2_000


class Trainer:
    """A network in training: its state on the device, and how many steps it has done.

    Parameters
    ----------
    backend : Backend
    rules : Rules
    params : tuple
        Initial parameters, arrays of any library; copied.
    batch_stats : tuple of BatchStats, optional
        Running statistics of batch normalization, likewise.
    dtype : {"float32", "float64"}
    scaling : Scaling on the device, optional
    seed : int of at least 0, default=0
        For dropout and augmentation.
    with_accuracy : bool, default=False
        Whether records have the training accuracy.
    processes : SingleProcess
        The processes that share each step of the backend.

    Attributes
    ----------
    function : callable
        The step, not compiled.
    may_compile : bool
        Whether there is time to wait for machine code, some seconds the first time.
    is_planned : bool
        Whether only a failure or the user ends the fit before its last epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.backends import get_backend
    >>> from mlp_xp.training.data.placement import place
    >>> from mlp_xp.training.data.epoch_plan import plan_epoch
    >>> from mlp_xp.nn.losses import SoftmaxCrossEntropy
    >>> from mlp_xp.nn.network import Network, init_params
    >>> from mlp_xp.optimizers import Adam
    >>> from mlp_xp.training.step.step_settings import Rules
    >>> from mlp_xp.training.trainer import Trainer
    >>> backend, network = get_backend("numpy"), Network((2, 8, 2))
    >>> rules = Rules(network, SoftmaxCrossEntropy(), Adam(), learning_rate=0.1)
    >>> x, y = np.asarray([[0.0, 1.0], [1.0, 0.0]]), np.asarray([0, 1], dtype=np.int32)
    >>> params = init_params(network, seed=0)
    >>> trainer = Trainer(backend, rules, params=params, dtype="float64", with_accuracy=True)
    >>> data, plan = place(backend, x, y, "float64"), plan_epoch(2, 2)
    >>> records = [trainer.run_epoch(data, plan, n_epochs=20) for _ in range(20)]
    >>> records[-1].epoch, records[-1].accuracy, records[-1].loss < 0.01
    (20, 1.0, True)
    """

    def __init__(
        self,
        backend: Backend,
        rules: Rules,
        *,
        params: Params,
        batch_stats: tuple[BatchStats, ...] = (),
        dtype: str,
        scaling: Scaling | Whitening | None = None,
        seed: int = 0,
        with_accuracy: bool = False,
        processes: SingleProcess = SINGLE_PROCESS,
    ) -> None:
        self.backend, self.processes = backend, processes
        self.rules, self.scaling = rules, scaling
        self.dtype, self.seed, self.with_accuracy = dtype, seed, with_accuracy
        self.n_epochs = self.n_steps = self.n_samples = 0
        self.may_compile, self.is_planned, self.rule_start = True, False, 0
        self.guard = Guard(processes)
        self.function = _step(
            rules.network,
            rules.loss,
            rules.optimizer,
            backend.kernels,
            with_penalty=rules.alpha > 0,
            max_grad_norm=rules.max_grad_norm,
            augmentation=rules.augmentation,
            schedules_dropout=rules.dropout_schedule is not None,
            make_gradient=processes.gradient(backend),
            xp=backend.xp,
        )
        self._compile()
        self.reset(params, batch_stats)
        self.guard.start(self, lambda trainer: trainer.reset(params, batch_stats))

    def reset(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Set the state before the first step; arrays of any library, copied."""
        average = params if self.rules.ema_decay is not None else ()
        with self.home.scope():
            own = self._own((params, batch_stats, average))
            self.state = init_state(
                own[0],
                self.rules.optimizer,
                batch_stats=own[1],
                average=own[2],
                with_accuracy=self.with_accuracy,
                with_loss_scale=self.backend.scales_loss,
                xp=self.home.xp,
            )
        self.n_steps = 0

    @property
    def home(self) -> Backend:
        """Return the backend that has the state."""
        return self.backend

    def _own(self, tree: Tree) -> Tree:
        """Copy a tree to the state's backend: steps write to it, so it must be nobody else's."""
        return map_leaves(lambda leaf: self.home.put_copy(leaf, self.dtype), tree)

    @property
    def learned(self) -> Params:
        """Parameters to predict with: the moving average where there is one."""
        return self.state.average or self.state.params

    def copy_learned(self) -> Any:
        """Return a copy of `learned` and of the batch statistics, on the device."""
        with self.home.scope():
            return self._own((self.learned, self.state.batch_stats))

    def set_learned(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Replace the weights by arrays of any library, which are copied."""
        self.guard.forget()
        with self.home.scope():
            new = self._own((params, batch_stats, params if self.state.average else ()))
        self.state = self.state._replace(params=new[0], batch_stats=new[1], average=new[2])

    def release_memory(self) -> None:
        """Release the memory that only steps need; the next one allocates it again."""
        for compiled in () if self.rules.has_own_functions else (self._step, self._loop):
            self.state = self.backend.release(compiled, self.state)
        self._compile()
        self.guard.forget()

    def _compile(self) -> None:
        self._step = self.backend.compile(self.function, donate=True)
        self._loop = self.backend.loop(make_indexed_step(self.function))

    def progress(self) -> ResumeState:
        """Return what a later training needs besides the weights, in the host's memory."""
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

    def copy(self, *names: str) -> TrainState:
        """Return a copy of the state, or of some fields, in the host's memory, without views."""
        others: dict[str, Any] = {x: () for x in TrainState._fields if names and x not in names}
        state = self.state._replace(**others)
        return map_leaves(lambda leaf: np.array(self.home.get(leaf)), state)

    def restore(self, state: TrainState, n_steps: int) -> None:
        """Restore a copy of the state, after this many steps in all."""
        with self.home.scope():
            self.state = self._own(state)
        self.n_steps = n_steps

    def resume(self, progress: ResumeState) -> None:
        """Resume the training of another trainer; another kind of rule starts anew."""
        self.guard.forget()
        shapes = [leaf.shape for leaf in leaves(progress.opt_state)]
        fits = shapes == [leaf.shape for leaf in leaves(self.state.opt_state)]
        continues = fits and progress.rule == family(self.rules.optimizer)
        state = self.state
        with self.home.scope():
            if continues:
                state = state._replace(opt_state=self._own(progress.opt_state))
            if progress.params and state.average:
                state = state._replace(params=self._own(progress.params))
            if progress.loss_scale and state.loss_scale:
                state = state._replace(loss_scale=self._own(progress.loss_scale))
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
        """Train for one epoch.

        Parameters
        ----------
        data : Data
        plan : EpochPlan
        n_epochs : int
            Epochs of the whole fit, for the schedule.
        first_epoch : int, default=0
            Epoch of this trainer at which the schedule begins.
        rate_factor : float, default=1
            Factor of the learning rate.
        after_step : callable, optional
            ``after_step(done, n_steps)`` is called after each step; if it returns True the epoch
            ends there, and the record covers the steps so far.
        budget : Budget, optional
            The schedule follows the time that it has left, and the epoch ends with the last step
            that fits, the first at the earliest.
        step_by_step : bool, default=True
            Whether `after_step` is called after each step, or every tenth of a second or so.
        first_step : int, default=0
            Steps of the epoch that are in the state already.
        ahead : callable, optional
            Called when a device has all steps and the host would only wait for it.

        Returns
        -------
        Record

        Raises
        ------
        NonFiniteError
            If loss or weights have become infinite or NaN. The state is then the last finite one.
        """
        backend, xp, n_steps = self.backend, self.backend.xp, len(plan.counts)
        start = time.perf_counter()
        position = SchedulePosition(self.n_epochs - first_epoch, n_epochs, rate_factor)
        with backend.scope(), step_context(self, data, plan, position):
            # Not before: all processes do this together, and one may have failed to come here.
            params, opt_state = backend.place_state(self.rules.optimizer, *self.state[:2])
            self.state = self.state._replace(params=params, opt_state=opt_state)
            if not first_step:
                zero = xp.zeros_like(self.state.loss)
                accuracy_sum = xp.zeros_like(zero) if self.with_accuracy else ()
                self.state = self.state._replace(loss=zero, accuracy=accuracy_sum)
            epoch = Epoch(
                data, plan._replace(draws=None), self.n_epochs, self.n_steps, first_step, []
            )
            self.guard.begin(self, epoch, start)
            arguments = draw_arguments(self, epoch, plan.draws)
            groups = put_groups(self, epoch, position, budget)
            # With a budget calls end where the clock is read; all processes look after equal steps.
            has_loop = self._loop is not None and (budget is None or self.processes.is_single)
            stacks = data.stacked([arguments.plan]) if has_loop else []
            work, *_ = step_work(self, data, plan)
            most_at_once = max(1, min(backend.work_at_once // work, _STEPS_AT_ONCE))
            at_once = 1 if step_by_step else most_at_once
            every = 1 if self.processes.is_single else at_once
            if stacks:
                calls = self._run_together(arguments.ranges(stacks, groups, backend, at_once))
            else:
                calls = self._run_one_by_one(arguments, groups)
            # A call of many steps may return before they are done.
            waits = bool(stacks) and not step_by_step and backend.shares_host_memory
            rates, done = [0.0], first_step
            with contextlib.closing(calls):
                for rates in calls:
                    done += len(rates)
                    if (done - first_step) % every and done < n_steps:
                        continue
                    if after_step is not None and after_step(done, n_steps):
                        break
                    if done < n_steps:  # The end of an epoch is checked anyway.
                        self.guard.look(self, done, waits=waits)
            if ahead is not None and not backend.shares_host_memory:
                ahead()
            loss, *accuracy = self.read_sums()  # The one wait.
            self.guard.end(self, done, loss)
        return self.record(plan, rates, [loss, *accuracy], time.perf_counter() - start, done)

    def record(
        self,
        plan: EpochPlan,
        rates: list[float],
        sums: Sequence[float],
        seconds: float,
        done: int | None = None,
    ) -> Record:
        """Count an epoch, or its first steps, and return what its sums are on average."""
        counts = plan.counts[:done]
        n_samples = sum(counts)
        loss, *accuracy = (total / (n_samples / sum(plan.counts)) for total in sums)
        self.count(len(counts), n_samples)
        correct = accuracy[0] if accuracy else None
        return Record(self.n_epochs, loss, correct, float(rates[-1]), n_samples, seconds)

    def count(self, n_steps: int, n_samples: int) -> None:
        """Count an epoch."""
        self.n_epochs += 1
        self.n_steps += n_steps
        self.n_samples += n_samples

    def read_sums(self) -> list[float]:
        """Return the sums of loss and accuracy over the epoch so far; waits for the device."""
        sums = list(leaves((self.state.loss, self.state.accuracy)))
        stacked = sums[0] if len(sums) == 1 else self.backend.xp.stack(sums)
        return self.backend.get(stacked).reshape(-1).tolist()

    def run_step(self, arguments: StepArguments) -> None:
        """Run one step."""
        self.state = self._step(self.state, *arguments)

    def repeat(self, epoch: Epoch) -> Generator[tuple[float, StepArguments]]:
        """Yield again the learning rate and the arguments of each prepared step of an epoch."""
        steps = range(epoch.first, epoch.first + len(epoch.rates))
        groups = [put_group(self, epoch, steps, epoch.rates)] if steps else []
        arguments = draw_arguments(self, epoch)
        return arguments.steps(groups, self.scaling, self.backend)

    def _run_one_by_one(
        self, arguments: EpochArguments, groups: Iterable[Group]
    ) -> Generator[list[float]]:
        """Run the steps one by one, and yield their rates."""
        steps = arguments.steps(groups, self.scaling, self.backend)
        with contextlib.closing(steps):
            for rate, given in steps:
                self.run_step(given)
                yield [rate]

    def _run_together(self, calls: Iterable[StepRange]) -> Generator[list[float]]:
        """Run several steps in one call, and yield their rates."""
        assert self._loop is not None
        for rates, start, stop, steps, x, y in calls:
            self.state = self._loop(start, stop, self.state, steps, x, y, self.scaling)
            yield rates


# One function for fits with the same settings: a backend finds what it compiled.
_step = lru_cache(maxsize=64)(make_step)
