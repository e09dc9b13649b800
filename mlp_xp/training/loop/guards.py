"""The guard and the time limit of a training, of all of its ranks if it has any."""

from __future__ import annotations

from mlp_xp.backends import Communicator
from mlp_xp.training.divergence.guard import Guard
from mlp_xp.training.loop.time_budget import Budget

__all__ = ["new_budget", "new_guard"]


def new_guard(communicator: Communicator | None) -> Guard:
    """Return the guard of a training."""
    if communicator is None:
        return Guard()
    from mlp_xp.training.loop.rank_decisions import AgreedGuard  # Most fits have one process.

    return AgreedGuard(communicator)


def new_budget(seconds: float, start: float, communicator: Communicator | None) -> Budget:
    """Return the time limit of a fit; with ranks, rank 0's."""
    if communicator is None:
        return Budget(seconds, start)
    from mlp_xp.training.loop.rank_decisions import AgreedBudget  # Most fits have one process.

    return AgreedBudget(seconds, start, communicator=communicator)
