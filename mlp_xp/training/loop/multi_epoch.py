"""Several epochs of a small fit in one call.

In a small fit, an epoch's overhead exceeds its computation time. Each call stores the loss of every
step and, for validation, the weights. The fit therefore ends exactly as if its epochs had run one
by one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import to_numpy
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.placement import Resident
from mlp_xp.training.loop.requests import Trained, TrainingRequest
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.step import Step, Steps, TrainState, make_indexed_step
from mlp_xp.training.step.step_context import n_alike, step_context
from mlp_xp.training.step.step_table import Epoch, StepTable, draw_keys, step_tables

# The maximum numbers of epochs, steps, rows and stored weights per call.
_MOST_EPOCHS, _MOST_STEPS, _MOST_ROWS, _MOST_NUMBERS = 32, 2_000, 1 << 20, 1 << 18


class _Kept(NamedTuple):
    """The losses and weights for all steps in a call, along the first axis.

    Each step stores the values before its update; `_run` adds the final values. Weights are stored
    only for validation.
    """

    learned: Params
    batch_stats: tuple[BatchStats, ...]
    loss: Array


States: TypeAlias = tuple[TrainState, tuple[_Kept, ...]]


def new_multi_epoch(request: TrainingRequest) -> Callable[[TrainingRequest], list[Trained]] | None:
    """Return a function that trains several epochs per call, or None if the fit is not small."""
    trainer, data, settings = request.trainer, request.data, request.settings
    backend, validation = trainer.backend, request.validation
    if (
        request.n_epochs == 1
        or trainer.with_accuracy
        or trainer.rules.augmentation
        or not backend.returns_results
        or not trainer.processes.is_single
        or not isinstance(data, Resident)
    ):
        return None
    n_steps = -(-data.n_samples // settings.batch_size)
    if n_steps > 1 and validation is not None:
        return None
    numbers = sum(math.prod(leaf.shape) for leaf in leaves(trainer.state.params))
    at_once = backend.work_at_once // (numbers * data.n_samples)
    kept = _MOST_EPOCHS if validation is None else _MOST_NUMBERS // numbers - 1
    at_once = min(at_once, kept, _MOST_STEPS // n_steps, _MOST_ROWS // data.n_samples)
    most = int(min(settings.max_iter, settings.patience + 1, _MOST_EPOCHS, at_once))
    return None if most < 2 else MultiEpoch(request, data, most).train


class MultiEpoch:
    """A small fit that runs up to ``most`` epochs per call; see `new_multi_epoch`."""

    def __init__(self, request: TrainingRequest, data: Resident, most: int) -> None:
        self._trainer, self._data, self._most = request.trainer, data, most
        self._validation = request.validation
        trainer, plan = request.trainer, request.plan()
        xp, state = trainer.backend.xp, trainer.state
        self._counts = plan.counts
        self._batches: list[Batch] = []
        if plan.rows is None:
            with contextlib.closing(data.epoch(plan)) as batches:
                batch = next(batches)
            rows = batch.selection.rows
            x, y, weights = batch.x, batch.y, batch.selection.weights
            if rows is not None and isinstance(x, np.ndarray):
                x, y = (xp.take(values, rows, axis=0) for values in (x, y))
                rows = None
            every_step = [
                None if leaf is None else xp.broadcast_to(leaf, (most, *leaf.shape))
                for leaf in (rows, weights)
            ]
            self._batches = [Batch(x, y, Selection(*every_step))]
        kept = _Kept((), (), state.loss)
        if self._validation is not None:
            kept = _Kept(trainer.learned, state.batch_stats, state.loss)
        # The steps with full batches, and the step with the shorter last batch, if there is one.
        n_full, n_steps = data.n_samples // plan.batch_size, len(plan.counts)
        self._parts = [range(n_full), range(n_full, n_steps)][: 1 + (n_full < n_steps)]

        def empty(n: int) -> _Kept:
            made: _Kept = map_leaves(
                lambda leaf: xp.empty((n, *leaf.shape), dtype=leaf.dtype), kept
            )
            return made

        self._kept = tuple(empty(most * len(part) + 1) for part in self._parts)
        self._loop: Any = trainer.backend.loop(_make_keeping_step(trainer.function))
        self._faulty: Callable[[], None] | None = None
        request.at_end.callback(trainer.release, self._loop)

    def train(self, request: TrainingRequest) -> list[Trained]:
        """Train at most the requested epochs, with the same results as `Trainer.run_epoch`.

        Raise `NonFiniteError` if the loss of the first epoch has become infinite or NaN.
        """
        if self._faulty is not None:
            self._faulty()
        trainer, counts = self._trainer, self._counts
        n_epochs, n_steps = min(request.n_epochs, self._most), len(counts)
        start = time.perf_counter()
        plans = [request.plan(i) for i in range(n_epochs if n_steps > 1 else 1)]
        plans *= n_epochs // len(plans)  # If there is only one batch, all plans are identical.
        position = request.schedule_position
        n_epochs = n_alike(trainer, self._data, plans[0], position, n_epochs)
        plans = plans[:n_epochs]
        tables = step_tables(trainer, plans, position)
        epochs = [
            Epoch(self._data, plan, trainer.n_epochs + i, 0, [table])
            for i, (plan, table) in enumerate(zip(plans, tables, strict=True))
        ]
        trainer.guard.begin(trainer, epochs[0], start)
        with trainer.backend.scope(), step_context(trainer, self._data, plans[0], position):
            self._run(plans, tables)
        steps = self._losses(n_epochs)
        losses = np.add.accumulate(steps, axis=1, dtype=steps.dtype)[:, -1].tolist()
        n_finite = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), n_epochs)
        seconds = (time.perf_counter() - start) / n_epochs
        measured: list[tuple[float | None, float | None]] = [(None, None)] * n_finite
        if self._validation is not None and n_finite:
            after = map_leaves(lambda leaf: leaf[1 : n_finite + 1, ...], self._kept[0])
            measured = [*self._validation.measure_each(after.learned, after.batch_stats)]
        trained = []
        # Pass -inf to copy no state, since the state already includes these epochs.
        for epoch in epochs[1 : n_finite + 1]:
            trainer.guard.begin(trainer, epoch, -math.inf)
        for i, (value, score) in enumerate(measured):
            record = trainer.record(plans[i], tables[i].rates, [losses[i]], seconds)
            record = record._replace(validation_loss=value, validation_score=score)
            learned = None if score is None else partial(self._learned, i + 1)
            trained.append(Trained(record, learned))
        if n_finite < n_epochs:
            self._faulty = partial(trainer.guard.end, trainer, n_steps, losses[n_finite])
            if not trained:
                self._faulty()
        return trained

    def _learned(self, i: int) -> tuple[Params, tuple[BatchStats, ...]]:
        xp, kept = self._trainer.backend.xp, self._kept[0]
        copied: tuple[Params, tuple[BatchStats, ...]] = map_leaves(
            lambda leaf: xp.asarray(leaf[i, ...], copy=True), (kept.learned, kept.batch_stats)
        )
        return copied

    def _run(self, plans: list[EpochPlan], tables: list[StepTable]) -> None:
        """Run the steps of several epochs in one call."""
        trainer, n_epochs = self._trainer, len(plans)
        lengths = [len(part) for part in self._parts]
        ranges = [
            (number, i * length, (i + 1) * length)
            for i in range(n_epochs)
            for number, length in enumerate(lengths)
        ]
        if len(lengths) == 1:
            ranges = [(0, 0, n_epochs * lengths[0])]
        states = trainer.state, self._kept
        state, self._kept = self._loop.run_ranges(ranges, states, self._arguments(plans, tables))
        trainer.state = state
        last = _kept_of(state, self._kept[0])
        for stored, leaf in zip(leaves(self._kept[0]), last, strict=True):
            stored[n_epochs * lengths[0]] = leaf

    def _losses(self, n_epochs: int) -> np.ndarray:
        """Return each step's contribution to its epoch's loss, (epochs, steps)."""
        losses = [
            to_numpy(kept.loss)[: n_epochs * len(part)].reshape(n_epochs, -1)
            for part, kept in zip(self._parts, self._kept, strict=True)
        ]
        steps = np.concatenate(losses, axis=1)
        last = to_numpy(self._trainer.state.loss)
        return np.append(steps.ravel()[1:], last).reshape(steps.shape)

    def _arguments(self, plans: list[EpochPlan], tables: list[StepTable]) -> list[tuple[Any, ...]]:
        """Return each part's step arguments, padded to ``most`` epochs.

        All calls then use the same shapes, so the backend traces a step only once.
        """
        trainer, n_steps, n_unused = self._trainer, len(self._counts), self._most - len(plans)
        put, has_keys = trainer.backend.put, trainer.rules.network.n_keys > 0
        columns = [np.stack([table.coefs for table in tables], dtype=trainer.dtype)]
        if has_keys:
            epochs = range(trainer.n_epochs, trainer.n_epochs + len(plans))
            drawn: list[Any] = [draw_keys(trainer, n_steps, epoch) for epoch in epochs]
            columns.append(np.stack(drawn))
        columns = [np.concatenate([column, *[column[:1]] * n_unused]) for column in columns]
        batches = self._batches or self._data.stacked([*plans, *plans[:1] * n_unused])
        found = []
        for number, (part, (x, y, selection)) in enumerate(zip(self._parts, batches, strict=True)):
            values_of_part = (column[:, part.start : part.stop] for column in columns)
            coefs, *keys = (put(values.reshape(-1, values.shape[2])) for values in values_of_part)
            steps = Steps(selection, coefs, keys[0] if keys else None)
            zeros = put(np.zeros(self._most * len(part), trainer.dtype))
            found.append((number, steps, zeros, x, y, trainer.scaling))
        return found


def _kept_of(state: TrainState, kept: _Kept) -> list[Array]:
    """Return the arrays in a state that `_Kept` stores, in the order of its leaves."""
    learned = state.average or state.params if kept.learned else ()
    return leaves(_Kept(learned, state.batch_stats if kept.learned else (), state.loss))


@lru_cache(maxsize=64)
def _make_keeping_step(step: Step) -> Callable[..., Any]:
    """Return a step function for `Backend.loop` that also stores the values before its update."""
    indexed_step = make_indexed_step(step)

    def keeping_step(
        i: Any, states: States, part: int, steps: Steps, zeros: Array, *shared: Any
    ) -> States:
        state, kept = states
        for stored, leaf in zip(leaves(kept[part]), _kept_of(state, kept[part]), strict=True):
            stored[i, ...] = leaf
        return indexed_step(i, state._replace(loss=zeros[i, ...]), steps, *shared), kept

    return keeping_step
