"""Targets of this library against its peers, and floors below which a run is a regression."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bench.studies.busy import ALONE, BUSY
from bench.studies.startup import AFTER
from bench.suite.contenders import OURS, PLAIN
from bench.suite.records import ROOT, Result
from bench.suite.spread import ratio, spread
from bench.suite.tables import Table, seconds, times

FLOORS = ROOT / "bench" / "floors.json"  # workload -> peer -> seconds of peer / of ours
FIRST_STEP, IMPORT, STEP = 1.0, 0.050, 50e-6  # seconds
MEMORY = 250e6  # bytes
FASTEST = "the fastest float32 peer"
AUTOCAST = "torch, bfloat16 autocast"
# workload, ours, the peer, how many times our seconds it should take
RATIOS = (
    ("lab", OURS, FASTEST, 1.5),
    ("lab-full", OURS, PLAIN, 12.0),
    ("medium", OURS, FASTEST, 1.25),
    ("wide", OURS, FASTEST, 1.0),
    ("tiny", OURS, FASTEST, 1.5),
    ("tiny", OURS, "scikit-learn", 4.0),
    ("medium", "mlp_xp, torch, bf16", AUTOCAST, 1.4),
    ("wide", "mlp_xp, torch, bf16", AUTOCAST, 1.1),
    ("predict", OURS, FASTEST, 1.0),
    ("one-row", OURS, "scikit-learn", 3.0),
)
SHARES = {"lab-full": 0.80, "medium": 0.85, "wide": 0.92}
# A target's name, what is wanted, what was measured, and the distance: above 0, it is missed.
Target = tuple[str, str, str, float]


def targets(result: Result) -> Table:
    """Return the targets of what was measured; none for a run on fewer images."""
    found = [] if result["settings"]["images"] else [*_ratios(result), *_others(result)]
    rows = [[name, "yes" if off <= 0 else "no", got, wanted] for name, wanted, got, off in found]
    terms = "What this project wants of itself, before each release."
    return Table("targets", ["measure", "met", "measured", "target"], rows, terms=terms)


def missed(result: Result) -> Table:
    """Return the table of missed targets, each with its distance."""
    found = [*_ratios(result), *_others(result)]
    rows = [[name, wanted, got, f"{off:.0%}"] for name, wanted, got, off in found if off > 0]
    return Table("missed", ["measure", "target", "measured", "missed by"], rows)


def _ran(result: Result, workload: str) -> Result:
    """Return the contenders of a workload that ran to the end."""
    contenders = result["workloads"].get(workload, {}).get("contenders", {})
    return {name: run for name, run in contenders.items() if "seconds" in run}


def fastest_peer(contenders: Result) -> str | None:
    """Return the name of the fastest contender in float32 that is not ours."""
    peers = [
        name
        for name, run in contenders.items()
        if run["precision"] == "float32" and not name.startswith("mlp_xp")
    ]
    return min(peers, key=lambda name: spread(contenders[name]["seconds"]).median, default=None)


def _ratios(result: Result) -> Iterator[Target]:
    for workload, ours, peer, wanted in RATIOS:
        runs = _ran(result, workload)
        name = fastest_peer(runs) if peer == FASTEST else peer
        if name not in runs or ours not in runs:
            continue
        theirs, own = runs[name]["seconds"], runs[ours]["seconds"]
        who = f"{peer} ({name})" if peer == FASTEST else peer
        least = f"at least {wanted:g} times as fast"
        off = 1 - ratio(theirs, own).median / wanted
        yield f"{workload}: {ours} against {who}", least, times(theirs, own), off
    for workload, wanted in SHARES.items():
        if OURS in (runs := _ran(result, workload)):
            least = result["workloads"][workload]["floor"]["seconds"]
            share = least / spread(runs[OURS]["seconds"]).median
            name = f"{workload}: {OURS}, share of the roofline"
            yield name, f"at least {wanted:.0%}", f"{share:.0%}", 1 - share / wanted


def _others(result: Result) -> Iterator[Target]:
    def at_most(name: str, limit: float, taken: list[float], per: int = 1) -> Target:
        got = spread(taken).median / per
        return name, f"at most {seconds(limit)}", seconds(got), got / limit - 1

    if OURS in (runs := _ran(result, "tiny")):
        steps = result["workloads"]["tiny"]["steps"]
        yield at_most(f"tiny: {OURS}, a step", STEP, runs[OURS]["seconds"], steps)
    whole = result.get("end_to_end", {})
    ours = whole.get("runs", {}).get("mlp-xp train", {})
    if ours.get("peak_bytes"):
        excess = ours["peak_bytes"] - whole["data_bytes"] - whole["state_bytes"]
        name = "mlp-xp train: peak memory beyond uint8 images, parameters and optimizer state"
        limit = f"at most {MEMORY / 1e6:.0f} MB"
        yield name, limit, f"{excess / 1e6:.0f} MB", excess / MEMORY - 1
    startup = result.get("start_up", {"imports": {}, "first_steps": {}})
    # Within one process, as two processes differ by more than the import takes.
    if taken := startup["imports"].get(AFTER, {}).get("seconds"):
        yield at_most("import of MLPClassifier, after that of scikit-learn's", IMPORT, taken)
    if taken := startup["first_steps"].get(OURS, {}).get("seconds"):
        yield at_most(f"{OURS}: first step after the import", FIRST_STEP, taken)


def floors() -> dict[str, dict[str, float]]:
    """Return the least ratio to each peer, by workload."""
    found: dict[str, dict[str, float]] = json.loads(FLOORS.read_text())
    return found


def shortfalls(result: Result, wanted: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each ratio below its floor by more than its noise."""
    problems = []
    for workload, peers in wanted.items():
        found = _compared(result).get(workload, {})
        contenders = found.get("contenders", {})
        ours = contenders.get(OURS, {"cannot_run": "not measured"})
        if "floor" in found and "seconds" in ours:
            bound = [found["floor"]["seconds"]] * len(ours["seconds"])
            contenders = contenders | {"roofline": {"seconds": bound}}
        for peer, least in peers.items():
            theirs = contenders.get(peer, {"cannot_run": "not measured"})
            both = {OURS: ours, peer: theirs}
            lost = [
                f"{who}: {run['cannot_run']}" for who, run in both.items() if "cannot_run" in run
            ]
            if lost:
                problems.append(f"{workload}, {peer}: not compared; {'; '.join(lost)}")
                continue
            got = ratio(theirs["seconds"], ours["seconds"])
            if got.median + got.noise < least:
                problems.append(
                    f"{workload}: {peer} takes {got.median:.2f} times our seconds, give or take "
                    f"{got.noise:.2f}; at least {least} are wanted (bench/floors.json)"
                )
    return problems


def _compared(result: Result) -> Result:
    """Return all parts of a run that floors are for, as workloads with contenders."""
    runs = result.get("end_to_end", {}).get("runs", {})
    trained = {
        peer: run if "cannot_run" in run else {"seconds": [run["processor_seconds"]]}
        for peer, name in ((OURS, "mlp-xp train"), ("torch", "torch script"))
        if (run := runs.get(name))
    }
    measured: dict[str, Any] = result["workloads"] | result.get("drop_in", {})
    for name, ways in result.get("busy", {}).items():
        sides = {OURS: ways[BUSY], "one thread": ways[ALONE]}
        sides = {
            who: run if "cannot_run" in run else {"seconds": run} for who, run in sides.items()
        }
        measured[f"beside a busy program, {name}"] = {"contenders": sides}
    return measured | {"mlp-xp train, of the processors": {"contenders": trained}}
