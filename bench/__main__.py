"""`mlp-xp bench`: benchmarks of this library and its peers, with a report and charts."""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from bench.reports.charts import draw
from bench.reports.sections import ALL, PARTS, report
from bench.reports.targets import floors_of, shortfalls, targets
from bench.suite.contenders import OURS, entries
from bench.suite.records import HISTORY, Result, environment, usable_cpus, write
from bench.suite.side_by_side import measure_workload, workload_table
from bench.suite.tables import Table, count, print_tables
from bench.suite.turns import Announce, Options, say, set_threads
from bench.suite.workloads import QUICK, SUITE
from mlp_xp.cli.commands import parse as parse_command

WORKLOADS, QUICK_WORKLOADS = ([workload.name for workload in suite] for suite in (SUITE, QUICK))
KEYS = {key.removesuffix("_study").replace("_", "-"): key for key in ALL}
NAMES = (*WORKLOADS, *(name for name, key in KEYS.items() if key in PARTS))
QUICK_NAMES = (*QUICK_WORKLOADS, "drop-in", "busy", "end-to-end")
Parts = dict[str, tuple[str, Callable[[Announce], Result]]]  # Titles and measuring functions.


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    try:
        args = parse_command(["bench", *(sys.argv[1:] if argv is None else argv)])
        parts = (*(QUICK_WORKLOADS if args.quick else WORKLOADS), *KEYS)
        check("part", [word.partition("/")[0] for word in args.only or []], parts)
        names = {name for workload in SUITE for name in entries(workload)}
        check("contender", args.contenders or [], sorted(names))
    except ValueError as error:
        print(f"mlp-xp: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    args.rounds = args.rounds or (5 if args.quick else 7)
    args.threads = args.threads or usable_cpus()
    return args


def check(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for an unknown name."""
    for name in names:
        if name not in known:
            typed = "; ".join(f'"{each}"' for each in known)
            raise ValueError(f"no {kind} of this run is called {name!r}: choose from {typed}")


def parts_of(args: argparse.Namespace, scratch: Path) -> Parts:
    """Return the selected parts in order."""
    suite, usual = (QUICK, QUICK_NAMES) if args.quick else (SUITE, NAMES)
    known = {w.name: (w.title, partial(measure_workload, w)) for w in suite}
    known |= {name: ALL[key][:2] for name, key in KEYS.items()}
    options = Options(args.rounds, args.threads, scratch, args.quick, args.images, args.contenders)
    found = {}
    for name, (title, measure) in known.items():
        words = [word for word in args.only or usual if word.partition("/")[0] == name]
        cases = () if name in words else tuple(word.partition("/")[2] for word in words)
        if words:
            found[name] = title, partial(measure, options._replace(cases=cases))
    return found


def main() -> int:
    args = parse()
    set_threads(args.threads)
    # PYTHONDONTWRITEBYTECODE would make every import compile this clone again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    out = args.out or HISTORY / time.strftime("%Y-%m-%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in ("quick", "rounds", "threads", "images")}
    result: Result = {"environment": environment(), "settings": settings, "workloads": {}}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            measure_parts(parts := parts_of(args, Path(scratch)), result, out)
    except KeyboardInterrupt:
        if (out / "report.md").exists():
            print(f"interrupted; what was measured is in {out}", file=sys.stderr)
        else:
            out.rmdir()
        return 130
    run = f"{'quick run' if args.quick else 'run'} of {count(args.rounds, 'round')}"
    head = [f"{run}, {count(args.threads, 'thread')}, {result['environment']['cpu']}"]
    if result["workloads"]:
        head += [f"times ours: the time of a contender / {OURS}; above 1, mlp_xp is faster."]
    print_tables(head, tables_of(result), OURS)
    if args.quick and args.only is None:
        left_out = [name for name in NAMES if name not in parts]
        print(f"\nleft out by --quick: many contenders, {', '.join(left_out)}")
    print(f"\ntables, charts and every measured time: {out}")
    if args.check:
        problems = shortfalls(result, floors_of(result["environment"]["kind"]))
        print("\n".join(problems or ["Every ratio to a peer is at or above its floor."]))
        return 1 if problems else 0
    return 0


def measure_parts(parts: Parts, result: Result, out: Path) -> None:
    """Measure the parts one after another, and write all results after each part."""
    from rich.console import Console
    from rich.progress import Progress

    console, start = Console(stderr=True), time.perf_counter()
    # Update once per second, because the timed contender needs the CPU cores.
    options = {"refresh_per_second": 1, "speed_estimate_period": math.inf}
    with Progress(console=console, disable=not console.is_terminal, **options) as progress:
        bar = progress.add_task("", total=len(parts))
        for number, (name, (title, measure)) in enumerate(parts.items()):

            def announce(turn: str, label: str = f"{number + 1}/{len(parts)} {name}") -> None:
                progress.update(bar, description=f"{label}: {turn}", refresh=True)

            if not console.is_terminal:
                taken = f"({time.perf_counter() - start:.0f} s so far)"
                say(f"part {number + 1} of {len(parts)}, {title}  {taken}")
            announce("preparing")
            record, key = (result, KEYS[name]) if name in KEYS else (result["workloads"], name)
            record[key] = measure(announce)
            # The results so far are kept if a later part fails.
            write(out / "result.json", result)
            (out / "report.md").write_text(report(result), encoding="utf-8")
            progress.advance(bar)
        announce("drawing the charts")
        draw(result, out)


def tables_of(result: Result) -> list[Table]:
    found = [workload_table(run) for run in result["workloads"].values()]
    for key, part in ALL.items():
        found += part.tables(result[key]) if result.get(key) else []
    return [*found, *([own] if (own := targets(result)).rows else [])]


if __name__ == "__main__":
    sys.exit(main())
