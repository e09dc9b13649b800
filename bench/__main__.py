"""`mlp-xp bench`: benchmarks of this library and its peers, with a report and charts."""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
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

KEYS = {key.replace("_", "-"): key for key in ALL}
WORKLOADS, QUICK_WORKLOADS = ([workload.name for workload in suite] for suite in (SUITE, QUICK))
NAMES = (*WORKLOADS, *(key.replace("_", "-") for key in PARTS))
QUICK_EXTRAS = ("drop-in", "busy", "end-to-end")
Parts = dict[str, tuple[str, Callable[[Announce], Result]]]  # Titles and measuring functions.


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the options of `mlp-xp bench`."""
    try:
        args = parse_command(["bench", *(sys.argv[1:] if argv is None else argv)])
        check(args)
    except ValueError as error:
        print(f"mlp-xp: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    args.rounds = args.rounds or (5 if args.quick else 7)
    args.threads = args.threads or usable_cpus()
    return args


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for an unknown part or contender."""
    known = [*dict.fromkeys((*NAMES, *KEYS))]
    for name in (word.partition("/")[0] for word in args.only or []):
        if name not in known:
            raise ValueError(f"no part is called {name!r}: choose from {', '.join(known)}")
        if args.quick and name not in (*QUICK_WORKLOADS, *KEYS):
            quick = ", ".join(QUICK_WORKLOADS)
            raise ValueError(f"--only {name} is not part of a quick run, which contains {quick}")
    names = {name for workload in SUITE for name in entries(workload)}
    for name in args.contenders or []:
        if name not in names:
            typed = "; ".join(f'"{known_name}"' for known_name in sorted(names))
            raise ValueError(f"no contender is called {name!r}: choose from {typed}")


def parts_of(args: argparse.Namespace, scratch: Path) -> Parts:
    """Return the selected parts in order."""
    suite, usual = (QUICK, [*QUICK_WORKLOADS, *QUICK_EXTRAS]) if args.quick else (SUITE, NAMES)
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
    print_tables(head_of(result), tables_of(result), OURS)
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


def head_of(result: Result) -> list[str]:
    """Return the first lines of the terminal output of a run."""
    settings = result["settings"]
    run = f"{'quick run' if settings['quick'] else 'run'} of {count(settings['rounds'], 'round')}"
    facts = [run, count(settings["threads"], "thread"), result["environment"]["cpu"]]
    times = f"times ours: the time of a contender / {OURS}; above 1, mlp_xp is faster."
    return [", ".join(facts), *([times] if result["workloads"] else [])]


def tables_of(result: Result) -> list[Table]:
    """Return the tables of a run."""
    found = [workload_table(run) for run in result["workloads"].values()]
    for key, part in ALL.items():
        found += part.tables(result[key]) if result.get(key) else []
    return [*found, *([own] if (own := targets(result)).rows else [])]


if __name__ == "__main__":
    sys.exit(main())
