"""The processors of a machine, divided among the ranks on it."""

from __future__ import annotations

import os
import platform
from fractions import Fraction

from threadpoolctl import threadpool_limits

from mlp_xp._utils.processors import THREADS_VARIABLES, usable_threads
from mlp_xp.backends.communicator import Communicator

__all__ = ["divide_processors"]


def divide_processors(communicator: Communicator) -> None:
    """Set the threads of this rank to its share of the processors it may use.

    Ranks that a launcher has bound to processors of their own share them with nobody. Where the
    environment sets the number of threads, it stays.

    Parameters
    ----------
    communicator : Communicator
        All ranks call this together.
    """
    processors = _processors()
    ranks = communicator.gather((platform.node(), processors))
    if any(os.environ.get(name, "").isdigit() for name in THREADS_VARIABLES):
        return
    here = [others for node, others in ranks if node == platform.node()]
    share = sum(Fraction(1, sum(one in others for others in here)) for one in processors)
    n_threads = max(1, int(usable_threads() * share / len(processors)))
    # Libraries that are loaded later read the environment; NPROC is XLA's.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(n_threads))
    os.environ.setdefault("NPROC", str(n_threads))
    threadpool_limits(n_threads)


def _processors() -> set[int]:
    """Return the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
