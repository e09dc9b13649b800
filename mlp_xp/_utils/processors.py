"""The number of threads to compute with."""

from __future__ import annotations

import os

from mlp_xp._utils.workers import current_worker

__all__ = ["THREADS_VARIABLES", "usable_threads"]

THREADS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def usable_threads() -> int:
    """Return the number of threads of a BLAS, from its environment variables or the processors.

    Processors count as affinity, the limit of a container and ``LOKY_MAX_CPU_COUNT`` allow. Where
    many models are fitted at once, it is the number of threads of each.
    """
    worker = current_worker()
    if worker is not None:
        return worker.n_threads
    for name in THREADS_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    from joblib import cpu_count

    return int(cpu_count())
