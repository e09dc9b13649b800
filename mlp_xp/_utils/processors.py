"""The number of threads to compute with."""

from __future__ import annotations

import os

__all__ = ["usable_threads"]


def usable_threads() -> int:
    """Return the number of threads of a BLAS, from its environment variables or the processors.

    Processors count as affinity, the limit of a container and ``LOKY_MAX_CPU_COUNT`` allow.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    from joblib import cpu_count

    return int(cpu_count())
