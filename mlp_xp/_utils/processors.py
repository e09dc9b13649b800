"""The number of threads to compute with."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path, PurePosixPath

from mlp_xp._utils.workers import current_worker

__all__ = ["THREADS_VARIABLES", "usable_threads"]

THREADS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def usable_threads() -> int:
    """Return the number of threads of a BLAS, from its environment variables or the processors.

    Processors count as affinity, the quotas of a container and ``LOKY_MAX_CPU_COUNT`` allow. Where
    many models are fitted at once, it is the number of threads of each.
    """
    worker = current_worker()
    if worker is not None:
        return worker.n_threads
    for name in THREADS_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    from joblib import cpu_count

    return min(int(cpu_count()), quota())


@functools.cache
def quota(system: Path = Path("/")) -> int:
    """Return how many processors the quotas of our cgroup and its ancestors allow (Linux)."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = [math.inf]
    for _, controllers, path in (line.split(":", 2) for line in lines):
        # Version 2 names no controllers; version 1 mounts them together or each under its name.
        mounts = {"", "unified"} if not controllers else {controllers, *controllers.split(",")}
        if controllers and "cpu" not in mounts:
            continue
        nested = PurePosixPath(path.lstrip("/"))
        for folder in (
            system / "sys/fs/cgroup" / mount / part
            for mount in mounts
            for part in (nested, *nested.parents)
        ):
            for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
                try:
                    given, period = " ".join((folder / name).read_text() for name in files).split()
                    found += [float(given) / float(period)] if float(given) > 0 else []
                except (OSError, ValueError):  # No such file, or no quota: "max".
                    pass
    least = min(found)
    return max(1, math.ceil(least)) if least < math.inf else 1 << 16
