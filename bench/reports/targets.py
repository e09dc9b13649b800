"""Targets of this library against its peers, and floors below which a run is a regression.

Both are in floors.json: workload -> peer -> the least ratio of the peer's seconds to ours. A peer
is also the roofline, or the fastest of the others in float32; `NAME: CONTENDER` compares another
one of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from bench.studies.busy import ALONE, BUSY
from bench.studies.startup import AFTER
from bench.suite.contenders import OURS
from bench.suite.records import ROOT, Result
from bench.suite.spread import Spread, ratio, spread
from bench.suite.tables import Table, ratio_text, seconds

WANTED = json.loads((ROOT / "bench" / "floors.json").read_text())
FIRST_STEP, IMPORT, STEP = 1.0, 0.050, 50e-6  # seconds
MEMORY = 250e6  # bytes
Wanted = dict[str, dict[str, float]]


class Compared(NamedTuple):
    """A peer's seconds in ours at a workload, or why there are none, and the least ratio."""

    workload: str
    peer: str
    least: float
    got: Spread | None
    reason: str = ""


def compare(result: Result, wanted: Wanted) -> Iterator[Compared]:
    """Yield each ratio that is wanted."""
    parts = _with_contenders(result)
    for workload, peers in wanted.items():
        name, _, own = workload.partition(": ")
        own, found = own or OURS, parts.get(name, {})
        contenders = found.get("contenders", {})
        ours = contenders.get(own, {"cannot_run": "not measured"})
        if "floor" in found and "seconds" in ours:
            bound = [found["floor"]["seconds"]] * len(ours["seconds"])
            contenders = contenders | {"roofline": {"seconds": bound}}
        for peer, least in peers.items():
            name = (fastest_peer(contenders) or peer) if peer == "fastest" else peer
            theirs = contenders.get(name, {"cannot_run": "not measured"})
            both = ((own, ours), (name, theirs))
            lost = [f"{who}: {run['cannot_run']}" for who, run in both if "cannot_run" in run]
            got = None if lost else ratio(theirs["seconds"], ours["seconds"])
            who = f"the fastest ({name})" if name != peer else peer
            yield Compared(workload, who, least, got, "; ".join(lost))


def shortfalls(result: Result, floors: Wanted) -> list[str]:
    """Return a line for each ratio below its floor by more than its noise."""
    problems = []
    for workload, peer, least, got, reason in compare(result, floors):
        if got is None:
            problems.append(f"{workload}, {peer}: not compared; {reason}")
        elif got.median + got.noise < least:
            problems.append(
                f"{workload}: {peer} takes {got.median:.2f} times our seconds, give or take "
                f"{got.noise:.2f}; at least {least} are wanted (bench/floors.json)"
            )
    return problems


def targets(result: Result, *, only_missed: bool = False) -> Table:
    """Return the targets of what was measured; none for a run on fewer images."""
    rows = []
    if not result["settings"]["images"]:
        for workload, peer, least, got, _ in compare(result, WANTED["targets"]):
            if got is not None:
                off, text = 1 - got.median / least, f"at least {least:g}"
                rows.append((f"{workload}: seconds of {peer} by ours", ratio_text(got), text, off))
        rows += _limits(result)
    columns = ["measure", "met", "measured", "target", "missed by"]
    cells = [
        [name, "no" if off > 0 else "yes", got, wanted, f"{off:.0%}" if off > 0 else ""]
        for name, got, wanted, off in rows
        if off > 0 or not only_missed
    ]
    terms = "What this project wants of itself, before each release."
    return Table("targets", columns, cells, terms=terms)


def _limits(result: Result) -> Iterator[tuple[str, str, str, float]]:
    def at_most(name: str, limit: float, got: float) -> tuple[str, str, str, float]:
        return name, seconds(got), f"at most {seconds(limit)}", got / limit - 1

    if (
        taken := result["workloads"]
        .get("tiny", {})
        .get("contenders", {})
        .get(OURS, {})
        .get("seconds")
    ):
        step = spread(taken).median / result["workloads"]["tiny"]["steps"]
        yield at_most(f"tiny: {OURS}, a step", STEP, step)
    whole = result.get("end_to_end", {})
    if peak := whole.get("runs", {}).get("mlp-xp train", {}).get("peak_bytes"):
        excess = peak - whole["data_bytes"] - whole["state_bytes"]
        name = "mlp-xp train: peak memory beyond uint8 images, parameters and optimizer state"
        limit = f"at most {MEMORY / 1e6:.0f} MB"
        yield name, f"{excess / 1e6:.0f} MB", limit, excess / MEMORY - 1
    startup = result.get("start_up", {"imports": {}, "first_steps": {}})
    # Within one process, as two processes differ by more than the import takes.
    if taken := startup["imports"].get(AFTER, {}).get("seconds"):
        name = "import of MLPClassifier, after scikit-learn's"
        yield at_most(name, IMPORT, spread(taken).median)
    if taken := startup["first_steps"].get(OURS, {}).get("seconds"):
        yield at_most(f"{OURS}: first step after the import", FIRST_STEP, spread(taken).median)


def fastest_peer(contenders: Result) -> str | None:
    """Return the name of the fastest contender in float32 that is not ours."""
    peers = {
        name: spread(run["seconds"]).median
        for name, run in contenders.items()
        if run.get("precision") == "float32" and "seconds" in run and not name.startswith("mlp_xp")
    }
    return min(peers, key=lambda name: peers[name], default=None)


def _with_contenders(result: Result) -> Result:
    """Return all parts of a run that floors are for, as workloads with contenders."""
    runs = result.get("end_to_end", {}).get("runs", {})
    trained = {
        peer: run if "cannot_run" in run else {"seconds": [run["processor_seconds"]]}
        for peer, name in ((OURS, "mlp-xp train"), ("torch", "torch script"))
        if "processor_seconds" in (run := runs.get(name, {})) or "cannot_run" in run
    }
    measured = result["workloads"] | result.get("drop_in", {})
    for name, ways in result.get("busy", {}).items():
        sides = {OURS: ways[BUSY], "one thread": ways[ALONE]}
        sides = {
            who: run if isinstance(run, dict) else {"seconds": run} for who, run in sides.items()
        }
        measured[f"beside a busy program, {name}"] = {"contenders": sides}
    return measured | {"mlp-xp train, of the processors": {"contenders": trained}}
