"""A fit on the workers of a cluster, seen from the process that calls `fit`."""

from __future__ import annotations

import contextlib
import time
import uuid
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.names import list_names
from mlp_xp._utils.optional import optional
from mlp_xp.distributed import Distributed, LostRankError, RankError
from mlp_xp.estimators.checks.validation import SampleArguments
from mlp_xp.estimators.on_dask.partitions import Whole, empty, split
from mlp_xp.estimators.on_dask.worker import Outcome, Task, _dumps, end, listen, run_rank
from mlp_xp.training.checkpoints.checkpoints import checkpoints

_POLL = 0.5  # Seconds between looks at the list of workers.
_LAST = 10.0  # Seconds to wait for the errors of other workers after the first.


class Rank(NamedTuple):
    """A rank: its worker, and the futures of its partitions."""

    worker: str
    parts: list[Any]
    held_out: list[Any]


def fit_on_workers(
    client: Any, model: Any, training: SampleArguments, held_out: SampleArguments, resume: Any
) -> Any:
    """Return a copy of a model that was fitted on the workers that have the partitions.

    Raise `RankError` if a worker is lost, and the error of a worker if one fails.
    """
    lazy, lazy_held_out = split(training), split(held_out, "_val")
    parts = _load(client, lazy)
    held_out_parts = _load(client, lazy_held_out)
    ranks = _assign(client, parts, held_out_parts)
    _warn_of_idle(client, ranks, len(parts))
    workers = [rank.worker for rank in ranks]
    fit = uuid.uuid4().hex
    with optional("distributed", "dask").MultiLock(workers, client=client), _ended(client, fit):
        found = client.run(listen, fit, workers=workers)
        settings = {"distributed": Distributed("tcp", data="sharded")}
        vars(model).update(settings)
        places = tuple(found[worker] for worker in workers)
        task = Task(fit, _dumps(model), places, resume)
        futures = {
            client.submit(
                run_rank,
                task,
                number,
                rank.parts,
                rank.held_out if held_out_parts else None,
                key=f"mlp_xp-fit-{fit}-{number}",
                workers=[rank.worker],
                allow_other_workers=False,
                priority=10,
                pure=False,
            ): rank.worker
            for number, rank in enumerate(ranks)
        }
        outcomes = _wait(client, fit, futures)
    return _result(outcomes, workers, model, resume)


def _load(client: Any, lazy: list[Any] | Whole | None) -> list[Any]:
    """Return futures of partitions that are in the memory of workers."""
    if lazy is None:
        return []
    if isinstance(lazy, Whole):
        return client.scatter([lazy.part], hash=False)
    distributed = optional("distributed", "dask")
    distributed.wait(distributed.futures_of(lazy))  # `persist` may still be running.
    keys = [_keys(part) for part in lazy]
    where = client.sync(client.scheduler.who_has, keys=list(set().union(*keys)))
    futures: list[Any] = []
    for part, needed in zip(lazy, keys, strict=True):
        # Data that are in memory stay there; the scheduler would move some to idle workers.
        holders = Counter(worker for key in needed for worker in where.get(key, ()))
        place = {"workers": [holders.most_common(1)[0][0]]} if holders else {}
        futures.append(client.compute(part, **place))
    distributed.wait(futures)
    for future in futures:
        if future.status == "error":
            future.result()  # It raises the error.
    return futures


def _keys(part: Any) -> set[Any]:
    """Return the keys of all tasks that a delayed partition needs."""
    found: set[Any] = set()
    keys = [part.key]
    while keys:
        if (key := keys.pop()) not in found:
            found.add(key)
            # The data of futures, from which a collection may be made, are no tasks of its graph.
            keys += getattr(part.dask.get(key), "dependencies", ())
    return found


def _assign(client: Any, parts: list[Any], held_out: list[Any]) -> list[Rank]:
    """Return a rank for each worker that has a partition, in the order of the partitions."""
    if not parts:
        raise ValueError("X has no partition: pass a collection with rows.")
    where = client.who_has([*parts, *held_out])
    by_worker: dict[str, Rank] = defaultdict(lambda: Rank("", [], []))
    for future in parts:
        by_worker[_holder(where, future)].parts.append(future)
    for future in held_out:
        by_worker[_holder(where, future)].held_out.append(future)

    def or_nothing(those: list[Any], all_parts: list[Any]) -> list[Any]:
        if those or not all_parts:
            return those
        return [client.submit(empty, all_parts[0], workers=[_holder(where, all_parts[0])])]

    return [
        Rank(worker, or_nothing(rank.parts, parts), or_nothing(rank.held_out, held_out))
        for worker, rank in by_worker.items()
    ]


