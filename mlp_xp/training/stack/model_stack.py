"""A stack of models, trained together in one state with a model axis."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import field
from functools import lru_cache
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import numbers, structure, with_numbers
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends import Backend
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.shared import SharedResident
from mlp_xp.training.loop.records import Record
from mlp_xp.training.loop.requests import Trained, TrainingRequest
from mlp_xp.training.stack.stacked_trainer import StackedTrainer, StackError
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.step import Step, TrainState, make_indexed_step, make_step
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.step.step_table import StepTable, draw_keys, step_ranges, step_tables
from mlp_xp.training.trainer import Trainer


@dataclass(frozen=True)
class StackSettings:
    """The settings shared by all models in a stack (``key``), and the rules of one model."""

    key: Hashable
    rules: Rules = field(compare=False)


@lru_cache(maxsize=1024)
def stack_settings(rules: Rules) -> StackSettings:
    """Return the settings shared by all models in a stack; other settings are inputs of a step."""
    common = rules.network.structure, rules.max_grad_norm, rules.ema_decay is None
    return StackSettings((*common, structure(_settings(rules))), rules)


def _settings(rules: Rules) -> tuple[Any, ...]:
    """Return the settings whose hyperparameters may differ between models in a stack."""
    return rules.optimizer, rules.loss


@lru_cache(maxsize=64)
def _step(common: StackSettings, backend: Backend) -> Callable[..., Any]:
    """Return a stack's step function, whose ``coefs`` end with the per-model settings."""
    rules = common.rules
    n_rule, n_loss = (len(numbers(part)) for part in _settings(rules))

    def step(state: TrainState, batch: Batch, scaling: Any, coefs: Any, keys: Any) -> TrainState:
        first = coefs.shape[-1] - n_rule - n_loss
        values = [coefs[..., i] for i in range(first, coefs.shape[-1])]
        of_loss = (value[..., None, None] for value in values[n_rule:])
        step_of_models: Step = make_step(
            rules.network,
            with_numbers(rules.loss, of_loss),
            with_numbers(rules.optimizer, iter(values)),
            backend.kernels,
            with_penalty=True,
            max_grad_norm=rules.max_grad_norm,
            takes_dropout_rates=rules.network.n_keys > 0,
            xp=backend.xp,
        )
        return step_of_models(state, batch, scaling, coefs[..., :first], keys)

    return step


