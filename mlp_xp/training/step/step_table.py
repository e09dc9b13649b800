"""The steps of an epoch, prepared on the host: scalars, dropout keys and batches.

`step_tables` computes each step's learning rate: the initial rate, times the factor that
"adaptive" has lowered, times the schedule.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.random import host_generator
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import Draws
from mlp_xp.backends import Backend
from mlp_xp.optimizers import Optimizer, with_decay
from mlp_xp.training.data.epoch_plan import EpochPlan, with_draws, without_first
from mlp_xp.training.data.placement import Data
from mlp_xp.training.step.base_trainer import BaseTrainer
from mlp_xp.training.step.inputs import Batch
from mlp_xp.training.step.step import StepArguments, Steps

if TYPE_CHECKING:  # Imported on first use, since few fits have a time limit.
    from mlp_xp.training.loop.time_budget import Budget

# The weight of a batch in the running statistics of batch normalization, as in PyTorch.
_BATCH_STATS_RATE = 0.1
# The number of positions in a schedule driven by a time limit.
_TICKS = 10**6


class SchedulePosition(NamedTuple):
    """The number of completed epochs, their total number, and the learning rate's factor."""

    done: int
    n_epochs: int
    rate_factor: float


class StepTable(NamedTuple):
    """The learning rates of consecutive steps, and their packed `StepScalars`, one row per step."""

    rates: list[float]
    coefs: Any


def step_tables(
    trainer: BaseTrainer,
    plans: Sequence[EpochPlan],
    position: SchedulePosition,
    steps: range | None = None,
    budget: Budget | None = None,
) -> list[StepTable]:
    """Compute the scalars for a trainer's next epochs, or for some steps of each, on the host.

    The plans have equal counts. Schedules assume that every epoch has the same number of steps.
    """
    rules, counts = trainer.rules, plans[0].counts
    n_steps, n_samples = len(counts), sum(counts)
    steps = range(n_steps) if steps is None else steps
    first = trainer.n_steps + steps.start
    rates, decays, dropout = [], [], []
    for i in range(len(plans)):
        done, total = (position.done + i) * n_steps, position.n_epochs * n_steps
        ticks = [done + step for step in steps]
        if budget is not None:
            ticks, total = _ticks_by_clock(budget, ticks, total), _TICKS
        given = total, trainer.n_samples + i * n_samples
        start = rules.learning_rate * position.rate_factor
        rates.append([start * rules.schedule(tick, *given) for tick in ticks])
        if rules.weight_decay_schedule is not None:
            decays += [rules.weight_decay_schedule(tick, *given) for tick in ticks]
        if rules.dropout_schedule is not None:
            dropout += [rules.dropout_schedule(tick, *given) for tick in ticks]
    optimizers: Iterable[Optimizer] = itertools.repeat(rules.optimizer)
    if decays:
        optimizers = (with_decay(rules.optimizer, factor) for factor in decays)
    numbers = itertools.count(first + 1 - trainer.rule_start)
    per_step = zip(optimizers, itertools.chain(*rates), numbers, strict=False)
    rule = np.asarray(
        [one.coefficients(rate, number) for one, rate, number in per_step], np.float64
    )
    columns = [rule]
    if trainer.takes_dropout_rates:
        # Multiply in the dtype of a step, so that the rates are rounded as in a step.
        factors = np.asarray(dropout or np.ones(len(rule)), trainer.dtype)
        columns.append(factors[:, None] * np.asarray(rules.network.dropout_rates, trainer.dtype))
    fixed = np.zeros((len(plans), len(steps), 4))
    fraction, l2, average_rate, batch_stats_rate = (
        fixed[..., i] for i in range(4)
    )  # The first four fields of `StepScalars`.
    totals = np.asarray([plan.totals[steps.start : steps.stop] for plan in plans])
    fraction[:] = np.asarray(counts[steps.start : steps.stop]) / n_samples
    np.divide(rules.alpha, totals, out=l2, where=totals > 0)
    if rules.ema_decay is not None:
        # The decay starts smaller, as in TensorFlow. Otherwise the average would depend on the
        # initial weights for many steps.
        earlier = first + np.arange(len(rule))
        decays_of_average = np.minimum(rules.ema_decay, (1 + earlier) / (10 + earlier))
        average_rate[:] = np.reshape(1.0 - decays_of_average, average_rate.shape)
    # A smaller last batch changes the running statistics less.
    largest = np.asarray([[max(plan.totals) or 1.0] for plan in plans])
    np.divide(_BATCH_STATS_RATE * totals, largest, out=batch_stats_rate)
    coefs = np.concatenate([fixed.reshape(-1, 4), *columns], axis=1)
    return list(map(StepTable, rates, coefs.reshape(len(plans), len(steps), -1)))


def _ticks_by_clock(budget: Budget, ticks: list[int], n_steps: int) -> list[int]:
    """Return positions in a schedule of `_TICKS`.

    Positions follow the fraction of elapsed time or of completed steps, whichever is larger.
    """
    passed = [budget.fraction(ahead) for ahead in range(len(ticks))]
    least = (tick / max(n_steps - 1, 1) for tick in ticks)
    return [round(min(max(both), 1.0) * (_TICKS - 1)) for both in zip(passed, least, strict=True)]


def draw_keys(trainer: BaseTrainer, n_steps: int, epoch: int) -> np.ndarray | None:
    """Draw the dropout keys of an epoch, (steps, dropouts) int32; None without dropout."""
    n_keys = trainer.rules.network.n_keys
    if not n_keys:
        return None
    generator = host_generator(trainer.seed, "dropout", epoch)
    limits = np.iinfo(np.int32)
    return generator.integers(limits.min, limits.max, (n_steps, n_keys), np.int32, endpoint=True)


