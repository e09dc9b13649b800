"""Training on several processes (*ranks*), possibly on several machines, connected by an engine.

Each engine is one file with a `Communicator`. `training` divides a fit among ranks, `backends` sums
each library's arrays over ranks, and `_ranks` defines the ranks of a fit.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.distributed._settings import Distributed
from mlp_xp.distributed.communicator import Communicator, LostRankError, RankError
from mlp_xp.training.processes import SINGLE_PROCESS, SingleProcess

__all__ = [
    "ENGINES",
    "Communicator",
    "Distributed",
    "LostRankError",
    "RankError",
    "connect_ranks",
    "get_communicator",
    "join_ranks",
    "using",
]

# The module for each engine.
ENGINES = {"mpi": "_mpi", "tcp": "_tcp", "torch": "_torch"}


class _Joined(NamedTuple):
    """The communicator for fits in this thread, and the positions of this rank's samples."""

    communicator: Communicator
    row_numbers: np.ndarray | None = None


_joined: ContextVar[_Joined | None] = ContextVar("joined", default=None)


@contextlib.contextmanager
def using(communicator: Communicator, row_numbers: np.ndarray | None = None) -> Iterator[None]:
    """Make this thread's fits use a communicator, regardless of their engine.

    ``row_numbers`` are the positions of this rank's samples among all samples, if samples are not
    in rank order.
    """
    token = _joined.set(_Joined(communicator, row_numbers))
    try:
        yield
    finally:
        _joined.reset(token)


@contextlib.contextmanager
def connect_ranks(
    rank: int, gather: Callable[[str], list[str]], *, host: str | None = None, timeout: float = 300
) -> Iterator[Communicator]:
    """Connect processes started by another system, such as Spark or Ray, through TCP.

    Fits in this context with ``distributed="tcp"`` run on all of these processes. An error in one
    process ends the fit on all of them, but no process exits.

    Parameters
    ----------
    rank : int
        The number of this process, from 0.
    gather : callable
        ``gather(text)`` returns the texts of all processes, in rank order.
    host : str, optional
        The name or address at which other machines reach this one; by default, the address used to
        reach other networks.
    timeout : float, default=300
        The number of seconds to wait for all processes to connect.

    Raises
    ------
    TimeoutError
        If a process does not connect in time.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.distributed import Distributed, connect_ranks
    >>> with connect_ranks(0, lambda text: [text], host="127.0.0.1"):  # One process.
    ...     model = MLPClassifier(max_iter=2, learning_rate="cosine", distributed="tcp")
    ...     model.fit([[0.0], [1.0]], [0, 1]).n_iter_
    2
    """
    # Few fits need these.
    from mlp_xp.distributed._processors import divide_processors
    from mlp_xp.distributed._tcp import Listener, closing, own_host

    listener = Listener(host or own_host())
    with closing(listener.connect(rank, gather(listener.address), timeout)) as communicator:
        if communicator.size > 1:
            divide_processors(communicator)
        with using(communicator):
            yield communicator


@cache
def get_communicator(engine: str) -> Communicator:
    """Return an engine's communicator; every call returns the same object.

    Unless ``OMP_NUM_THREADS`` is set, the first call divides each machine's processors among its
    ranks by limiting their threads. After this call, an error that ends one rank ends all ranks.
    Raise ImportError, with the install command, if the engine is not installed, and RuntimeError if
    it cannot start.
    """
    if engine not in ENGINES:
        from mlp_xp._utils.names import error_end  # Imported only for error messages.

        names, end = " or ".join(map(repr, ENGINES)), error_end(engine, ENGINES)
        raise ValueError(f"`distributed` must be {names}, got {engine!r}{end}")
    communicator: Communicator = importlib.import_module(
        f"mlp_xp.distributed.{ENGINES[engine]}"
    ).create()
    if communicator.size > 1:
        # Imported only for several ranks.
        from mlp_xp.distributed._processors import divide_processors
        from mlp_xp.distributed._ranks import end_all_on_errors

        divide_processors(communicator)
        end_all_on_errors(communicator)
    return communicator


def join_ranks(setting: Any) -> SingleProcess:
    """Return a fit's processes for a value of the estimators' parameter ``distributed``."""
    if setting is None:
        return SINGLE_PROCESS
    settings = setting if isinstance(setting, Distributed) else Distributed(setting)
    joined = _joined.get() or _Joined(get_communicator(settings.engine))
    communicator = joined.communicator
    if settings.deterministic:
        communicator = in_fixed_order(communicator)
    from mlp_xp.distributed._ranks import Ranks  # Imported only for several processes.

    return Ranks(communicator, settings, joined.row_numbers)


@cache
def in_fixed_order(communicator: Communicator) -> Communicator:
    """Return the communicator for deterministic fits; every call returns the same object.

    Unless ``OMP_NUM_THREADS`` is set, each rank is limited to one thread, since several threads may
    split matrix products differently. Raise ValueError unless the number of ranks divides the
    number of virtual shards.
    """
    # Imported only for deterministic fits.
    from mlp_xp.distributed._fixed_order import N_SHARDS, InFixedOrder
    from mlp_xp.distributed._processors import limit_threads

    if N_SHARDS % communicator.size:
        raise ValueError(
            f"deterministic=True needs 1, 2, 4 or 8 ranks, got {communicator.size}: type "
            "mpiexec -n 4, or set deterministic=False."
        )
    limit_threads(1)
    return InFixedOrder(communicator)
