"""The environment of a figure: date, processor, versions, BLAS and threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

__all__ = ["environment", "thread_pools", "usable_cpus"]

PACKAGES = (
    "mlp-xp",
    "numpy",
    "scikit-learn",
    "array-api-compat",
    "numba",
    "torch",
    "jax",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "mpi4py",
    "mpich",
)


def environment() -> dict[str, Any]:
    """Return facts about the machine, without its name, and installed versions."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": _cpu_name(),
        "cpus": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "thread_pools": thread_pools(),
    }


def thread_pools() -> list[str]:
    """Return the thread pools of loaded libraries: name, version and threads."""
    return sorted(
        {
            " ".join(
                filter(
                    None, (pool["internal_api"], pool["version"], f"{pool['num_threads']} threads")
                )
            )
            for pool in threadpool_info()
        }
    )


def usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
        if match:
            return match[1]
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
