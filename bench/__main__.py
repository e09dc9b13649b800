"""This library and its peers in one run: times, memory, and the share of the roofline.

`mlp-xp bench` runs this. It writes result.json, report.md and charts into a folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from bench.reports.charts import draw
from bench.reports.sections import PARTS, STUDIES, report
from bench.reports.targets import WANTED, shortfalls, targets
from bench.suite.contenders import OURS, entries
from bench.suite.progress import Progress
from bench.suite.records import HISTORY, Result, environment, usable_cpus, write
from bench.suite.side_by_side import workload_part, workload_table
from bench.suite.tables import Table, count, print_tables
from bench.suite.turns import Options, Part, set_threads
from bench.suite.workloads import QUICK, SUITE

KEYS = {key.replace("_", "-"): key for key in PARTS | STUDIES}
NAMES = (*(workload.name for workload in SUITE), *(key.replace("_", "-") for key in PARTS))
QUICK_EXTRAS = ("drop-in", "busy", "end-to-end")


def parts_of(args: argparse.Namespace, scratch: Path) -> dict[str, tuple[Part, Options]]:
    """Return the parts that the options choose, in their order, each with its options."""
    suite, extras = (QUICK, QUICK_EXTRAS) if args.quick else (SUITE, NAMES)
    chosen = args.only or [*(workload.name for workload in suite), *extras]
    cases: dict[str, list[str]] = {}
    for word in chosen:
        name, _, case = word.partition("/")
        cases.setdefault(name, []).append(case)
    options = Options(args.rounds, args.threads, scratch, args.quick, args.images, args.contenders)
    known = {workload.name: workload_part(workload, options) for workload in suite}
    known |= {name: (PARTS | STUDIES)[key] for name, key in KEYS.items()}
    return {
        name: (part, options._replace(cases=() if "" in cases[name] else tuple(cases[name])))
        for name, part in known.items()
        if name in cases
    }


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as in `mlp-xp`."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mlp-xp: error: {message} (see mlp-xp bench --help)\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="mlp-xp bench", description=__doc__.splitlines()[0])
    add = parser.add_argument
    more = ", ".join(name for name in KEYS if name not in NAMES)
    add("--quick", action="store_true", help="few contenders, little data, two to three minutes")
    add("--out", type=Path, metavar="DIR", help="folder to write to (bench/history/<date>)")
    add("--rounds", type=int, help="turns of each contender (7, quick 5)")
    add("--threads", type=int, default=usable_cpus(), help="of each contender (all CPUs)")
    add("--only", nargs="+", metavar="PART", help=f"{', '.join(NAMES)} (all); {more}")
    add("--contenders", nargs="+", metavar="NAME", help="names as in the tables")
    add("--images", type=int, help="most images per epoch")
    add("--check", action="store_true", help="fail where a ratio to a peer is below its floor")
    args = parser.parse_args(argv)
    if args.rounds is None:
        args.rounds = 5 if args.quick else 7
    for name in ("rounds", "threads", "images"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    quick = [workload.name for workload in QUICK]
    known = [*dict.fromkeys((*NAMES, *KEYS))]
    for name in (word.partition("/")[0] for word in args.only or []):
        if name not in known:
            parser.error(f"no part is called {name!r}: choose some of {', '.join(known)}")
        if args.quick and name not in (*quick, *KEYS):
            parser.error(f"--only {name} is not in a quick run, which has {', '.join(quick)}")
    names = {name for workload in SUITE for name in entries(workload)}
    for name in args.contenders or []:
        if name not in names:
            typed = "; ".join(f'"{known_name}"' for known_name in sorted(names))
            parser.error(f"no contender is called {name!r}: choose some of {typed}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    set_threads(args.threads)
    # With it, a checkout is compiled again at every import.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    out = args.out or HISTORY / time.strftime("%Y-%m-%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in ("quick", "rounds", "threads", "images")}
    result: Result = {"environment": environment(), "settings": settings, "workloads": {}}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            parts = parts_of(args, Path(scratch))
            measure_parts(parts, result, out)
    except KeyboardInterrupt:
        if (out / "report.md").exists():
            print(f"interrupted; what was measured is in {out}", file=sys.stderr)
        else:
            out.rmdir()
        return 130
    print_tables(head_of(result), tables_of(result), bold=OURS)
    if args.quick and args.only is None:
        left_out = [name for name in NAMES if name not in parts]
        print(f"\nleft out by --quick: many contenders, {', '.join(left_out)}")
    print(f"\ntables, charts and every measured time: {out}")
    if args.check:
        problems = shortfalls(result, WANTED["floors"])
        print("\n".join(problems or ["Every ratio to a peer is at or above its floor."]))
        return 1 if problems else 0
    return 0


def measure_parts(parts: dict[str, tuple[Part, Options]], result: Result, out: Path) -> None:
    """Measure the parts in turn, and write what is known after each."""
    turns = {name: part.n_turns(options) for name, (part, options) in parts.items()}
    with Progress(turns) as progress:
        for name, (part, options) in parts.items():
            progress.begin(name, part.title)
            measured = part.measure(options, progress.announce)
            if name in KEYS:
                result[KEYS[name]] = measured
            else:
                result["workloads"][name] = measured
            # Keeps these results if a later part fails.
            write(out / "result.json", result)
            (out / "report.md").write_text(report(result), encoding="utf-8")
        progress.draw("drawing the charts")
        draw(result, out)


def head_of(result: Result) -> list[str]:
    """Return what the tables of a run begin with."""
    settings = result["settings"]
    run = f"{'quick run' if settings['quick'] else 'run'} of {count(settings['rounds'], 'round')}"
    facts = [run, count(settings["threads"], "thread"), result["environment"]["cpu"]]
    times = (
        f"times ours: a contender's time divided by the time of {OURS}; above 1, mlp_xp is faster."
    )
    return [", ".join(facts), *([times] if result["workloads"] else [])]


def tables_of(result: Result) -> list[Table]:
    """Return the tables of a run."""
    found = [workload_table(workload) for workload in result["workloads"].values()]
    for key, part in (PARTS | STUDIES).items():
        found += part.tables(result[key]) if result.get(key) else []
    return [*found, *([own] if (own := targets(result)).rows else [])]


if __name__ == "__main__":
    sys.exit(main())
