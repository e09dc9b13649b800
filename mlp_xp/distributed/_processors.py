"""Divide a machine's processors among its ranks."""

from __future__ import annotations

import os
import platform

from threadpoolctl import threadpool_limits

from mlp_xp._utils.threads import THREADS_VARIABLES, usable_threads
from mlp_xp.distributed.communicator import Communicator

# The number of threads set by `limit_threads`, to distinguish it from a setting by the user.
_ours: dict[str, str] = {}


def divide_processors(communicator: Communicator) -> None:
    """Limit this rank's threads to its part of the machine's processors; all ranks must call this.

    A rank that its launcher has bound to certain processors uses all of them. Nothing changes if
    the environment sets the number of threads.
    """
    own = platform.node(), _processors()
    limit_threads(max(1, usable_threads() // communicator.gather(own).count(own)))


def limit_threads(n_threads: int) -> None:
    """Set this process's number of threads, unless the environment sets it."""
    given = [os.environ.get(name, "") for name in THREADS_VARIABLES]
    if any(text.isdigit() and text != _ours.get("n_threads") for text in given):
        return
    _ours["n_threads"] = str(n_threads)
    # Libraries loaded later read these variables; XLA reads NPROC.
    os.environ |= dict.fromkeys((*THREADS_VARIABLES, "NPROC"), str(n_threads))
    threadpool_limits(n_threads)


def _processors() -> set[int]:
    """Return the ids of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