class ModelStack:
    """A stack of models: a state with a leading axis, and the trainer at each position.

    A finished model's position becomes None, but is still computed with sample weights of 0 until
    the stack shrinks or a new model takes the position. If ``is_stopped()`` returns True, training
    ends after the current step, without results.
    """

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        self._trainers: list[StackedTrainer | None] = []
        self._positions: dict[object, int] = {}
        self._state: Any = None
        self._scaling: Any = None
        self._width = 0
        self._run: Callable[..., Any] | None = None

    def has(self, trainer: Trainer) -> bool:
        """Whether a trainer's model is in the stack."""
        return trainer.token in self._positions

    def train(
        self, requests: list[TrainingRequest], size: int, n_epochs: int
    ) -> list[list[Trained] | StackError]:
        """Train all models in a stack of at least ``size``; return each model's epochs or error."""
        backend = requests[0].trainer.backend
        self._width = max(self._width, *(request.batch_size for request in requests))
        trained: list[list[Trained]] = [[] for _ in requests]
        with backend.scope():
            self._arrange(requests, size, backend)
            for epoch in range(n_epochs):
                if epoch and self._is_stopped():
                    break
                for epochs, record in zip(trained, self._run_epoch(requests), strict=True):
                    epochs.append(Trained(record))
        for request in requests:
            if request.validation is not None:
                self._return_state(request.trainer)
        return [
            epochs
            if all(math.isfinite(record.loss) for record, _ in epochs)
            else StackError("The loss is not finite.")
            for epochs in trained
        ]

    def _run_epoch(self, requests: list[TrainingRequest]) -> Iterator[Record]:
        start = time.perf_counter()
        backend = requests[0].trainer.backend
        plans = [request.plan(pad=True) for request in requests]
        tables = [
            table
            for request, plan in zip(requests, plans, strict=True)
            for table in step_tables(request.trainer, [plan], request.schedule_position)
        ]
        self._state = self._state._replace(loss=backend.zeros_like(self._state.loss))
        self._run_steps(requests, *self._put_steps(requests, plans, tables))
        losses = backend.get(self._state.loss)
        seconds = time.perf_counter() - start
        for request, plan, table in zip(requests, plans, tables, strict=True):
            loss = float(losses[self._positions[request.trainer.token]])
            yield request.trainer.record(plan, table.rates, [loss], seconds)

    def _return_state(self, trainer: Trainer) -> None:
        """Copy a model's state to its trainer."""
        trainer.set_state(self._copy_of(trainer.backend, self._positions[trainer.token]))

    def _leave(self, trainer: Trainer) -> None:
        """Copy a finished model's state to its trainer, unless training was stopped."""
        if self.has(trainer) and not self._is_stopped():
            self._return_state(trainer)

    def _copy_of(self, backend: Backend, position: int) -> TrainState:
        """Copy one model's state to host memory in a single transfer."""
        if backend.shares_host_memory:  # This needs no transfer or compilation.
            return map_leaves(lambda leaf: np.array(np.from_dlpack(leaf)[position]), self._state)
        with backend.scope():
            where = backend.put(np.asarray([position], dtype=np.int32))
            numbers = backend.get(_flat(backend)(self._state, where))
        shapes = [leaf.shape[1:] for leaf in leaves(self._state)]
        parts = np.split(numbers, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        copies = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        copy: TrainState = rebuild(self._state, copies)
        return copy

    def _arrange(self, requests: list[TrainingRequest], size: int, backend: Backend) -> None:
        """Assign each model a position; new models take the positions of finished models."""
        trainers: list[Any] = [request.trainer for request in requests]
        present = {trainer.token for trainer in trainers}
        # A trainer that was reset since has another state.
        kept = [self._positions[token] for token in self._positions if token in present]
        new = [trainer for trainer in trainers if not self.has(trainer)]
        capacity, n_live = len(self._trainers), len(trainers)
        # If shapes are fixed, keep ``size``, since a new size would require recompilation.
        size = size if backend.fixed_shapes else n_live
        is_wide = 2 * size <= capacity if backend.fixed_shapes else n_live < capacity
        if not new and not is_wide:
            self._assign([trainer if trainer in trainers else None for trainer in self._trainers])
            return
        if is_wide or n_live > capacity:
            capacity = size
        models: list[Any] = [self._trainers[i] for i in kept] + new
        n_empty = capacity - n_live
        xp = backend.xp
        parts = []
        if kept:
            where = backend.put(np.asarray(kept, dtype=np.int32))
            parts.append([xp.take(leaf, where, axis=0) for leaf in leaves(self._state)])
        states = [trainer.state for trainer in new]
        if n_empty:
            states += [states[0] if new else self._copy_of(backend, kept[0])] * n_empty
        if states:
            values = map(np.stack, zip(*map(leaves, states), strict=True))
            parts.append(list(map(backend.put_copy, values)))
        whole = parts[0]
        if len(parts) > 1:
            whole = [xp.concat(pair, axis=0) for pair in zip(*parts, strict=True)]
        self._state = rebuild(self._state if kept else states[0], whole)
        for request in requests:
            if not self.has(request.trainer):
                request.at_end.callback(self._leave, request.trainer)
        self._assign(models + [None] * n_empty)
        self._scaling = None
        if models[0].scaling is not None:
            given = [(trainer or models[0]).scaling for trainer in self._trainers]
            stacked = [xp.stack(values) for values in zip(*map(leaves, given), strict=True)]
            self._scaling = rebuild(given[0], stacked)

    def _assign(self, trainers: list[StackedTrainer | None]) -> None:
        """Store each trainer's position."""
        self._trainers = trainers
        self._positions = {
            trainer.token: i for i, trainer in enumerate(trainers) if trainer is not None
        }

    def _put_steps(
        self, requests: list[TrainingRequest], plans: list[EpochPlan], tables: list[StepTable]
    ) -> tuple[Batch, StepTable, Array | None]:
        """Copy an epoch's batches, tables and keys to the device, with a model axis."""
        first, n_steps = requests[0].trainer, len(plans[0].counts)
        data, backend, n_keys = requests[0].data, first.backend, first.rules.network.n_keys
        assert isinstance(data, SharedResident)
        shape = n_steps, len(self._trainers)
        rows, weights = np.zeros((*shape, self._width), np.int32), np.zeros((*shape, self._width))
        keys, columns = np.zeros((*shape, n_keys), np.int32), []
        for request, plan, table in zip(requests, plans, tables, strict=True):
            trainer, resident = request.trainer, request.data
            assert isinstance(resident, SharedResident)
            position, size = self._positions[trainer.token], (n_steps, plan.batch_size)
            rows[:, position, : size[1]] = resident.rows_of(plan).reshape(size)
            given = plan.weights
            weights[:, position, : size[1]] = 1.0 if given is None else given.reshape(size)
            drawn = draw_keys(trainer, n_steps, trainer.n_epochs)
            if drawn is not None:
                keys[:, position] = drawn
            settings = np.tile(numbers(_settings(trainer.rules)), (n_steps, 1))
            columns.append((position, np.concatenate([table.coefs, settings], axis=1)))
        coefs = np.zeros((*shape, columns[0][1].shape[1]))
        for position, column in columns:
            coefs[:, position] = column
        is_weighted = backend.fixed_shapes or not np.all(weights == 1.0)
        put_weights = backend.put(weights, first.dtype) if is_weighted else None
        return (
            Batch(data.x, data.column.on_device, Selection(backend.put(rows), put_weights)),
            StepTable(tables[0].rates, backend.put(coefs, first.dtype)),
            backend.put(keys) if n_keys else None,
        )

    def _run_steps(
        self, requests: list[TrainingRequest], batch: Batch, table: StepTable, keys: Array | None
    ) -> None:
        backend, rules = requests[0].trainer.backend, requests[0].trainer.rules
        if self._run is None:
            step = _step(stack_settings(rules), backend)
            self._run = backend.loop_of_models(make_indexed_step(step))
        n_numbers = sum(math.prod(leaf.shape) for leaf in leaves(self._state.params))
        at_once = max(1, backend.work_at_once // (self._width * n_numbers))
        positions = [self._positions[request.trainer.token] for request in requests]
        for call in step_ranges([batch], [table], keys, backend, at_once):
            if self._is_stopped():
                return
            stops = np.full(len(self._trainers), call.start, np.int32)
            stops[positions] = call.stop
            given = *call.given, self._scaling
            self._state = self._run(call.start, stops, self._state, *given)


@lru_cache(maxsize=64)
def _flat(backend: Backend) -> Callable[..., Any]:
    """Return the function that copies one model's state out of a stack."""
    xp = backend.xp

    def flat(state: TrainState, where: Array) -> Array:
        taken = (xp.take(leaf, where, axis=0) for leaf in leaves(state))
        return xp.concat([xp.reshape(leaf, (-1,)) for leaf in taken])

    return backend.compile(flat)
