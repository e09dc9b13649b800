"""Tables of docs/performance.md by kind of processor, each from the newest record of this kind."""

import json

from bench.reports.targets import WANTED, fastest_peer
from bench.suite.contenders import OURS
from bench.suite.records import HISTORY, Result, machine
from bench.suite.tables import NOT_COMPARED, Table, count, markdown, median, ratio

LOW, SCAN, AUTOCAST = "mlp_xp, NumPy, bf16", "JAX, epoch in a scan", "torch, bfloat16 autocast"
# Prefixes of the targets that are in these tables.
MEASURED = tuple(f"{name}: time" for name in ("tiny", "lab", "medium", "wide"))
COLUMNS = (
    *("network", "mlp_xp", "fastest float32 peer", "times", "JAX's scan, times"),
    *("mlp_xp in bf16", "torch's autocast, times", "float32, times"),
)


def section() -> str:
    """Return a table for each measured kind of processor."""
    found: dict[str, Result] = {}
    for path in HISTORY.glob("*/result.json"):
        record = json.loads(path.read_text())
        kind, date = record["environment"].get("kind"), record["environment"]["date"]
        if kind and (kind not in found or date > found[kind]["environment"]["date"]):
            found[kind] = record
    return "\n\n".join(_of_kind(*item) for item in sorted(found.items()))


def _of_kind(kind: str, record: Result) -> str:
    facts = record["environment"]
    rows = [_row(name, workload) for name, workload in record["workloads"].items()]
    shown = [i for i, cells in enumerate(zip(*rows, strict=True)) if {*cells} != {NOT_COMPARED}]
    columns, *cells = ([row[i] for i in shown] for row in (COLUMNS, *rows))
    note = (
        f"{machine(facts)}, {facts['date'][:10]}, commit {facts['commit']}; medians of "
        f"{count(record['settings']['rounds'], 'round')}. {facts.get('note', '')}".strip()
    )
    return markdown(Table(kind, columns, cells, note=note), f"### {kind}")


def _row(name: str, workload: Result) -> list[str]:
    contenders = workload["contenders"]
    runs = {who: run["seconds"] for who, run in contenders.items() if "seconds" in run}
    own, low, peer = runs[OURS], runs.get(LOW), fastest_peer(contenders) or ""
    wanted, of_low = (WANTED["targets"].get(key, {}) for key in (name, f"{name}: {LOW}"))
    return [
        name,
        median(own),
        f"{peer}, {median(runs[peer])}",
        _times(runs[peer], own, wanted.get("fastest")),
        _times(runs.get(SCAN), own, wanted.get(SCAN)),
        median(low),
        _times(runs.get(AUTOCAST), low, of_low.get(AUTOCAST)),
        _times(own, low, of_low.get(OURS)),
    ]


def _times(theirs: list[float] | None, ours: list[float] | None, target: float | None) -> str:
    """Return a ratio with its target, in bold if it is missed."""
    if theirs is None or ours is None:
        return NOT_COMPARED
    got = ratio(theirs, ours).median
    text = f"**{got:.2f}**" if target is not None and got < target else f"{got:.2f}"
    return text if target is None else f"{text} of {target:g}"
