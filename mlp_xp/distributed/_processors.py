"""The processors of a machine, divided among the ranks on it."""

from __future__ import annotations

import os
import platform

from threadpoolctl import threadpool_limits

from mlp_xp._utils.threads import THREADS_VARIABLES, usable_threads
from mlp_xp.distributed.communicator import Communicator

# The number of threads set by `limit_threads`, to distinguish it from the user's setting.
_ours: dict[str, str] = {}


def divide_processors(communicator: Communicator) -> None:
    """Limit this rank's threads to its part of the machine's processors; all ranks must call this.

    A rank that its launcher has bound to certain processors uses all of them. If the environment
    sets a number of threads, nothing changes.
    """
    own = platform.node(), _processors()
    limit_threads(max(1, usable_threads() // communicator.gather(own).count(own)))


def limit_threads(n_threads: int) -> None:
    """Set this process's number of threads, unless the user has set it in the environment."""
    given = [os.environ.get(name, "") for name in THREADS_VARIABLES]
    if any(text.isdigit() and text != _ours.get("n_threads") for text in given):
        return
    _ours["n_threads"] = str(n_threads)
    # Libraries that are loaded later read these variables; XLA reads NPROC.
    os.environ |= dict.fromkeys((*THREADS_VARIABLES, "NPROC"), str(n_threads))
    threadpool_limits(n_threads)


def _processors() -> set[int]:
    """Return the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
