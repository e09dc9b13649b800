"""Inputs of the steps of an epoch, and the part of a trainer that can repeat them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import Draws
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.data.epoch_plan import EpochPlan, with_draws, without_first
from mlp_xp.training.data.placement import Data
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.step.inputs import Batch
from mlp_xp.training.step.scalars import SchedulePosition, draw_keys, learning_rates, scalar_table
from mlp_xp.training.step.step import StepArguments, Steps, TrainState
from mlp_xp.training.step.step_settings import Rules

if TYPE_CHECKING:  # Few fits have a time limit: others start without this module.
    from mlp_xp.training.loop.time_budget import Budget

__all__ = [
    "Epoch",
    "EpochArguments",
    "Group",
    "Repeatable",
    "StepRange",
    "StepTable",
    "draw_arguments",
    "put_group",
    "put_groups",
    "step_table",
]


class StepTable(NamedTuple):
    """The numbers of the steps of some epochs, on the host.

    ``rates`` has the learning rates of each epoch; ``coefs : (epochs, steps, 4 + k)`` are packed
    `StepScalars`.
    """

    rates: list[list[float]]
    coefs: np.ndarray


def step_table(
    trainer: Repeatable,
    plans: Sequence[EpochPlan],
    position: SchedulePosition,
    steps: range | None = None,
    budget: Budget | None = None,
) -> StepTable:
    """Return the numbers of a trainer's next epochs, or of some steps of each.

    The plans have the same counts.
    """
    rules, counts = trainer.rules, plans[0].counts
    n_steps, n_samples = len(counts), sum(counts)
    steps = range(n_steps) if steps is None else steps
    rates = [
        learning_rates(
            rules,
            steps,
            n_steps,
            position._replace(done=position.done + i),
            trainer.n_samples + i * n_samples,
            budget,
        )
        for i in range(len(plans))
    ]
    table = scalar_table(rules, plans, steps, rates, trainer.n_steps, trainer.rule_start)
    return StepTable(rates, table.reshape(len(plans), len(steps), -1))


class Group(NamedTuple):
    """Consecutive steps: their learning rates, and their packed scalars on the device."""

    rates: list[float]
    table: Array


class Epoch(NamedTuple):
    """An epoch of a trainer: little, but all that the arguments of its steps are computed from.

    ``plan`` is without draws; ``n_epochs`` and ``n_steps`` were done before it, and ``first`` of
    its own steps; ``rates`` of the others grows as they are prepared.
    """

    data: Data
    plan: EpochPlan
    n_epochs: int
    n_steps: int
    first: int
    rates: list[float]


class StepRange(NamedTuple):
    """The steps of a call, from ``start`` to ``stop``, and their learning rates."""

    rates: list[float]
    start: int
    stop: int
    steps: Steps
    x: Array
    y: Array


class EpochArguments(NamedTuple):
    """Data, and the arguments of the steps of an epoch, without those that were done before it.

    ``keys : (steps, dropouts)`` or None.
    """

    data: Data
    plan: EpochPlan
    keys: Array | None

    def steps(
        self, groups: Iterable[Group], scaling: Scaling | Whitening | None, backend: Backend
    ) -> Generator[tuple[float, StepArguments]]:
        """Yield the learning rate and the arguments of each step."""
        keys = itertools.repeat(None) if self.keys is None else iter(backend.unstack(self.keys))
        # Streamed batches end their thread here, also when a step fails.
        with contextlib.closing(self.data.epoch(self.plan)) as batches:
            for rates, table in groups:
                for rate, coefs in zip(rates, backend.unstack(table), strict=True):
                    yield rate, StepArguments(next(batches), scaling, coefs, next(keys))

    def ranges(
        self, stacks: list[Batch], groups: Iterable[Group], backend: Backend, most: int
    ) -> Generator[StepRange]:
        """Yield the arguments of calls of ``most`` steps, which end where groups do."""
        counts = [next(leaves(stack.selection)).shape[0] for stack in stacks]  # Of their rows.
        begin = 0
        for rates, table in groups:
            end, first = begin + len(rates), 0
            table = _padded(table, begin, sum(counts), backend)
            for (x, y, selection), n_steps in zip(stacks, counts, strict=True):
                last = first + n_steps
                steps = Steps(selection, _part(table, first, last), _part(self.keys, first, last))
                for start in range(max(begin, first), min(end, last), most):
                    stop = min(start + most, end, last)
                    some = rates[start - begin : stop - begin]
                    yield StepRange(some, start - first, stop - first, steps, x, y)
                first = last
            begin = end


def draw_arguments(
    trainer: Repeatable, epoch: Epoch, draws: tuple[Draws, ...] | None = None
) -> EpochArguments:
    """Draw what the steps of an epoch need beside their scalars: the same each time."""
    backend, rules, seed = trainer.backend, trainer.rules, trainer.seed
    plan, first = epoch.plan._replace(draws=draws), epoch.first
    if rules.augmentation and draws is None:
        plan = with_draws(plan, rules.augmentation, seed=seed, epoch=epoch.n_epochs)
    plan = trainer.processes.own_plan(plan, backend, rules, epoch.data.owned)
    keys = draw_keys(len(plan.counts), rules.network.n_keys, seed=seed, epoch=epoch.n_epochs)
    put_keys = None if keys is None else backend.put(keys[first:])
    return EpochArguments(epoch.data, without_first(plan, first), put_keys)


def put_groups(
    trainer: Repeatable, epoch: Epoch, position: SchedulePosition, budget: Budget | None
) -> Iterator[Group]:
    """Yield the steps of an epoch, with their scalars on the device.

    Without a budget they travel for a whole epoch at once, else for the few steps until the clock
    is read again.
    """
    n_steps, done = len(epoch.plan.counts), epoch.first
    while done < n_steps:
        few = n_steps
        if budget is not None:
            few = budget.next_steps(n_steps - done)
            if few == 0 and done > epoch.first:
                return
        steps = range(done, min(done + max(few, 1), n_steps))
        [rates], [coefs] = step_table(trainer, [epoch.plan], position, steps, budget)
        epoch.rates.extend(rates)
        yield Group(rates, trainer.backend.put(coefs, trainer.dtype))
        done = steps.stop
        if budget is not None:
            # A device has only queued the steps so far.
            trainer.backend.get(trainer.state.loss)
            budget.count(len(steps))


def put_group(trainer: Repeatable, epoch: Epoch, steps: range, rates: list[float]) -> Group:
    """Return some steps of an epoch, with their scalars on the device."""
    plan, rule_start = epoch.plan, trainer.rule_start
    table = scalar_table(trainer.rules, [plan], steps, [rates], epoch.n_steps, rule_start)
    return Group(rates, trainer.backend.put(table, trainer.dtype))


class Repeatable(Protocol):
    """The part of a trainer that finds and undoes a faulty step."""

    backend: Backend
    processes: SingleProcess
    rules: Rules
    scaling: Scaling | Whitening | None
    state: TrainState
    dtype: str
    seed: int
    n_epochs: int
    n_steps: int
    n_samples: int
    rule_start: int

    def copy(self) -> TrainState:
        """Return a copy of the state in the host's memory."""
        ...

    def reset(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Set the state before the first step."""
        ...

    def restore(self, state: TrainState, n_steps: int) -> None:
        """Restore a copy of the state, after this many steps in all."""
        ...

    def read_sums(self) -> list[float]:
        """Return the sums of loss and accuracy over the epoch so far; waits for the device."""
        ...

    def run_step(self, arguments: StepArguments) -> None:
        """Run one step."""
        ...

    def repeat(self, epoch: Epoch) -> Generator[tuple[float, StepArguments]]:
        """Yield again the learning rate and the arguments of each prepared step of an epoch."""
        ...


def _part(table: Any, first: int, last: int) -> Any:
    """Return some rows; a slice of all would be work on some devices."""
    if table is None or (first, last) == (0, table.shape[0]):
        return table
    return table[first:last, ...]


def _padded(table: Array, first: int, n_steps: int, backend: Backend) -> Array:
    """Return the scalars of some steps of an epoch, and 0 for the other steps.

    A backend compiles for the shape of them all, and the clock makes groups of many sizes.
    """
    if table.shape[0] == n_steps:
        return table
    some = backend.get(table)
    whole = np.zeros((n_steps, some.shape[1]), some.dtype)
    whole[first : first + some.shape[0], :] = some
    return backend.put(whole)
