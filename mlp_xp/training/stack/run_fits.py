"""Fits trained together, in compiled steps with a model axis.

Every fit has its own history, schedule and early stopping. Models share a stack if they have the
same layers, loss, rule, data, and steps per epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from mlp_xp._utils.threads import Worker, worker_context
from mlp_xp.training.data.shared import SharedResident
from mlp_xp.training.loop.requests import Fit, Trained, TrainingRequest
from mlp_xp.training.stack.model_stack import ModelStack, stack_settings
from mlp_xp.training.stack.stacked_trainer import StackError

T = TypeVar("T")

# The maximum training time in seconds before fits record epochs and report progress.
_MOST_SECONDS = 1.0


def run_fits(
    fits: Iterable[Fit[T]], *, most: int, worker: Worker, n_stacks: int = 1
) -> Generator[T]:
    """Train the epochs requested by several fits, and yield each fit's result when it ends.

    Closing the generator or Ctrl-C ends the fits in progress after the current step, without
    results. Trainers must be `StackedTrainer` objects. At most ``most`` fits are trained at once,
    each in the context of ``worker``; ``worker.is_stopped`` ends them. Models that could share a
    stack are divided into ``n_stacks``, one per thread.
    """
    stacks, remaining = _Stacks(worker.is_stopped, n_stacks), iter(fits)
    present: list[_InProgress[T]] = []
    try:
        while True:
            ended = [fit for fit in present if not fit.resume()]
            present = [fit for fit in present if fit not in ended]
            while ended or len(present) < most:
                if worker.is_stopped():
                    return
                if ended:
                    yield ended.pop(0).result
                    continue
                steps = next(remaining, None)
                if steps is None:
                    break
                fit = _InProgress(steps, worker)
                (present if fit.resume() else ended).append(fit)
            if not present:
                return
            results = stacks.train([fit.request for fit in present])
            if worker.is_stopped():
                return
            for fit, trained in zip(present, results, strict=True):
                fit.trained = trained
    finally:
        for fit in present:
            fit.close()


class _InProgress(Generic[T]):
    """A fit in its own context: its current request, or its result."""

    request: TrainingRequest
    result: T

    def __init__(self, fit: Fit[T], worker: Worker) -> None:
        self._fit, self._context = fit, worker_context(worker)
        self.trained: list[Trained] | Exception | None = None

    def resume(self) -> bool:
        """Send the fit its records; return whether it requests more epochs."""
        given, self.trained = self.trained, None
        resume: Any = self._fit.throw if isinstance(given, Exception) else self._fit.send
        try:
            self.request = self._context.run(resume, given)
        except StopIteration as end:
            self.result = end.value
            return False
        return True

    def close(self) -> None:
        """Stop the fit without a result."""
        self._context.run(self._fit.close)


class _Stacks:
    """The stacks in which `run_fits` trains models."""

    def __init__(self, is_stopped: Callable[[], bool], n_stacks: int) -> None:
        self._is_stopped, self._n_stacks = is_stopped, n_stacks
        self._seconds = math.inf  # Duration of the last epoch.
        self._stacks: dict[Hashable, list[ModelStack]] = {}

    def train(self, requests: list[TrainingRequest]) -> list[list[Trained] | Exception]:
        """Train the number of epochs that all fits request, for about a second at most."""
        results: dict[int, list[Trained] | Exception] = {}
        groups: dict[Hashable, list[TrainingRequest]] = {}
        for request in requests:
            key = _key(request)
            if key is None:
                results[id(request)] = StackError(
                    "A stack cannot train models with augmentation, loss scaling, training "
                    "accuracy, or streamed data."
                )
            else:
                groups.setdefault(key, []).append(request)
        if groups.keys() - self._stacks.keys():
            self._seconds = math.inf  # The duration of a new stack's epoch is unknown.
        new = [[ModelStack(self._is_stopped) for _ in range(self._n_stacks)] for _ in groups]
        pairs = zip(groups, new, strict=True)
        self._stacks = {key: self._stacks.get(key) or stacks for key, stacks in pairs}
        parts = [p for key, group in groups.items() for p in _parts(self._stacks[key], group)]
        # Train one epoch per call if there is validation, since the held-out samples are evaluated
        # after each epoch.
        n_epochs = min(1 if r.validation is not None else r.n_epochs for r in requests)
        n_epochs = max(1, min(n_epochs, int(_MOST_SECONDS / self._seconds)))

        def train(part: tuple[ModelStack, list[TrainingRequest], int]) -> None:
            stack, group, size = part
            try:
                found: Sequence[list[Trained] | Exception] = stack.train(group, size, n_epochs)
            except Exception as error:
                found = [error] * len(group)
            results.update(zip(map(id, group), found, strict=True))

        start = time.perf_counter()
        if self._n_stacks == 1 or len(parts) == 1:
            for part in parts:
                train(part)
        else:
            with ThreadPoolExecutor(self._n_stacks, "mlp_xp-stack") as pool:
                list(pool.map(train, parts))
        self._seconds = (time.perf_counter() - start) / n_epochs
        return [results[id(request)] for request in requests]


def _parts(
    stacks: list[ModelStack], requests: list[TrainingRequest]
) -> list[tuple[ModelStack, list[TrainingRequest], int]]:
    """Return each stack with its requests, and the size of the largest stack.

    All stacks are compiled for this size. Models remain in their stack, and new models are added to
    the smallest stack.
    """
    parts = [[r for r in requests if stack.has(r.trainer)] for stack in stacks]
    known = {id(request) for part in parts for request in part}
    for request in requests:
        if id(request) not in known:
            min(parts, key=len).append(request)
    size = max(map(len, parts))
    return [(stack, part, size) for stack, part in zip(stacks, parts, strict=True) if part]


def _key(request: TrainingRequest) -> Hashable:
    """Return a key, equal for models that can share a stack; None if a stack cannot train them."""
    trainer, data, size = request.trainer, request.data, request.batch_size
    has_own = trainer.rules.augmentation or trainer.backend.scales_loss or trainer.with_accuracy
    if has_own or not isinstance(data, SharedResident):
        return None
    n_steps = -(-data.n_samples // size)
    return (
        trainer.backend,
        stack_settings(trainer.rules),
        trainer.dtype,
        type(trainer.scaling),
        id(data.x),
        id(data.column),
        n_steps,
        size if n_steps > 1 else None,
    )
