"""The models of one program: a state with an axis for them, their steps, what they predict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.per_model import names_of, with_any, with_values
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends import Backend
from mlp_xp.nn.blocks import DropoutKeys
from mlp_xp.nn.layers import threshold
from mlp_xp.nn.losses import Loss
from mlp_xp.optimizers import varied
from mlp_xp.optimizers.schedules import Constant
from mlp_xp.training.epochs import EpochPlan
from mlp_xp.training.inputs import Batch
from mlp_xp.training.members import DivergedError, EpochsRequest, StackGuard
from mlp_xp.training.records import Record
from mlp_xp.training.rules import Rules
from mlp_xp.training.scalars import Stage, draw_keys, learning_rates, scalar_table
from mlp_xp.training.step import Step, Steps, TrainState, make_nth, make_step

__all__ = ["ModelStack", "program_rules"]


@lru_cache(maxsize=1024)
def program_rules(rules: Rules) -> Rules:
    """Return the settings that are part of a program; the others are numbers of each step."""
    ema_decay = None if rules.ema_decay is None else 0.5
    return replace(
        rules,
        network=rules.network.with_any_rates(),
        loss=with_any(rules.loss, names_of(rules.loss)),
        optimizer=varied(rules.optimizer, is_program=True),
        schedule=Constant(),
        learning_rate=1.0,
        alpha=1.0,
        ema_decay=ema_decay,
    )


@lru_cache(maxsize=64)
def _step(rules: Rules, backend: Backend) -> Callable[..., Any]:
    """Return the function of a step for `program_rules`; settings of the loss are packed last."""

    def step(state: TrainState, batch: Batch, scaling: Any, coefs: Any, keys: Any) -> TrainState:
        loss, n_settings = _own_loss(rules.loss, coefs)
        own: Step = make_step(
            rules.network,
            loss,
            rules.optimizer,
            backend.kernels,
            with_penalty=True,
            max_grad_norm=rules.max_grad_norm,
            xp=backend.xp,
        )
        return own(state, batch, scaling, coefs[..., : coefs.shape[-1] - n_settings], keys)

    return step


def _own_loss(loss: Loss, coefs: Any) -> tuple[Loss, int]:
    """Return a loss with the settings of each model, and how many of them are packed last."""
    names = names_of(loss)
    first = coefs.shape[-1] - len(names)
    values = (coefs[..., first + i][..., None, None] for i in range(len(names)))
    return with_values(loss, names, values), len(names)


class ModelStack:
    """The models of one program: a state with a leading axis, and the trainer of each place.

    A place whose model has ended is None: it computes with weights of 0 until the stack shrinks, or
    another model takes it.
    """

    def __init__(self) -> None:
        self._trainers: list[Any] = []
        self._places: dict[int, int] = {}
        self._state: Any = None
        self._scaling: Any = None
        self._width = 0
        self._run: Callable[..., Any] | None = None

    def has(self, trainer: Any) -> bool:
        """Whether a trainer's model has a place."""
        return id(trainer) in self._places

    def run(
        self,
        requests: list[EpochsRequest],
        size: int,
        n_epochs: int,
        is_stopped: Callable[[], bool],
    ) -> None:
        """Train epochs of each model, and write their records; ``size`` places at least."""
        backend = requests[0].trainer.backend
        self._width = max(self._width, *(request.batch_size for request in requests))
        with backend.scope():
            self._arrange([request.trainer for request in requests], size, backend)
            places = [self._places[id(request.trainer)] for request in requests]
            for epoch in range(n_epochs):
                if epoch and is_stopped():
                    break
                self._run_epoch(requests, places, is_stopped)

    def _run_epoch(
        self, requests: list[EpochsRequest], places: list[int], is_stopped: Callable[[], bool]
    ) -> None:
        start = time.perf_counter()
        first, data = requests[0].trainer, requests[0].data
        backend = first.backend
        plans = [request.plan() for request in requests]
        steps, rates = self._steps(requests, plans, places)
        x, y = data.x, data.column.on_device
        self._state = self._state._replace(loss=backend.zeros_like(self._state.loss))
        self._run_steps(first, steps, x, y, requests[0].n_steps, places, is_stopped)
        losses = backend.get(self._state.loss)
        seconds = time.perf_counter() - start
        for request, plan, place, rate in zip(requests, plans, places, rates, strict=True):
            loss = float(losses[place])
            if not math.isfinite(loss):
                request.error = DivergedError("The loss is not finite.")
            trainer, n_samples = request.trainer, sum(plan.counts)
            trainer.n_epochs += 1
            trainer.n_steps += len(plan.counts)
            trainer.n_samples += n_samples
            trainer.find_state = partial(self._state_of, backend, place)
            trainer.find_copy = cache(partial(self._copy_of, backend, place))
            record = Record(trainer.n_epochs, loss, None, rate, n_samples, seconds)
            request.records.append(record)

    def _state_of(self, backend: Backend, place: int) -> TrainState:
        """Return a copy of the state of one model."""
        with backend.scope():
            where = backend.put(np.asarray([place], dtype=np.int32))
            copy: TrainState = _taken(backend)(self._state, where)
        return copy

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

    def _arrange(self, trainers: list[Any], size: int, backend: Backend) -> None:
        """Assign each model a place: those that have ended leave, new ones take their places."""
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
        members = [self._trainers[i] for i in kept] + new
        n_empty = capacity - n_live
        xp = backend.xp
        parts = []
        if kept:
            where = backend.put(np.asarray(kept, dtype=np.int32))
            parts.append([xp.take(leaf, where, axis=0) for leaf in leaves(self._state)])
        states = [trainer.copy() for trainer in new]
        if n_empty:
            states += [states[0] if new else members[0].copy()] * n_empty
        if states:
            values = map(np.stack, zip(*map(leaves, states), strict=True))
            parts.append(list(map(backend.put_copy, values)))
        whole = parts[0]
        if len(parts) > 1:
            whole = [xp.concat(pair, axis=0) for pair in zip(*parts, strict=True)]
        self._state = rebuild(self._state if kept else states[0], whole)
        self._assign(members + [None] * n_empty)
        self._scaling = None
        if members[0].scaling is not None:
            given = [(trainer or members[0]).scaling for trainer in self._trainers]
            stacked = [xp.stack(values) for values in zip(*map(leaves, given), strict=True)]
            self._scaling = rebuild(given[0], stacked)
        for trainer in new:
            trainer.guard, trainer.find_copy = StackGuard(), None

    def _assign(self, trainers: list[Any]) -> None:
        """Store which trainer has which place."""
        self._trainers = trainers
        self._places = {id(own): i for i, own in enumerate(trainers) if own is not None}

    # --- the steps -------------------------------------------------------------------------------

    def _steps(
        self, requests: list[EpochsRequest], plans: list[EpochPlan], places: list[int]
    ) -> tuple[Steps, list[float]]:
        """Return what differs from step to step, for each place; and each model's last rate."""
        first, n_steps = requests[0].trainer, requests[0].n_steps
        backend, n_keys = first.backend, first.rules.network.n_keys
        shape = n_steps, len(self._trainers), self._width
        rows, weights = np.zeros(shape, np.int32), np.zeros(shape)
        keys = np.zeros((*shape[:2], n_keys), np.int32) if n_keys else None
        table: np.ndarray | None = None
        rates = []
        for request, plan, place in zip(requests, plans, places, strict=True):
            trainer, n_records = request.trainer, len(request.records)
            own_rows, own_weights = request.data.positions(plan)
            _fill(rows[:, place, : plan.batch_size], own_rows)
            _fill(weights[:, place, : plan.batch_size], own_weights)
            stage = request.stage._replace(done=request.stage.done + n_records)
            numbers, rate = _scalars(trainer, plan, stage)
            if table is None:
                table = np.zeros((*shape[:2], numbers.shape[1]))
            table[:, place] = numbers
            rates.append(rate)
            drawn = draw_keys(n_steps, n_keys, seed=trainer.seed, epoch=trainer.n_epochs)
            if keys is not None and drawn is not None:
                keys[:, place] = drawn
        is_weighted = backend.fixed_shapes or not np.all(weights == 1.0)
        return (
            Steps(
                backend.put(rows),
                backend.put(weights, first.dtype) if is_weighted else None,
                None,
                backend.put(table, first.dtype),
                None if keys is None else _put_keys(keys, self._trainers, backend),
            ),
            rates,
        )

    def _run_steps(
        self,
        trainer: Any,
        steps: Steps,
        x: Array,
        y: Array,
        n_steps: int,
        places: list[int],
        is_stopped: Callable[[], bool],
    ) -> None:
        backend = trainer.backend
        if self._run is None:
            step = _step(program_rules(trainer.rules), backend)
            self._run = backend.loop_of_models(make_nth(step))
        numbers = sum(math.prod(leaf.shape) for leaf in leaves(self._state.params))
        at_once = max(1, backend.work_at_once // (self._width * numbers))
        for start in range(0, n_steps, at_once):
            if is_stopped():
                return
            stops = np.full(len(self._trainers), start, np.int32)
            stops[places] = min(start + at_once, n_steps)
            self._state = self._run(start, stops, self._state, steps, x, y, self._scaling)


@lru_cache(maxsize=64)
def _taken(backend: Backend) -> Callable[..., Any]:
    """Return the function that copies one model out of a stack: one call where calls are dear."""
    take = backend.xp.take
    return backend.compile(
        lambda state, where: map_leaves(lambda leaf: take(leaf, where, axis=0)[0, ...], state)
    )


@lru_cache(maxsize=64)
def _flat(backend: Backend) -> Callable[..., Any]:
    """Return the function that copies all numbers of one model out of a stack."""
    xp = backend.xp

    def flat(state: TrainState, where: Array) -> Array:
        taken = (xp.take(leaf, where, axis=0) for leaf in leaves(state))
        return xp.concat([xp.reshape(leaf, (-1,)) for leaf in taken])

    return backend.compile(flat)


def _fill(places: np.ndarray, values: np.ndarray) -> None:
    """Write values to the places of an epoch, step after step; the last step may have fewer."""
    n_steps, size = places.shape
    whole = np.zeros(n_steps * size, values.dtype)
    whole[: len(values)] = values
    places[...] = whole.reshape(n_steps, size)


def _scalars(trainer: Any, plan: EpochPlan, stage: Stage) -> tuple[np.ndarray, float]:
    """Return the packed scalars of a model's steps, and its last learning rate."""
    rules, n_steps = trainer.rules, len(plan.counts)
    steps = range(n_steps)
    rates = learning_rates(rules, steps, n_steps, stage, trainer.n_samples, None)
    own = replace(rules, optimizer=varied(rules.optimizer))
    table = scalar_table(own, [plan], steps, [rates], trainer.n_steps, trainer.rule_start)
    settings = [getattr(rules.loss, name) for name in names_of(rules.loss)]
    return np.concatenate([table, np.tile(settings, (n_steps, 1))], axis=1), rates[-1]


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
