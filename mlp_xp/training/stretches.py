"""Several epochs in one call: those of a small fit, whose data are one batch.

Such an epoch takes less time than what is done around it. The call keeps the loss, and the weights
where they are measured, of each epoch, so that a fit ends as if its epochs had been run one by one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import to_numpy
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.arguments import Epoch
from mlp_xp.training.batches import Data, Resident
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.fit_settings import LoopSettings, Validation, Watcher
from mlp_xp.training.inputs import Batch
from mlp_xp.training.records import Record
from mlp_xp.training.scalars import Stage, draw_keys, learning_rates, scalar_rows
from mlp_xp.training.step import Step, TrainState
from mlp_xp.training.trainer import Trainer

__all__ = ["Stretches", "Trained", "new_stretches"]

# Epochs of a call, and numbers of the weights that it keeps.
_MOST_EPOCHS, _MOST_NUMBERS = 32, 1 << 18


class Trained(NamedTuple):
    """An epoch; ``learned()`` copies the weights and batch statistics after it, if measured."""

    record: Record
    learned: Callable[[], tuple[Params, tuple[BatchStats, ...]]] | None = None


class _Kept(NamedTuple):
    """The weights and the loss before each epoch, and after the last: the first axis counts them.

    There are no weights where nothing is measured.
    """

    learned: Params
    batch_stats: tuple[BatchStats, ...]
    loss: Array


class _Numbers(NamedTuple):
    """The numbers of each epoch: packed `StepScalars`, dropout keys, and the loss before it."""

    coefs: Array
    keys: Array | None
    losses: Array


def new_stretches(
    trainer: Trainer,
    data: Data,
    settings: LoopSettings,
    *,
    weights: np.ndarray | None,
    validation: Validation | None,
    watcher: Watcher,
    first_epoch: int,
) -> Stretches | None:
    """Return what runs the epochs of a small fit, None if it is not small or is watched."""
    backend = trainer.backend
    is_watched = watcher.watches_epochs or watcher.watches_steps or watcher.watches_pauses
    if (
        is_watched
        or settings.verbose
        or settings.max_time is not None
        or (validation is not None and validation.looks_at_model)
        or trainer.with_accuracy
        or trainer.rules.augmentation
        or not backend.returns_results
        or backend.communicator is not None
        or not isinstance(data, Resident)
        or data.n_samples > settings.batch_size
    ):
        return None
    numbers = sum(math.prod(leaf.shape) for leaf in leaves(trainer.state.params))
    at_once = backend.work_at_once // (numbers * data.n_samples)
    kept = _MOST_EPOCHS if validation is None else _MOST_NUMBERS // numbers - 1
    most = int(min(settings.max_iter, settings.patience + 1, _MOST_EPOCHS, at_once, kept))
    if most < 2:
        return None
    return Stretches(trainer, data, settings, weights, validation, first_epoch, most)


class Stretches:
    """The epochs of a small fit; see `new_stretches`.

    Parameters
    ----------
    trainer : Trainer
    data : Resident
        One batch.
    settings : LoopSettings
    weights : (samples,) array or None
    validation : Validation or None
        Measured after each epoch.
    first_epoch : int
        Epoch of the trainer at which the schedule begins.
    most : int
        Epochs of a call.
    """

    def __init__(
        self,
        trainer: Trainer,
        data: Resident,
        settings: LoopSettings,
        weights: np.ndarray | None,
        validation: Validation | None,
        first_epoch: int,
        most: int,
    ) -> None:
        self._trainer, self._data, self._validation = trainer, data, validation
        self._n_epochs, self._first_epoch, self._most = settings.max_iter, first_epoch, most
        self._plan = plan_epoch(data.n_samples, settings.batch_size, weights=weights)
        xp, state = trainer.backend.xp, trainer.state
        with contextlib.closing(data.epoch(self._plan)) as batches:
            batch = next(batches)
        if batch.rows is not None and isinstance(batch.x, np.ndarray):
            x, y = (xp.take(values, batch.rows, axis=0) for values in (batch.x, batch.y))
            batch = batch._replace(x=x, y=y, rows=None)
        self._batch = batch
        kept = _Kept((), (), state.loss)
        if validation is not None:
            kept = _Kept(trainer.learned, state.batch_stats, state.loss)
        self._kept: _Kept = map_leaves(
            lambda leaf: xp.empty((most + 1, *leaf.shape), dtype=leaf.dtype), kept
        )
        self._loop = trainer.backend.loop(_epoch(trainer.function))

    def run(self, n_epochs: float, rate_factor: float) -> Iterator[Trained]:
        """Train for so many epochs, or fewer, each as `Trainer.run_epoch` does, and yield them.

        Raises
        ------
        NonFiniteError
            If the loss has become infinite or NaN, after the epochs before.
        """
        trainer, plan, kept = self._trainer, self._plan, self._kept
        assert self._loop is not None
        n_epochs = int(min(n_epochs, self._most))
        start = time.perf_counter()
        numbers, rates = self._numbers(n_epochs, rate_factor)
        epochs = [
            Epoch(self._data, plan, trainer.n_epochs + i, trainer.n_steps + i, 0, [rate])
            for i, rate in enumerate(rates)
        ]
        trainer.guard.begin(trainer, epochs[0], start)
        stage = Stage(trainer.n_epochs - self._first_epoch, self._n_epochs, rate_factor)
        with trainer.backend.scope(), trainer.computing(self._data, plan, stage):
            states = trainer.state, kept
            trainer.state, self._kept = self._loop(
                0, n_epochs, states, numbers, self._batch, trainer.scaling
            )
        for place, leaf in zip(leaves(self._kept), _kept_of(trainer.state, kept), strict=True):
            place[n_epochs] = leaf
        losses = to_numpy(self._kept.loss)[1 : n_epochs + 1].tolist()
        n_finite = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), n_epochs)
        seconds = (time.perf_counter() - start) / n_epochs
        measured: list[tuple[float | None, float | None]] = [(None, None)] * n_finite
        if self._validation is not None and n_finite:
            after = map_leaves(lambda leaf: leaf[1 : n_finite + 1, ...], self._kept[:2])
            measured = [*self._validation.measure_each(*after)]
        for i, (value, score) in enumerate(measured):
            if i:
                trainer.guard.begin(trainer, epochs[i], -math.inf)  # A copy would be too late.
            self._count()
            record = Record(trainer.n_epochs, losses[i], None, rates[i], plan.counts[0], seconds)
            record = record._replace(validation_loss=value, validation_score=score)
            yield Trained(record, None if score is None else partial(self._learned, i + 1))
        if n_finite < n_epochs:
            if n_finite:
                trainer.guard.begin(trainer, epochs[n_finite], -math.inf)
            trainer.guard.end(trainer, 1, losses[n_finite])

    def end(self) -> None:
        """Release the memory that the epochs need."""
        trainer = self._trainer
        states = trainer.state, self._kept
        if not trainer.rules.has_own_functions:
            trainer.state, self._kept = trainer.backend.release(self._loop, states)

    def _count(self) -> None:
        trainer = self._trainer
        trainer.n_epochs += 1
        trainer.n_steps += 1
        trainer.n_samples += self._plan.counts[0]

    def _learned(self, i: int) -> tuple[Params, tuple[BatchStats, ...]]:
        xp = self._trainer.backend.xp
        copied: tuple[Params, tuple[BatchStats, ...]] = map_leaves(
            lambda leaf: xp.asarray(leaf[i, ...], copy=True), self._kept[:2]
        )
        return copied

    def _numbers(self, n_epochs: int, rate_factor: float) -> tuple[_Numbers, list[float]]:
        """Return what differs from epoch to epoch, and the learning rates."""
        trainer, plan, one = self._trainer, self._plan, range(1)
        rules, put = trainer.rules, trainer.backend.put
        done, seen = trainer.n_epochs - self._first_epoch, trainer.n_samples
        rates, rows, keys = [], [], []
        for i in range(n_epochs):
            stage, n_samples = (
                Stage(done + i, self._n_epochs, rate_factor),
                seen + i * plan.counts[0],
            )
            rate = learning_rates(rules, one, 1, stage, n_samples, None)
            n_steps = trainer.n_steps + i
            rows += scalar_rows(rules, plan, one, rate, n_steps, trainer.rule_start)
            rates += rate
            epoch = trainer.n_epochs + i
            drawn = draw_keys(1, rules.network.n_keys, seed=trainer.seed, epoch=epoch)
            keys += [] if drawn is None else [drawn]
        # One shape for all calls, for which the backend has traced the epoch.
        unused = self._most - n_epochs
        coefs = np.asarray(rows + rows[:1] * unused)
        losses = np.zeros(self._most)
        put_keys = put(np.concatenate(keys + keys[:1] * unused)) if keys else None
        return _Numbers(put(coefs, trainer.dtype), put_keys, put(losses, trainer.dtype)), rates


def _kept_of(state: TrainState, kept: _Kept) -> Iterator[Array]:
    """Return what is kept of a state, in the order of the leaves."""
    learned = state.average or state.params if kept.learned else ()
    return leaves(_Kept(learned, state.batch_stats if kept.learned else (), state.loss))


@lru_cache(maxsize=64)
def _epoch(step: Step) -> Callable[..., Any]:
    """Return the function of one of many epochs of a step each, for `Backend.loop`."""

    def epoch(
        i: Any, states: tuple[TrainState, _Kept], numbers: _Numbers, batch: Batch, scaling: Any
    ) -> tuple[TrainState, _Kept]:
        state, kept = states
        for place, leaf in zip(leaves(kept), _kept_of(state, kept), strict=True):
            place[i, ...] = leaf
        keys = None if numbers.keys is None else numbers.keys[i, ...]
        state = state._replace(loss=numbers.losses[i, ...])
        return step(state, batch, scaling, numbers.coefs[i, ...], keys), kept

    return epoch