def _holder(where: dict[str, Any], future: Any) -> str:
    """Return the worker that has a partition."""
    holders: list[str] = sorted(where.get(future.key, ()))
    if not holders:
        raise RankError(
            "a worker was lost while the partitions were loaded: call fit again; if a worker ran "
            "out of memory, use more workers or smaller partitions."
        )
    return holders[0]


def _warn_of_idle(client: Any, ranks: list[Rank], n_parts: int) -> None:
    """Warn if workers have nothing to do, since there are too few partitions."""
    n_workers = len(_workers(client))
    if len(ranks) < n_workers and n_parts < n_workers:
        warnings.warn(
            f"Only {len(ranks)} of {n_workers} workers train, since X has {n_parts} partition(s): "
            f"call X = X.repartition(npartitions={n_workers}) before fit.",
            stacklevel=4,
        )


@contextlib.contextmanager
def _ended(client: Any, fit: str) -> Iterator[None]:
    """End the fit on all workers if an error, such as Ctrl-C, leaves it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            client.run(end, fit, on_error="ignore")
        raise


def _workers(client: Any) -> set[str]:
    """Return the addresses of the workers that are there."""
    return set(client.scheduler_info(n_workers=-1)["workers"])


def _wait(client: Any, fit: str, futures: dict[Any, str]) -> dict[str, Outcome | None]:
    """Return the outcome of each rank; None for a worker that is lost."""
    outcomes: dict[str, Outcome | None] = {}
    pending, deadline = set(futures), float("inf")
    wait = optional("distributed", "dask").wait
    while pending and time.monotonic() < deadline:
        # A task is canceled if data that it needs were on a lost worker.
        with contextlib.suppress(TimeoutError, CancelledError):
            wait(pending, timeout=_POLL, return_when="FIRST_COMPLETED")
        there = _workers(client)
        for future in list(pending):
            worker = futures[future]
            if future.status == "finished":
                outcomes[worker] = future.result()
            elif future.status != "pending" or worker not in there:
                outcomes[worker] = None
            else:
                continue
            pending.discard(future)
        has_failed = any(found is None or found.error for found in outcomes.values())
        if has_failed and deadline == float("inf"):
            deadline = time.monotonic() + _LAST
            client.run(end, fit, on_error="ignore")
    client.cancel(list(pending))
    return outcomes


def _result(
    outcomes: dict[str, Outcome | None], workers: list[str], model: Any, resume: Any
) -> Any:
    """Return the fitted model, or raise the error that ended the fit."""
    lost = [worker for worker in workers if outcomes.get(worker) is None]
    failed = {w: found for w, found in outcomes.items() if found is not None and found.error}
    # The error of a rank that was told about another's comes last.
    order = sorted(failed, key=lambda worker: isinstance(failed[worker].error, RankError))
    own = [worker for worker in order if not isinstance(failed[worker].error, LostRankError)]
    if own:
        error, trace = failed[own[0]].error, failed[own[0]].trace
        assert error is not None
        error.add_note(f"This is the error of the worker {own[0]}:\n{trace}")
        raise error
    if lost or failed:
        names = list_names(lost or list(failed))
        raise RankError(f"lost the worker {names} during the fit, so it ended. {_advice(model)}")
    first = outcomes[workers[0]]
    assert first is not None
    for text, category in first.warnings:
        warnings.warn(text, category, stacklevel=4)
    return first.model


def _advice(model: Any) -> str:
    """Return what to type to resume a fit that has lost a worker."""
    folder = next((c.folder for c in model.callbacks or () if hasattr(c, "folder")), None)
    if folder is None:
        return (
            "Nothing of it is left: with callbacks=[Checkpoint(folder)], where folder is on a disk "
            "of all workers, it could resume."
        )
    found = list(checkpoints(Path(folder)).values())
    last = f"Its last checkpoint is {found[-1]}. " if found else ""
    return f"{last}To resume with the workers that are left, call fit(..., resume={str(folder)!r})."
