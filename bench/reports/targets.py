"""Speed targets of this library, and floors below which a run is a regression.

floors.json contains targets, common floors, and floors by kind of processor. Each maps workload ->
peer -> minimum ratio of the peer's time to ours. A peer may also be "roofline", or "fastest" for
the fastest float32 peer. The workload `NAME: CONTENDER` uses another contender of this library.
"""

import json
from collections.abc import Callable, Iterator

from bench.studies.busy import ALONE, BUSY
from bench.studies.startup import AFTER
from bench.suite.contenders import OURS
from bench.suite.records import ROOT, Result
from bench.suite.tables import Spread, Table, measured, ratio, ratio_text, reasons, seconds, spread

WANTED = json.loads((ROOT / "bench" / "floors.json").read_text())
FIRST_STEP, IMPORT, STEP = 1.0, 0.050, 50e-6  # seconds
MEMORY = 250e6  # bytes
Wanted = dict[str, dict[str, float]]


def compare(result: Result, wanted: Wanted) -> Iterator[tuple[str, str, float, Spread | None, str]]:
    """Yield workload, peer, target, ratio, and why the ratio is missing, for each target."""
    parts, absent = _with_contenders(result), {"cannot_run": "not measured"}
    for workload, peers in wanted.items():
        name, _, own = workload.partition(": ")
        own, found = own or OURS, parts.get(name, {"contenders": {}})
        runs = found["contenders"]
        ours = runs.get(own, absent)
        if "floor" in found and "seconds" in ours:
            bound = [found["floor"]["seconds"]] * len(ours["seconds"])
            runs = runs | {"roofline": {"seconds": bound}}
        for peer, least in peers.items():
            name = (fastest_peer(runs) or peer) if peer == "fastest" else peer
            theirs = runs.get(name, absent)
            lost = [f"{who}: {why}" for who, why in reasons({own: ours, name: theirs}).items()]
            got = None if lost else ratio(theirs["seconds"], ours["seconds"])
            who = f"the fastest ({name})" if name != peer else peer
            yield workload, who, least, got, "; ".join(lost)


def floors_of(kind: str) -> Wanted:
    """Return the floors for a kind of processor, or the common floors if it has none."""
    floors: Wanted = dict(WANTED["floors"])
    for workload, peers in WANTED["floors by processor"].get(kind, {}).items():
        floors[workload] = floors.get(workload, {}) | peers
    return floors


def shortfalls(result: Result, floors: Wanted) -> list[str]:
    """Return a line for each ratio below its floor by more than its noise."""
    problems = []
    for workload, peer, least, got, reason in compare(result, floors):
        if got is None:
            problems.append(f"{workload}, {peer}: not compared; {reason}")
        elif got.median + got.noise < least:
            text = f"{got.median:.2f} ± {got.noise:.2f} times ours, but must be at least {least}"
            problems.append(f"{workload}: the time of {peer} is {text} (bench/floors.json)")
    return problems


def targets(result: Result) -> Table:
    """Return the table of targets, which is empty for a run with fewer images."""
    rows = []
    if not result["settings"]["images"]:
        for workload, peer, least, got, _ in compare(result, WANTED["targets"]):
            if got is not None:
                name, off = f"{workload}: time of {peer} / ours", 1 - got.median / least
                rows.append([name, off, ratio_text(got), f"at least {least:g}"])
        for name, value, limit, show in _limits(result):
            rows.append([name, value / limit - 1, show(value), f"at most {show(limit)}"])
    rows = [
        [name, "no" if off > 0 else "yes", *texts, f"{off:.0%}" if off > 0 else ""]
        for name, off, *texts in rows
    ]
    columns = ["measure", "met", "measured", "target", "missed by"]
    terms = "These are the targets of this project for each release."
    return Table("targets", columns, rows, terms=terms)


def _limits(result: Result) -> Iterator[tuple[str, float, float, Callable[[float], str]]]:
    """Yield name, value, limit and format of each measured target with an upper limit."""
    whole, startup = result.get("end_to_end", {"runs": {}}), result.get("start_up", {})
    train, tiny = whole["runs"].get("mlp-xp train", {}), result["workloads"].get("tiny", {})
    if run := tiny.get("contenders", {}).get(OURS, {}).get("seconds"):
        yield f"tiny: {OURS}, per step", spread(run).median / tiny["steps"], STEP, seconds
    if peak := train.get("peak_bytes"):
        excess = peak - whole["data_bytes"] - whole["state_bytes"]
        name = "mlp-xp train: peak memory beyond uint8 images, parameters and optimizer state"
        yield name, excess, MEMORY, lambda size: f"{size / 1e6:.0f} MB"
    # Measured in one process, because two processes differ by more than the time of the import.
    if run := startup.get("imports", {}).get(AFTER, {}).get("seconds"):
        yield "import of MLPClassifier, after scikit-learn's", spread(run).median, IMPORT, seconds
    if run := startup.get("first_steps", {}).get(OURS, {}).get("seconds"):
        yield f"{OURS}: first step after the import", spread(run).median, FIRST_STEP, seconds


def fastest_peer(contenders: Result) -> str | None:
    """Return the name of the fastest contender in float32 that is not ours."""
    peers = {
        name: spread(times).median
        for name, times in measured(contenders).items()
        if contenders[name].get("precision") == "float32" and not name.startswith("mlp_xp")
    }
    return min(peers, key=peers.__getitem__, default=None)


def _with_contenders(result: Result) -> Result:
    """Return all parts of a run that have floors, as workloads with contenders."""
    found = result["workloads"] | result.get("drop_in", {})
    for name, ways in result.get("busy", {}).items():
        sides = {OURS: ways[BUSY], "one thread": ways[ALONE]}.items()
        runs = {who: run if isinstance(run, dict) else {"seconds": run} for who, run in sides}
        found[f"beside a busy program, {name}"] = {"contenders": runs}
    whole, trained = result.get("end_to_end", {"runs": {}}), {}
    for peer, name in ((OURS, "mlp-xp train"), ("torch", "torch script")):
        run = whole["runs"].get(name, {})
        if taken := run.get("processor_seconds"):
            trained[peer] = {"seconds": [taken]}
        elif "cannot_run" in run:
            trained[peer] = run
    return found | {"mlp-xp train, of the processors": {"contenders": trained}}