class Epoch(NamedTuple):
    """A trainer's epoch, with the values needed to repeat its steps.

    ``plan`` contains no draws. ``number`` epochs were completed before this one, and ``first`` of
    its steps before the fit was resumed. Each table of scalars is appended to ``tables`` when it is
    computed.
    """

    data: Data
    plan: EpochPlan
    number: int
    first: int
    tables: list[StepTable]


class StepRange(NamedTuple):
    """The steps ``start`` to ``stop`` of one call, their learning rates, and the data."""

    rates: list[float]
    start: int
    stop: int
    given: tuple[Steps, Array, Array]


class EpochArguments(NamedTuple):
    """The data and arguments for an epoch's remaining steps.

    ``keys : (steps, dropouts)`` or None.
    """

    data: Data
    plan: EpochPlan
    keys: Array | None

    def steps(
        self, tables: Iterable[StepTable], trainer: BaseTrainer
    ) -> Generator[tuple[float, StepArguments]]:
        """Yield the learning rate and the arguments of each step; ``tables`` are on the device."""
        unstack = trainer.backend.unstack
        keys = itertools.repeat(None) if self.keys is None else iter(unstack(self.keys))
        # Close the iterator even if a step fails, which ends the thread that streams batches.
        with contextlib.closing(self.data.epoch(self.plan)) as batches:
            for rates, table in tables:
                for rate, coefs in zip(rates, unstack(table), strict=True):
                    yield rate, StepArguments(next(batches), trainer.scaling, coefs, next(keys))


def step_ranges(
    stacks: Sequence[Batch],
    tables: Iterable[StepTable],
    keys: Array | None,
    backend: Backend,
    most: int,
) -> Generator[StepRange]:
    """Yield the arguments of each call of up to ``most`` steps within one table and one stack."""
    counts = [leaves(stack.selection)[0].shape[0] for stack in stacks]
    begin = 0
    for rates, table in tables:
        end, first = begin + len(rates), 0
        table = _padded(table, begin, sum(counts), backend)
        for (x, y, selection), n_steps in zip(stacks, counts, strict=True):
            last = first + n_steps
            steps = Steps(selection, _part(table, first, last), _part(keys, first, last))
            for start in range(max(begin, first), min(end, last), most):
                stop = min(start + most, end, last)
                some = rates[start - begin : stop - begin]
                yield StepRange(some, start - first, stop - first, (steps, x, y))
            first = last
        begin = end


def draw_arguments(
    trainer: BaseTrainer, epoch: Epoch, draws: tuple[Draws, ...] | None = None
) -> EpochArguments:
    """Return the batches and keys for an epoch's steps; repeated calls give the same draws."""
    backend, rules = trainer.backend, trainer.rules
    plan, first = epoch.plan._replace(draws=draws), epoch.first
    if rules.augmentation and draws is None:
        plan = with_draws(plan, rules.augmentation, seed=trainer.seed, epoch=epoch.number)
    plan = trainer.processes.own_plan(plan, backend, rules, epoch.data.owned)
    keys = draw_keys(trainer, len(plan.counts), epoch.number)
    put_keys = None if keys is None else backend.put(keys[first:])
    return EpochArguments(epoch.data, without_first(plan, first), put_keys)


def put_tables(
    trainer: BaseTrainer, epoch: Epoch, position: SchedulePosition, budget: Budget | None
) -> Iterator[StepTable]:
    """Copy the tables for an epoch's steps to the device, yield them, and store them in the epoch.

    If there is no budget, one table covers the epoch; otherwise each table covers the steps until
    the clock is read again.
    """
    n_steps, done = len(epoch.plan.counts), epoch.first
    while done < n_steps:
        few = n_steps
        if budget is not None:
            few = budget.next_steps(n_steps - done)
            if few == 0 and done > epoch.first:
                return
        steps = range(done, min(done + max(few, 1), n_steps))
        epoch.tables.extend(step_tables(trainer, [epoch.plan], position, steps, budget))
        yield _put(trainer, epoch.tables[-1])
        done = steps.stop
        if budget is not None:
            # Wait until the device has run all queued steps.
            trainer.backend.get(trainer.state.loss)
            budget.count(len(steps))


def repeat(
    trainer: BaseTrainer, epochs: Sequence[Epoch], first: int
) -> Generator[tuple[int, int, float, StepArguments]]:
    """Yield the prepared steps of several epochs again, except the first steps of the first epoch.

    Each item is the position of the epoch, from 1, the number of the step in the epoch, from 1, its
    learning rate, and its arguments.
    """
    for number, epoch in enumerate(epochs, 1):
        tables = [_put(trainer, table) for table in epoch.tables]
        with contextlib.closing(draw_arguments(trainer, epoch).steps(tables, trainer)) as steps:
            for step, (rate, arguments) in enumerate(steps, epoch.first + 1):
                if number > 1 or step > first:
                    yield number, step, rate, arguments


def _put(trainer: BaseTrainer, table: StepTable) -> StepTable:
    return table._replace(coefs=trainer.backend.put(table.coefs, trainer.dtype))


def _part(table: Any, first: int, last: int) -> Any:
    """Return rows of a table, without slicing if all are requested, since slicing may copy."""
    if table is None or (first, last) == (0, table.shape[0]):
        return table
    return table[first:last, ...]


def _padded(table: Array, first: int, n_steps: int, backend: Backend) -> Array:
    """Zero-pad the scalars for some steps to the epoch's number of steps.

    A backend then compiles for one shape, although a time limit leads to tables of many sizes.
    """
    if table.shape[0] == n_steps:
        return table
    some = backend.get(table)
    whole = np.zeros((n_steps, some.shape[1]), some.dtype)
    whole[first : first + some.shape[0], :] = some
    return backend.put(whole)
