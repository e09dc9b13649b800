"""Compare two runs of the suite: which times changed by more than their noise.

    python bench/compare.py bench/history/2026-01-01-120000 bench/history/2026-02-01-120000

A time has changed if the medians differ by more than 3 % and by more than both interquartile ranges
together. The rates of the machine are compared too: if they changed, so did the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from report import seconds, table
from spread import spread

__all__ = ["compare", "main", "verdict"]

LEAST = 0.03
SAME = "within the noise"

Result = dict[str, Any]


def verdict(before: Sequence[float], after: Sequence[float]) -> str:
    """Return in words how the seconds of two runs differ."""
    old, new = spread(before), spread(after)
    difference = new.median - old.median
    if abs(difference) <= max(old.noise + new.noise, LEAST * old.median):
        return SAME
    return f"{abs(difference) / old.median:.0%} {'slower' if difference > 0 else 'faster'}"


def runs(result: Result) -> Iterator[tuple[tuple[str, str], Result]]:
    """Yield every timed run with its workload and contender."""
    for name, workload in result["workloads"].items():
        for who, run in {**workload["machine"], **workload["contenders"]}.items():
            yield (name, who), run
    for name, case in result.get("drop_in", {}).items():
        for who, run in case["contenders"].items():
            yield (name, who), run
    for part, measured in result.get("startup", {}).items():
        for who, run in measured.items():
            yield (part.replace("_", " "), who), run


def compare(before: Result, after: Result) -> str:
    """Return the page: changes of the environment, changed times, times of one run only."""
    old, new = dict(runs(before)), dict(runs(after))
    rows, same, lone = [], 0, []
    for key in dict.fromkeys([*old, *new]):
        if "seconds" not in old.get(key, {}) or "seconds" not in new.get(key, {}):
            lone.append(
                f"- {key[0]}, {key[1]}: {_state(old.get(key))}, then {_state(new.get(key))}"
            )
            continue
        times = old[key]["seconds"], new[key]["seconds"]
        said = verdict(*times)
        same += said == SAME
        if said != SAME:
            rows.append([*key, *(seconds(spread(values).median) for values in times), said])
    sections = ["# What changed", *_differences(before, after)]
    if rows:
        sections.append(table(["what", "who", "before", "after", "change"], "llrrl", rows))
    sections.append(f"{len(rows)} changed, {same} {SAME}.")
    if lone:
        sections += ["## Not timed in both", "\n".join(lone)]
    return "\n\n".join(sections) + "\n"


def _differences(before: Result, after: Result) -> list[str]:
    """Return the list of differences in environment and settings."""
    pairs = [
        (key, before[part].get(key), after[part].get(key))
        for part in ("environment", "settings")
        for key in dict.fromkeys([*before[part], *after[part]])
        if key not in ("date", "versions", "thread_pools")
    ]
    versions = before["environment"]["versions"], after["environment"]["versions"]
    pairs += [(name, *(v.get(name) for v in versions)) for name in {**versions[0], **versions[1]}]
    lines = [f"- {key}: {old}, then {new}" for key, old, new in pairs if old != new]
    return ["\n".join(lines)] if lines else []


def _state(run: Result | None) -> str:
    if run is None:
        return "not measured"
    return "timed" if "seconds" in run else f"cannot run ({run['cannot_run']})"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="folder with a result.json")
    parser.add_argument("after", type=Path)
    args = parser.parse_args(argv)
    results = []
    for folder in (args.before, args.after):
        path = folder / "result.json"
        if not path.is_file():
            parser.error(f"{path} does not exist; expected a folder that `mlp-xp bench` wrote")
        results.append(json.loads(path.read_text()))
    print(compare(*results))


if __name__ == "__main__":
    main()
