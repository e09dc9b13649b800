"""Records of runs, of one form: {"environment": ..., part: what it measured}."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

ROOT = Path(__file__).parents[2]
HISTORY = ROOT / "bench" / "history"
DOCS = ROOT / "docs"
PACKAGES = (
    *("mlp-xp", "numpy", "scikit-learn", "array-api-compat", "numba", "torch", "jax"),
    *("cupy-cuda12x", "cupy-cuda13x", "mpi4py", "mpich"),
)

Result = dict[str, Any]


def environment() -> Result:
    """Return facts about the machine, without its name, and installed versions."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": _cpu_name(),
        "cpus": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := package_version(name))},
        "thread_pools": thread_pools(),
    }


def thread_pools() -> list[str]:
    """Return the thread pools of loaded libraries: name, version and threads."""
    pools = threadpool_info()
    facts = [(p["internal_api"], p["version"], f"{p['num_threads']} threads") for p in pools]
    return sorted({" ".join(filter(None, fact)) for fact in facts})


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


def package_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measured_on(facts: Result) -> str:
    """Return a sentence with the machine and the versions of an environment."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}"
    return f"Measured on {facts['date']}; {machine}; Python {facts['python']}, {versions}."


def write(path: Path, record: Result) -> None:
    """Write a record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def newest(part: str, *names: str, history: Path = HISTORY) -> tuple[Path, Result]:
    """Return the newest record whose part has these names, and its file; no quick run."""
    found = []
    for path in history.rglob("*.json"):
        record = json.loads(path.read_text())
        is_quick = record.get("settings", {}).get("quick")
        if part in record and set(names) <= set(record[part]) and not is_quick:
            found.append((record["environment"]["date"], path, record))
    if not found:
        raise FileNotFoundError(f"no record under {history} has the part {part!r}")
    return max(found, key=lambda item: item[0])[1:]
