"""A fit's rank on a worker: a task that is connected with the tasks on the other workers."""

from __future__ import annotations

import os
import pickle
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp._utils.threads import Worker, working
from mlp_xp.distributed import LostRankError, RankError, using
from mlp_xp.distributed._tcp import Listener, TcpCommunicator, closing
from mlp_xp.estimators.on_dask.partitions import Part, join

_START = 300.0  # Seconds until all workers must have begun with the fit.

# From a fit and a worker's address: a process has several workers in tests.
_listeners: dict[tuple[str, str], Listener] = {}
_running: dict[tuple[str, str], TcpCommunicator] = {}


class Place(NamedTuple):
    """Where a rank is: the address of its listener, and its process."""

    address: str
    process: int


class Task(NamedTuple):
    """A fit for all ranks: its name, the pickled model, and the place of each rank."""

    fit: str
    model: bytes
    places: tuple[Place, ...]
    resume: Any


class Outcome(NamedTuple):
    """What a rank returns: the pickled model of rank 0 and its warnings, or an error."""

    model: bytes | None = None
    warnings: tuple[tuple[str, type[Warning]], ...] = ()
    error: BaseException | None = None
    trace: str = ""


def listen(fit: str, dask_worker: Any = None) -> Place:
    """Begin to listen for the other ranks of a fit."""
    host = optional("distributed.comm", "dask").get_address_host(dask_worker.address)
    # Workers in one process have no address in the network.
    listener = Listener("127.0.0.1" if dask_worker.address.startswith("inproc") else host)
    _listeners[fit, dask_worker.address] = listener
    return Place(listener.address, os.getpid())


def end(fit: str, dask_worker: Any = None) -> None:
    """End a fit on this worker, if it still runs."""
    listener = _listeners.pop((fit, dask_worker.address), None)
    communicator = _running.pop((fit, dask_worker.address), None)
    if listener is not None:
        listener.close()
    if communicator is not None:
        communicator.abort()


def run_rank(
    task: Task, rank: int, parts: Sequence[Part], held_out: Sequence[Part] | None
) -> Outcome:
    """Fit the model with all ranks; return the error, if one occurs."""
    worker = optional("distributed", "dask").get_worker()
    here = task.fit, worker.address
    caught: list[warnings.WarningMessage] = []
    try:
        listener = _listeners.pop(here, None)
        if listener is None or task.places[rank].process != os.getpid():
            raise LostRankError(f"the worker {worker.address} was started again during the fit")
        model = pickle.loads(task.model)  # noqa: S301  (As all tasks of dask.)
        addresses = [place.address for place in task.places]
        with closing(listener.connect(rank, addresses, _START)) as communicator:
            _running[here] = communicator
            caught = _fit(model, task, communicator, parts, held_out, worker.state.nthreads)
        if rank:
            return Outcome()
        model.callbacks = model.distributed = None
        return Outcome(_dumps(model), tuple((str(w.message), w.category) for w in caught))
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        return Outcome(error=_sendable(error), trace=trace)
    finally:
        _running.pop(here, None)


def _fit(
    model: Any,
    task: Task,
    communicator: TcpCommunicator,
    parts: Sequence[Part],
    held_out: Sequence[Part] | None,
    n_threads: int,
) -> list[warnings.WarningMessage]:
    """Fit a model on a rank; return its warnings."""
    X, y, weights = join(parts)
    others = (None, None, None) if held_out is None else join(held_out)
    names = "X_val", "y_val", "sample_weight_val"
    numbers = _row_numbers(communicator, parts)
    # A fit on a single worker has no connection whose end would end it.
    threads = working(Worker(n_threads, 1, lambda: communicator.is_closed))
    with warnings.catch_warnings(record=True) as caught, using(communicator, numbers), threads:
        warnings.simplefilter("always")
        model.fit(X, y, weights, **dict(zip(names, others, strict=True)), resume=task.resume)
    return caught


def _row_numbers(communicator: TcpCommunicator, parts: Sequence[Part]) -> np.ndarray:
    """Return the positions of a rank's rows in the whole, which is in the order of partitions."""
    counts: dict[int, int] = {}
    for of_rank in communicator.gather({part.number: part.X.shape[0] for part in parts}):
        counts |= of_rank
    ordered = sorted(counts)
    starts = dict(zip(ordered, np.cumsum([0, *(counts[i] for i in ordered)]), strict=False))
    return np.concatenate([starts[p.number] + np.arange(counts[p.number]) for p in parts])


def _sendable(error: BaseException) -> BaseException:
    """Return the error, or one with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RankError(f"{type(error).__name__}: {error}")
    return error


def _dumps(value: Any) -> bytes:
    content: bytes = optional("cloudpickle", "dask").dumps(value)
    return content
