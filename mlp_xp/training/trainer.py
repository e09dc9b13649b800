"""The training loop: one record an epoch."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.random import host_generator
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.augmentation import Augmentation
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params
from mlp_xp.optimizers import Optimizer, family
from mlp_xp.optimizers.schedules import Constant, Schedule
from mlp_xp.training.batches import Data, Plan, multiplies_sparse, with_draws
from mlp_xp.training.divergence import Epoch, Group, Guard
from mlp_xp.training.step import (
    Batch,
    StepArguments,
    Steps,
    StepScalars,
    TrainState,
    init_state,
    make_nth,
    make_step,
)
from mlp_xp.training.time_budget import Budget

__all__ = ["Progress", "Record", "Rules", "Trainer"]

# How far the running statistics of batch normalisation follow those of a batch; PyTorch's choice.
_BATCH_STATS_RATE = 0.1
# Steps that a schedule is told of where a share of time stands for them.
_TICKS = 10**6

# Multiplications and additions of the forward passes that take two processors about a tenth of a
# second, backward passes included.
_WORK_AT_ONCE = 2_000_000_000
# Of small steps so many: each takes some time however little it computes.
_STEPS_AT_ONCE = 2_000

AfterStep = Callable[[int, int], bool]


class Record(NamedTuple):
    """What an epoch did.

    ``epoch`` counts from 1; ``loss`` is the average over the samples, penalty included, each batch
    taken before its update; ``accuracy`` likewise, or None where it was not asked for;
    ``learning_rate`` is that of the last step; ``seconds`` end when the device has finished. The
    last two are those of the validation data behind the epoch, or None where there are none.
    """

    epoch: int
    loss: float
    accuracy: float | None
    learning_rate: float
    n_samples: int
    seconds: float
    validation_loss: float | None = None
    validation_score: float | None = None


class Progress(NamedTuple):
    """Where a training is, beside its weights: NumPy arrays, and what has been counted.

    ``params`` are the weights themselves where what is shown is their moving average, else ``()``.
    ``rule`` names the kind of update rule that the slots belong to, and ``rule_start`` is the step
    at which it began; for the rest see `Trainer`.
    """

    params: Params
    slots: tuple[Params, ...]
    n_epochs: int
    n_steps: int
    n_samples: int
    rule: str
    rule_start: int


@dataclass(frozen=True)
class Rules:
    """What decides how a network learns.

    Parameters
    ----------
    network, loss, optimizer, schedule : frozen settings
    learning_rate : float
        What the schedule multiplies.
    alpha : float of at least 0, default=0
        Strength of the L2 penalty, as scikit-learn scales it: divided by the samples of the batch.
    max_grad_norm : float above 0, optional
        What the norm of all gradients together is held to.
    ema_decay : float in [0, 1), optional
        Share that an exponential moving average of the weights keeps at each step; None has none.
    augmentation : tuple of Augmentation, default=()
        What is done to the samples of each batch.
    """

    network: Network
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule = Constant()  # noqa: RUF009
    learning_rate: float = 0.001
    alpha: float = 0.0
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    augmentation: tuple[Augmentation, ...] = ()


class _Stage(NamedTuple):
    """The place of an epoch in its fit: epochs before it, epochs of all, factor of the rate."""

    done: int
    n_epochs: int
    rate_factor: float


class Trainer:
    """A network in training: its state on the device, and how many steps it has done.

    Parameters
    ----------
    backend : Backend
    rules : Rules
    params : tuple
        Initial parameters, arrays of any library; copied.
    batch_stats : tuple of BatchStats, optional
        Running statistics of batch normalisation, likewise.
    dtype : {"float32", "float64"}
    scaling : Scaling on the device, optional
    seed : int of at least 0, default=0
        For dropout and augmentation.
    with_accuracy : bool, default=False
        Whether records tell the training accuracy.

    Attributes
    ----------
    may_compile : bool
        Whether this training has time to wait for machine code, some seconds the first time.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.backends import get_backend
    >>> from mlp_xp.training.batches import place, plan_epoch
    >>> from mlp_xp.nn.losses import SoftmaxCrossEntropy
    >>> from mlp_xp.nn.network import Network, init_params
    >>> from mlp_xp.optimizers import Adam
    >>> from mlp_xp.training.trainer import Rules, Trainer
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
    ) -> None:
        self.backend = backend
        self.rules = rules
        self.scaling = scaling
        self.dtype = dtype
        self.seed = seed
        self.with_accuracy = with_accuracy
        self.n_epochs = 0
        self.n_steps = 0
        self.n_samples = 0
        self.may_compile = True
        self._rule_start = 0
        self.guard = Guard()
        step = _step(
            rules.network,
            rules.loss,
            rules.optimizer,
            backend.kernels,
            with_penalty=rules.alpha > 0,
            max_grad_norm=rules.max_grad_norm,
            augmentation=rules.augmentation,
            xp=backend.xp,
        )
        self._function = step
        self.rest()
        self.reset(params, batch_stats)
        self.guard.start(self, lambda trainer: trainer.reset(params, batch_stats))

    def reset(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Set the state before the first step; arrays of any library, copied."""
        rules = self.rules
        with self.backend.scope():
            self.state = init_state(
                self._own(params),
                rules.optimizer,
                batch_stats=self._own(batch_stats),
                average=self._own(params) if rules.ema_decay is not None else (),
                with_accuracy=self.with_accuracy,
                xp=self.backend.xp,
            )
        self.n_steps = 0

    def _own(self, tree: Tree) -> Tree:
        """Copy a tree to the device: steps write to their state, so it must be nobody else's."""
        xp, put = self.backend.xp, self.backend.put
        return map_leaves(lambda leaf: xp.asarray(put(leaf, self.dtype), copy=True), tree)

    @property
    def pads(self) -> bool:
        """Whether a short last batch is filled with samples of weight 0."""
        return self.backend.fixed_shapes

    @property
    def multiplies_sparse(self) -> bool:
        """Whether steps take sparse rows as they are."""
        return multiplies_sparse(
            self.backend, self.rules.network, self.scaling, self.rules.augmentation
        )

    @property
    def learned(self) -> Params:
        """What to predict with: the moving average where there is one, else the parameters."""
        return self.state.average or self.state.params

    def set_learned(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Go on from other weights, arrays of any library, which are copied."""
        self.guard.forget()
        with self.backend.scope():
            self.state = self.state._replace(
                params=self._own(params),
                batch_stats=self._own(batch_stats),
                average=self._own(params) if self.state.average else (),
            )

    def rest(self) -> None:
        """Let go of the memory that only steps need; the next one asks for it anew."""
        self._step = self.backend.compile(self._function, donate=True)
        self._loop = self.backend.loop(_nth(self._function))
        self.guard.forget()

    def progress(self) -> Progress:
        """Give what it takes to go on later, beside what was learned, in the host's memory."""
        return Progress(
            self._host(self.state.params) if self.state.average else (),
            self._host(self.state.slots),
            self.n_epochs,
            self.n_steps,
            self.n_samples,
            family(self.rules.optimizer),
            self._rule_start,
        )

    def _host(self, tree: Tree) -> Tree:
        # Copies: the next step writes to the state, and on a CPU `get` may be a view of it.
        return map_leaves(lambda leaf: np.array(self.backend.get(leaf)), tree)

    def copy(self) -> TrainState:
        """Return a copy of the state in the host's memory."""
        copied: TrainState = self._host(self.state)
        return copied

    def restore(self, state: TrainState, n_steps: int) -> None:
        """Go back to a copy of the state, after so many steps in all."""
        with self.backend.scope():
            self.state = self._own(state)
        self.n_steps = n_steps

    def resume(self, progress: Progress) -> None:
        """Go on from where another trainer was; another kind of rule starts afresh."""
        self.guard.forget()
        shapes = [leaf.shape for leaf in leaves(progress.slots)]
        fits = shapes == [leaf.shape for leaf in leaves(self.state.slots)]
        goes_on = fits and progress.rule == family(self.rules.optimizer)
        with self.backend.scope():
            if goes_on:
                self.state = self.state._replace(slots=self._own(progress.slots))
            if progress.params and self.state.average:
                self.state = self.state._replace(params=self._own(progress.params))
        self.n_epochs = progress.n_epochs
        self.n_steps = progress.n_steps
        self.n_samples = progress.n_samples
        self._rule_start = progress.rule_start if goes_on else progress.n_steps

    def run_epoch(
        self,
        data: Data,
        plan: Plan,
        *,
        n_epochs: int,
        first_epoch: int = 0,
        rate_factor: float = 1.0,
        after_step: AfterStep | None = None,
        budget: Budget | None = None,
        step_by_step: bool = True,
    ) -> Record:
        """Train for one epoch.

        Parameters
        ----------
        data : Data
        plan : Plan
        n_epochs : int
            Epochs of the whole fit, for the schedule.
        first_epoch : int, default=0
            Epoch of this trainer at which the schedule begins.
        rate_factor : float, default=1
            Factor of the learning rate.
        after_step : callable, optional
            ``after_step(done, n_steps)`` is called after each step; if it gives True the epoch
            ends there, and the record tells of the steps that were done.
        budget : Budget, optional
            The schedule follows the time that it has left, and the epoch ends with the last step
            that fits, the first at the earliest.
        step_by_step : bool, default=True
            Whether `after_step` has to hear of each step; where it has not, a backend may do about
            a tenth of a second's steps in one call.

        Returns
        -------
        Record

        Raises
        ------
        NonFiniteError
            If loss or weights have become infinite or NaN. The state is then the last finite one.
        """
        backend = self.backend
        xp = backend.xp
        start = time.perf_counter()
        stage = _Stage(self.n_epochs - first_epoch, n_epochs, rate_factor)
        if self.rules.augmentation:
            plan = with_draws(plan, self.rules.augmentation, seed=self.seed, epoch=self.n_epochs)
        work = plan.batch_size * sum(math.prod(p.shape) for p in leaves(self.state.params))
        with backend.scope(), backend.training(work, self._all_steps(len(plan.counts), stage)):
            zero = xp.zeros_like(self.state.loss)
            accuracy_sum = xp.zeros_like(zero) if self.with_accuracy else ()
            self.state = self.state._replace(loss=zero, accuracy=accuracy_sum)
            n_steps = len(plan.counts)
            epoch = Epoch(data, plan, self._keys(n_steps), [])
            self.guard.begin(self, epoch, start)
            groups = self._coefficients(epoch, stage, budget)
            # With a budget the clock is looked at every few steps, and their number changes.
            has_loop = self._loop is not None and budget is None
            stacks = data.stacked(plan) if has_loop else []
            if stacks:
                many = max(1, min(_WORK_AT_ONCE // work, _STEPS_AT_ONCE))
                at_once = 1 if step_by_step else many
                doing = self._many(stacks, epoch.keys, groups, at_once)
            else:
                doing = self._each(epoch, groups)
            # A call of many steps may return before they are done.
            waits = bool(stacks) and not step_by_step and backend.shares_host_memory
            rates: list[float] = []
            with contextlib.closing(doing):
                for done in doing:
                    rates += done
                    if after_step is not None and after_step(len(rates), n_steps):
                        break
                    if len(rates) < n_steps:  # The end of an epoch is looked at anyway.
                        self.guard.look(self, len(rates), waits=waits)
            loss, accuracy = float(backend.get(self.state.loss)), None
            if not isinstance(self.state.accuracy, tuple):
                accuracy = float(backend.get(self.state.accuracy))
            self.guard.end(self, len(rates), loss)
        n_samples = sum(plan.counts[: len(rates)])
        share = n_samples / sum(plan.counts)
        self.n_epochs += 1
        self.n_steps += len(rates)
        self.n_samples += n_samples
        return Record(
            self.n_epochs,
            loss / share,
            None if accuracy is None else accuracy / share,
            rates[-1],
            n_samples,
            time.perf_counter() - start,
        )

    def _all_steps(self, epoch_steps: int, stage: _Stage) -> int:
        """Return the steps of this training: those before the fit, and all that it may do."""
        if not self.may_compile:
            return 0
        return self.n_steps + max(stage.n_epochs - stage.done, 1) * epoch_steps

    def given(
        self, epoch: Epoch, groups: Iterable[Group]
    ) -> Generator[tuple[float, StepArguments]]:
        """Yield the learning rate and the arguments of each step."""
        unstack = self.backend.xp.unstack
        keys = itertools.repeat(None) if epoch.keys is None else iter(unstack(epoch.keys))
        # Streamed ones let go of their thread, also when a step fails and its error is looked at.
        with contextlib.closing(epoch.data.epoch(epoch.plan)) as batches:
            for rates, table in groups:
                for rate, coefs in zip(rates, unstack(table), strict=True):
                    yield rate, StepArguments(next(batches), self.scaling, coefs, next(keys))

    def do(self, arguments: StepArguments) -> None:
        """Do one step."""
        self.state = self._step(self.state, *arguments)

    def _each(self, epoch: Epoch, groups: Iterable[Group]) -> Generator[list[float]]:
        """Do the steps one by one, and tell their rates."""
        with contextlib.closing(self.given(epoch, groups)) as steps:
            for rate, arguments in steps:
                self.do(arguments)
                yield [rate]

    def _many(
        self,
        stacks: list[Batch],
        keys: Array | None,
        groups: Iterable[Group],
        at_once: int,
    ) -> Generator[list[float]]:
        """Do several steps in one call, and tell their rates."""
        assert self._loop is not None
        ((rates, table),) = groups  # The clock alone makes several.
        first = 0
        for stack in stacks:
            assert stack.rows is not None
            n_steps = stack.rows.shape[0]
            last = first + n_steps
            steps = Steps(stack, _part(table, first, last), _part(keys, first, last))
            for start in range(0, n_steps, at_once):
                stop = min(start + at_once, n_steps)
                self.state = self._loop(start, stop, self.state, steps, self.scaling)
                yield rates[first + start : first + stop]
            first = last

    def _coefficients(self, epoch: Epoch, stage: _Stage, budget: Budget | None) -> Iterator[Group]:
        """Give what changes from step to step, computed on the host: the rates, and all of it.

        Without a budget it travels to the device for a whole epoch at once, else for the few steps
        until the clock is looked at again.
        """
        n_steps, done = len(epoch.plan.counts), 0
        while done < n_steps:
            few = n_steps
            if budget is not None:
                few = budget.next_steps(n_steps - done)
                if few == 0 and done > 0:
                    return
            steps = range(done, min(done + max(few, 1), n_steps))
            factors = self._factors(steps, n_steps, stage, budget)
            rate = self.rules.learning_rate * stage.rate_factor
            rates = [rate * factor for factor in factors]
            table = self._table(epoch.plan, steps, rates)
            epoch.groups.append((rates, self.backend.put(table, self.dtype)))
            yield epoch.groups[-1]
            done = steps.stop
            if budget is not None:
                self.backend.get(self.state.loss)  # A device has only queued the steps so far.
                budget.count(len(steps))

    def _factors(
        self, steps: range, epoch_steps: int, stage: _Stage, budget: Budget | None
    ) -> list[float]:
        """Ask the schedule for some steps of an epoch.

        Each epoch is as long as this one to it: those of `partial_fit` may differ in their steps.
        """
        schedule, n_steps = self.rules.schedule, stage.n_epochs * epoch_steps
        before = stage.done * epoch_steps
        if budget is None:
            return [schedule(before + step, n_steps, self.n_samples) for step in steps]
        shares = [
            max(budget.fraction(step - steps.start), (before + step) / max(n_steps - 1, 1))
            for step in steps
        ]
        return [
            schedule(round(min(share, 1.0) * (_TICKS - 1)), _TICKS, self.n_samples)
            for share in shares
        ]

    def _table(self, plan: Plan, steps: range, rates: list[float]) -> np.ndarray:
        """Compute the coefficients of some steps, a row each."""
        rules = self.rules
        n_samples = sum(plan.counts)
        largest = max(plan.totals) or 1.0
        table = []
        for step, rate in zip(steps, rates, strict=True):
            count, total = plan.counts[step], plan.totals[step]
            position = self.n_steps + step
            l2 = rules.alpha / total if total > 0 else 0.0
            rule = rules.optimizer.coefficients(rate, position - self._rule_start + 1)
            # A small last batch tells little: it moves the running statistics as little.
            batch_stats_rate = _BATCH_STATS_RATE * total / largest
            average_rate = _average_rate(rules.ema_decay, position)
            scalars = StepScalars(count / n_samples, l2, average_rate, batch_stats_rate, rule)
            table.append(scalars.pack())
        return np.asarray(table)

    def _keys(self, n_steps: int) -> Array | None:
        """Draw what the dropouts of an epoch start from, the same on every backend."""
        n_keys = self.rules.network.n_keys
        if not n_keys:
            return None
        generator = host_generator(self.seed, "dropout", self.n_epochs)
        limits = np.iinfo(np.int32)
        keys = generator.integers(
            limits.min, limits.max, (n_steps, n_keys), np.int32, endpoint=True
        )
        return self.backend.put(keys)


def _part(table: Any, first: int, last: int) -> Any:
    """Give some rows; a slice of all would be work on some devices."""
    if table is None or (first, last) == (0, table.shape[0]):
        return table
    return table[first:last, ...]


def _average_rate(decay: float | None, step: int) -> float:
    """Give how far a moving average goes towards the newest weights.

    At first it follows them closely, or it would remember the initial weights for long;
    TensorFlow's rule.
    """
    return 0.0 if decay is None else 1.0 - min(decay, (1 + step) / (10 + step))


# One function for all fits with the same settings: what a backend has compiled it finds again.
_step = lru_cache(maxsize=64)(make_step)
_nth = lru_cache(maxsize=64)(make_nth)
