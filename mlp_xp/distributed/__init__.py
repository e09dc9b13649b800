"""Training on several processes (*ranks*) and machines, which communicate through an engine.

Each engine is one file with a `Communicator`. `training` divides a fit among ranks, `backends` sums
arrays of each library over ranks, and `_ranks` contains the class for the ranks of a fit.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from mlp_xp.distributed._settings import Distributed
from mlp_xp.distributed.communicator import Communicator, RankError
from mlp_xp.training.processes import SINGLE_PROCESS, SingleProcess

__all__ = ["ENGINES", "Communicator", "Distributed", "RankError", "get_communicator", "join_ranks"]

# The module of each engine.
ENGINES = {"mpi": "_mpi", "torch": "_torch"}


@cache
def get_communicator(engine: str) -> Communicator:
    """Return the communicator of an engine; every call returns the same object.

    The first call divides each machine's processors among its ranks, by limiting their threads,
    unless ``OMP_NUM_THREADS`` is set. After this call, an error that ends one rank ends all ranks.
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
    """Return the processes of a fit for a value of the estimators' parameter ``distributed``."""
    if setting is None:
        return SINGLE_PROCESS
    settings = setting if isinstance(setting, Distributed) else Distributed(setting)
    communicator = get_communicator(settings.engine)
    if settings.deterministic:
        communicator = in_fixed_order(communicator)
    from mlp_xp.distributed._ranks import Ranks  # Imported only for several processes.

    return Ranks(communicator, settings)


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
