"""The models of one program: a state with an axis for them, their steps, what they predict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.settings import numbers, structure, with_numbers
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends import Backend
from mlp_xp.nn.blocks import DropoutKeys
from mlp_xp.nn.layers import threshold
from mlp_xp.nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.shared import SharedResident
from mlp_xp.training.loop.records import Record
from mlp_xp.training.loop.requests import Request, Trained
from mlp_xp.training.stack.stacked_trainer import StackedTrainer, StackError
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.scalars import draw_keys
from mlp_xp.training.step.step import Step, Steps, TrainState, make_indexed_step, make_step
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.step.step_table import step_table
from mlp_xp.training.trainer import Trainer

__all__ = ["ModelStack", "program_of"]


# Losses whose numbers, label smoothing, may be arrays.
_SMOOTHED = SoftmaxCrossEntropy, BinaryCrossEntropy


@dataclass(frozen=True)
class Program:
    """The settings that models share whose steps are one program, and those of one of them."""

    key: Hashable
    rules: Rules = field(compare=False)


@lru_cache(maxsize=1024)
def program_of(rules: Rules) -> Program:
    """Return the program of a model; what is not part of it are numbers of each step."""
    loss = type(rules.loss) if type(rules.loss) in _SMOOTHED else rules.loss
    has = rules.ema_decay is None, rules.dropout_schedule is None
    key = rules.network.structure, loss, rules.max_grad_norm, has, structure(_settings(rules))
    return Program(key, rules)


def _settings(rules: Rules) -> tuple[Any, ...]:
    """Return the settings whose numbers may differ between the models of a program."""
    return rules.optimizer, rules.loss if type(rules.loss) in _SMOOTHED else None


@lru_cache(maxsize=64)
def _step(program: Program, backend: Backend) -> Callable[..., Any]:
    """Return the function of a step of a program; the numbers of settings are packed last."""
    rules = program.rules
    n_rule, n_loss = (len(numbers(part)) for part in _settings(rules))

    def step(state: TrainState, batch: Batch, scaling: Any, coefs: Any, keys: Any) -> TrainState:
        first = coefs.shape[-1] - n_rule - n_loss
        values = [coefs[..., i] for i in range(first, coefs.shape[-1])]
        smoothing = (value[..., None, None] for value in values[n_rule:])
        own: Step = make_step(
            rules.network,
            with_numbers(rules.loss, smoothing) if n_loss else rules.loss,
            with_numbers(rules.optimizer, iter(values)),
            backend.kernels,
            with_penalty=True,
            max_grad_norm=rules.max_grad_norm,
            schedules_dropout=rules.dropout_schedule is not None,
            xp=backend.xp,
        )
        return own(state, batch, scaling, coefs[..., :first], keys)

    return step


class ModelStack:
    """The models of one program: a state with a leading axis, and the trainer of each place.

    A place whose model has ended is None: it computes with weights of 0 until the stack shrinks, or
    another model takes it.

    Parameters
    ----------
    is_stopped : callable
        Whether the training is to end after its step, without results.
    """

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        self._trainers: list[StackedTrainer | None] = []
        self._places: dict[int, int] = {}
        self._state: Any = None
        self._scaling: Any = None
        self._width = 0
        self._run: Callable[..., Any] | None = None

    def has(self, trainer: Trainer) -> bool:
        """Whether a trainer's model has a place."""
        return id(trainer) in self._places

    def train(
        self, requests: list[Request], size: int, n_epochs: int
    ) -> list[list[Trained] | StackError]:
        """Train epochs of each model, and return them, or an error; ``size`` places at least."""
        backend = requests[0].trainer.backend
        self._width = max(self._width, *(request.batch_size for request in requests))
        trained: list[list[Trained]] = [[] for _ in requests]
        with backend.scope():
            self._arrange(requests, size, backend)
            for epoch in range(n_epochs):
                if epoch and self._is_stopped():
                    break
                for own, record in zip(trained, self._run_epoch(requests), strict=True):
                    own.append(Trained(record))
        for request in requests:
            if request.validation is not None:
                self._return_state(request.trainer)
        return [
            own
            if all(math.isfinite(record.loss) for record, _ in own)
            else StackError("The loss is not finite.")
            for own in trained
        ]

    def _run_epoch(self, requests: list[Request]) -> Iterator[Record]:
        start = time.perf_counter()
        backend, data = requests[0].trainer.backend, requests[0].data
        assert isinstance(data, SharedResident)
        plans = [request.plan(pad=True) for request in requests]
        steps, rates = self._steps(requests, plans)
        self._state = self._state._replace(loss=backend.zeros_like(self._state.loss))
        self._run_steps(requests, steps, data.x, data.column.on_device, len(plans[0].counts))
        losses = backend.get(self._state.loss)
        seconds = time.perf_counter() - start
        for request, plan, own_rates in zip(requests, plans, rates, strict=True):
            loss = float(losses[self._places[id(request.trainer)]])
            yield request.trainer.record(plan, own_rates, [loss], seconds)

    def _return_state(self, trainer: Trainer) -> None:
        """Copy the state of a model to its trainer."""
        trainer.state = self._copy_of(trainer.backend, self._places[id(trainer)])

    def _leave(self, trainer: Trainer) -> None:
        """Return the state of a model that ends, unless it is not needed."""
        if self.has(trainer) and not self._is_stopped():
            self._return_state(trainer)

    def _copy_of(self, backend: Backend, place: int) -> TrainState:
        """Return a copy of the state of one model in the host's memory, by one transfer."""
        if backend.shares_host_memory:  # There is none, and nothing to compile.
            return map_leaves(lambda leaf: np.array(np.from_dlpack(leaf)[place]), self._state)
        with backend.scope():
            where = backend.put(np.asarray([place], dtype=np.int32))
            numbers = backend.get(_flat(backend)(self._state, where))
        shapes = [leaf.shape[1:] for leaf in leaves(self._state)]
        parts = np.split(numbers, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        copies = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        copy: TrainState = rebuild(self._state, copies)
        return copy

    # --- which models ----------------------------------------------------------------------------

    def _arrange(self, requests: list[Request], size: int, backend: Backend) -> None:
        """Assign each model a place: those that have ended leave, new ones take their places."""
        trainers: list[Any] = [request.trainer for request in requests]
        present = set(map(id, trainers))
        kept = [i for i, trainer in enumerate(self._trainers) if id(trainer) in present]
        new = [trainer for trainer in trainers if not self.has(trainer)]
        capacity, n_live = len(self._trainers), len(trainers)
        # A new size costs a compilation where shapes are fixed.
        size = size if backend.fixed_shapes else n_live
        is_wide = 2 * size <= capacity if backend.fixed_shapes else n_live < capacity
        if not new and not is_wide:
            self._assign([own if id(own) in present else None for own in self._trainers])
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
        """Store which trainer has which place."""
        self._trainers = trainers
        self._places = {id(own): i for i, own in enumerate(trainers) if own is not None}

    # --- the steps -------------------------------------------------------------------------------

    def _steps(
        self, requests: list[Request], plans: list[EpochPlan]
    ) -> tuple[Steps, list[list[float]]]:
        """Return what differs from step to step, for each place; and each model's rates."""
        first, n_steps = requests[0].trainer, len(plans[0].counts)
        backend, n_keys = first.backend, first.rules.network.n_keys
        shape = n_steps, len(self._trainers), self._width
        rows, weights = np.zeros(shape, np.int32), np.zeros(shape)
        keys = np.zeros((*shape[:2], n_keys), np.int32) if n_keys else None
        table: np.ndarray | None = None
        rates = []
        for request, plan in zip(requests, plans, strict=True):
            trainer, data = request.trainer, request.data
            assert isinstance(data, SharedResident)
            place, own = self._places[id(trainer)], (n_steps, plan.batch_size)
            rows[:, place, : plan.batch_size] = data.rows_of(plan).reshape(own)
            given = plan.weights
            weights[:, place, : own[1]] = 1.0 if given is None else given.reshape(own)
            numbers, own_rates = _numbers(request, plan)
            if table is None:
                table = np.zeros((*shape[:2], numbers.shape[1]))
            table[:, place] = numbers
            rates.append(own_rates)
            drawn = draw_keys(n_steps, n_keys, seed=trainer.seed, epoch=trainer.n_epochs)
            if keys is not None and drawn is not None:
                keys[:, place] = drawn
        is_weighted = backend.fixed_shapes or not np.all(weights == 1.0)
        return (
            Steps(
                Selection(
                    backend.put(rows),
                    backend.put(weights, first.dtype) if is_weighted else None,
                ),
                backend.put(table, first.dtype),
                None if keys is None else _put_keys(keys, self._trainers, backend),
            ),
            rates,
        )

    def _run_steps(
        self, requests: list[Request], steps: Steps, x: Array, y: Array, n_steps: int
    ) -> None:
        trainer = requests[0].trainer
        backend = trainer.backend
        if self._run is None:
            step = _step(program_of(trainer.rules), backend)
            self._run = backend.loop_of_models(make_indexed_step(step))
        numbers = sum(math.prod(leaf.shape) for leaf in leaves(self._state.params))
        at_once = max(1, backend.work_at_once // (self._width * numbers))
        places = [self._places[id(request.trainer)] for request in requests]
        for start in range(0, n_steps, at_once):
            if self._is_stopped():
                return
            stops = np.full(len(self._trainers), start, np.int32)
            stops[places] = min(start + at_once, n_steps)
            self._state = self._run(start, stops, self._state, steps, x, y, self._scaling)


@lru_cache(maxsize=64)
def _flat(backend: Backend) -> Callable[..., Any]:
    """Return the function that copies all numbers of one model out of a stack."""
    xp = backend.xp

    def flat(state: TrainState, where: Array) -> Array:
        taken = (xp.take(leaf, where, axis=0) for leaf in leaves(state))
        return xp.concat([xp.reshape(leaf, (-1,)) for leaf in taken])

    return backend.compile(flat)


def _numbers(request: Request, plan: EpochPlan) -> tuple[np.ndarray, list[float]]:
    """Return the packed numbers of a model's steps, and its learning rates."""
    [rates], [coefs] = step_table(request.trainer, [plan], request.schedule_position)
    settings = numbers(_settings(request.trainer.rules))
    return np.concatenate([coefs, np.tile(settings, (len(coefs), 1))], axis=1), rates


def _put_keys(keys: np.ndarray, trainers: list[Any], backend: Backend) -> Array | DropoutKeys:
    """Return keys of dropouts, (steps, models, dropouts), on the device, with the models' rates."""
    trainer = next(trainer for trainer in trainers if trainer is not None)
    if len(trainer.rules.network.dropout_rates) != keys.shape[-1]:
        return backend.put(keys)
    rates = [(own or trainer).rules.network.dropout_rates for own in trainers]
    least = np.asarray([[threshold(rate) for rate in own] for own in rates], np.int32)
    factor = 1.0 / (1.0 - np.asarray(rates))
    return DropoutKeys(
        backend.put(keys),
        backend.put(np.ascontiguousarray(np.broadcast_to(least, keys.shape))),
        backend.put(np.ascontiguousarray(np.broadcast_to(factor, keys.shape)), trainer.dtype),
    )
