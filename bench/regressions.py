"""The least ratios to peers and to the roofline, below which a run is a regression."""

from __future__ import annotations

from pathlib import Path

from busy import ALONE, BUSY
from contenders import OURS
from spread import ratio
from turns import Result

__all__ = ["FLOORS", "shortfalls"]

FLOORS = Path(__file__).with_name("floors.json")  # workload -> peer -> seconds of peer / of ours


def shortfalls(result: Result, floors: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each ratio below its floor by more than its noise."""
    problems = []
    runs = result.get("end_to_end", {}).get("runs", {})
    trained = {
        peer: run if "cannot_run" in run else {"seconds": [run["processor_seconds"]]}
        for peer, name in ((OURS, "mlp-xp train"), ("torch", "torch script"))
        if (run := runs.get(name))
    }
    measured = result["workloads"] | result.get("drop_in", {})
    for name, ways in result.get("busy", {}).items():
        sides = {OURS: {"seconds": ways[BUSY]}, "one thread": {"seconds": ways[ALONE]}}
        measured[f"beside a busy program, {name}"] = {"contenders": sides}
    measured |= {"mlp-xp train, of the processors": {"contenders": trained}}
    for workload, peers in floors.items():
        found = measured.get(workload, {})
        contenders = found.get("contenders", {})
        ours = contenders.get(OURS, {"cannot_run": "not measured"})
        if "floor" in found and "seconds" in ours:
            bound = [found["floor"]["seconds"]] * len(ours["seconds"])
            contenders = contenders | {"roofline": {"seconds": bound}}
        for peer, least in peers.items():
            theirs = contenders.get(peer, {"cannot_run": "not measured"})
            missing = [
                f"{name}: {run['cannot_run']}"
                for name, run in ((OURS, ours), (peer, theirs))
                if "cannot_run" in run
            ]
            if missing:
                problems.append(f"{workload}, {peer}: not compared; {'; '.join(missing)}")
                continue
            got = ratio(theirs["seconds"], ours["seconds"])
            if got.median + got.noise < least:
                problems.append(
                    f"{workload}: {peer} takes {got.median:.2f} times our seconds, give or take "
                    f"{got.noise:.2f}; at least {least} are wanted (bench/floors.json)"
                )
    return problems
