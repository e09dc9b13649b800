"""Records of runs, in the form {"environment": ..., part: results}."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HISTORY = ROOT / "bench" / "history"
DOCS = ROOT / "docs"
PACKAGES = (
    *("mlp-xp", "numpy", "scikit-learn", "array-api-compat", "numba", "torch", "jax"),
    *("cupy-cuda12x", "cupy-cuda13x", "mpi4py", "mpich"),
)

Result = dict[str, Any]


def environment(packages: Iterable[str] = ()) -> Result:
    """Return a description of the machine, without its name, and the installed versions."""
    model = re.search(r"^model name\s*: (.*)$", _cpuinfo(), re.MULTILINE)
    installed = {}
    for package in (*PACKAGES, *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "kind": processor_kind(),
        "commit": _commit(),
        "cpus": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed,
        "thread_pools": thread_pools(),
    }


def thread_pools() -> list[str]:
    """Return the thread pools of loaded libraries: name, version and threads."""
    from threadpoolctl import threadpool_info  # A machine with a GPU may lack threadpoolctl.

    pools = threadpool_info()
    facts = [(p["internal_api"], p["version"], f"{p['num_threads']} threads") for p in pools]
    return sorted({" ".join(filter(None, fact)) for fact in facts})


def _commit() -> str:
    """Return the commit of this clone, or ""."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ""


def usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def processor_kind(cpuinfo: str | None = None) -> str:
    """Return the processor's vendor and widest vector extension, the key of its floors, or ""."""
    text = _cpuinfo() if cpuinfo is None else cpuinfo
    facts = dict(re.findall(r"^(vendor_id|flags)\s*: (.*)$", text, re.MULTILINE))
    left_out = tuple(filter(None, os.environ.get("MLP_XP_WITHOUT", "").split(",")))
    flags = {flag for flag in facts.get("flags", "").split() if not flag.startswith(left_out)}
    for name, flag in (("AMX", "amx_bf16"), ("AVX-512", "avx512f"), ("AVX2", "avx2")):
        if flag in flags:
            makers = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}
            return f"{makers.get(facts['vendor_id'], facts['vendor_id'])}, {name}"
    return ""


def versions(facts: Result) -> str:
    return ", ".join(f"{name} {version}" for name, version in facts["versions"].items())


def machine(facts: Result) -> str:
    return f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}"


def measured_on(facts: Result) -> str:
    """Return a sentence with the machine and the versions of an environment."""
    python = f"Python {facts['python']}, {versions(facts)}"
    return f"Measured on {facts['date']}; {machine(facts)}; {python}."


def write(path: Path, record: Result) -> None:
    """Write a record as JSON; if interrupted, the previous file remains complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, json.dumps(record, indent=1) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    whole = path.with_name(f"{path.name}.tmp")
    whole.write_text(text, encoding="utf-8")
    whole.replace(path)


def records(part: str, *names: str) -> list[tuple[Path, Result]]:
    """Return the records whose part contains these names, by date; skip quick runs."""
    found = []
    for path in HISTORY.rglob("*.json"):
        record = json.loads(path.read_text())
        is_quick = record.get("settings", {}).get("quick")
        if part in record and set(names) <= set(record[part]) and not is_quick:
            found.append((path, record))
    return sorted(found, key=lambda item: item[1]["environment"]["date"])


def newest(part: str, *names: str) -> tuple[Path, Result]:
    """Return the newest record whose part contains these names, and its file."""
    if found := records(part, *names):
        return found[-1]
    raise FileNotFoundError(f"no record in {HISTORY} contains the part {part!r}")


def resume(path: Path, fresh: Result, compared: dict[str, tuple[str, ...]]) -> Result:
    """Return the record in a file to continue, or a new one; exit if compared facts differ.

    ``compared`` contains the names of facts by part, such as ``{"environment": ("cpu",)}``.
    """
    record = json.loads(path.read_text()) if path.exists() else fresh
    for part, names in compared.items():
        for name in names:
            known, wanted = record.get(part, {}).get(name), fresh[part][name]
            if known != wanted:
                difference = f"{name} {known!r:.100}, not {wanted!r:.100}"
                raise SystemExit(f"{path} has {difference}: set --into to another place")
    return record
