"""The number of threads to compute with."""

from __future__ import annotations

import os

__all__ = ["usable_threads"]


def usable_threads() -> int:
    """Return the threads that a BLAS would take: by its variables, else all usable processors.

    Those are what affinity, a container's share and ``LOKY_MAX_CPU_COUNT`` leave.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    from joblib import cpu_count

    return int(cpu_count())
