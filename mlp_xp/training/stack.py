"""Models that train together: each of their epochs is one program with an axis for the models.

Every model has its own fit, in a thread of its own, with its history, schedule and stopping. Where
a fit asks for an epoch it waits until all others do, and the one that comes last trains them all.
Models share a program if they have the same layers, loss, rule, data, and steps of an epoch.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

from mlp_xp.training.members import EpochsRequest
from mlp_xp.training.model_stack import ModelStack, program_rules
from mlp_xp.training.records import Record

__all__ = ["Stacks"]

# The longest that stacks train before fits go on and report their progress.
_MOST_SECONDS = 1.0


class Stacks:
    """The stacks of fits that wait for each other at each epoch.

    Parameters
    ----------
    n_fits : int
        Fits at once; each calls `leave` at its end, unless another follows it.
    is_stopped : callable
        Whether all fits are to end.
    n_threads : int of at least 1, default=1
        Threads that train at the same time; the models of a program are shared out among them.
    """

    def __init__(self, n_fits: int, is_stopped: Callable[[], bool], n_threads: int = 1) -> None:
        self._n_fits = n_fits
        self._is_stopped = is_stopped
        self._n_threads = n_threads
        self._waiting: list[EpochsRequest] = []
        self._seconds = math.inf  # That the last epoch of all has taken.
        self._stacks: dict[Hashable, list[ModelStack]] = {}
        self._condition = threading.Condition()
        self._alone = threading.Lock()

    def train(self, request: EpochsRequest) -> list[Record]:
        """Train epochs together with those of the other fits, as many as all of them ask for."""
        with self._condition:
            self._waiting.append(request)
            self._run_if_all_wait()
            while not request.is_done:
                self._condition.wait()
        if request.error is not None:
            raise request.error
        return request.records

    def turn(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of a fit, for one thread at a time until it waits in `train`.

        Many threads at once would compile the same functions each, and wait for the interpreter.
        """
        return self._condition

    def leave(self) -> None:
        """Wait for one fit less from now on."""
        with self._condition:
            self._n_fits -= 1
            self._run_if_all_wait()

    def join(self) -> None:
        """Wait for one fit more from now on."""
        with self._condition:
            self._n_fits += 1

    def alone(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of a fit by itself, for one thread at a time."""
        return self._alone

    def _run_if_all_wait(self) -> None:
        if not self._waiting or len(self._waiting) < self._n_fits:
            return
        requests, self._waiting = self._waiting, []
        groups: dict[Hashable, list[EpochsRequest]] = {}
        for request in requests:
            groups.setdefault(_key(request), []).append(request)
        if groups.keys() - self._stacks.keys():
            self._seconds = math.inf  # How long an epoch of a new program takes is not known.
        self._stacks = {key: self._stacks.get(key) or self._new_stacks() for key in groups}
        parts = [p for key, group in groups.items() for p in _parts(self._stacks[key], group)]
        n_epochs = min(request.n_epochs for request in requests)
        n_epochs = max(1, min(n_epochs, int(_MOST_SECONDS / self._seconds)))
        start = time.perf_counter()
        if self._n_threads == 1 or len(parts) == 1:
            for part in parts:
                self._run(n_epochs, *part)
        else:
            with ThreadPoolExecutor(self._n_threads, "mlp_xp-stack") as pool:
                list(pool.map(lambda part: self._run(n_epochs, *part), parts))
        self._seconds = (time.perf_counter() - start) / n_epochs
        for request in requests:
            request.is_done = True
        self._condition.notify_all()

    def _new_stacks(self) -> list[ModelStack]:
        return [ModelStack() for _ in range(self._n_threads)]

    def _run(
        self, n_epochs: int, stack: ModelStack, requests: list[EpochsRequest], size: int
    ) -> None:
        try:
            stack.run(requests, size, n_epochs, self._is_stopped)
        except Exception as error:
            for request in requests:
                request.error = error


def _parts(
    stacks: list[ModelStack], requests: list[EpochsRequest]
) -> list[tuple[ModelStack, list[EpochsRequest], int]]:
    """Return each stack with its requests, and the most that one has: one size compiles once.

    Models stay where they are, and new ones go where there are fewest.
    """
    shares = [[r for r in requests if stack.has(r.trainer)] for stack in stacks]
    known = {id(request) for share in shares for request in share}
    for request in requests:
        if id(request) not in known:
            min(shares, key=len).append(request)
    size = max(map(len, shares))
    return [(stack, share, size) for stack, share in zip(stacks, shares, strict=True) if share]


def _key(request: EpochsRequest) -> Hashable:
    """Return what the models of a stack have in common."""
    trainer, data, n_steps = request.trainer, request.data, request.n_steps
    return (
        trainer.backend,
        program_rules(trainer.rules),
        trainer.dtype,
        type(trainer.scaling),
        id(data.x),
        id(data.column),
        n_steps,
        request.batch_size if n_steps > 1 else None,
    )
