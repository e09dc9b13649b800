"""This library and its peers in one run: times, memory, and the share of the roofline.

    python bench/suite.py --quick
    python bench/suite.py --out results/bench

`mlp-xp bench` runs this file. It writes result.json, report.md and charts into a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from busy import CASES as BUSY_CASES
from busy import busy_turns, measure_busy
from charts import draw
from contenders import Entry, entries
from drop_in import comparisons, drop_in_turns, measure_drop_in
from end_to_end import measure_end_to_end
from environment import environment, usable_cpus
from growth import growth_turns, measure_growth
from progress import open_progress
from rates import COPIED, METERS, OPERATIONS
from regressions import FLOORS, shortfalls
from roofline import roofline, state_bytes
from searches import measure_search, search_turns
from spread import spread
from startup import measure_startup, startup_turns
from tables import report
from terminal import print_tables
from turns import Announce, Job, Result, measure, prepare, set_threads
from workloads import QUICK, SUITE, Workload

__all__ = ["PARTS", "main"]

HERE = Path(__file__).parent
EXTRAS = ("drop-in", "search", "busy", "start-up", "end-to-end", "growth")
PARTS = (*(workload.name for workload in SUITE), *EXTRAS)
QUICK_EXTRAS = ("drop-in", "busy", "end-to-end")
QUICK_BUSY = ["small"]
EPOCHS = 12  # Of the end-to-end training: the default of `mlp-xp train`.


class Part(NamedTuple):
    """A part of a run: how many turns it announces, and the function that measures it."""

    title: str
    n_turns: int
    measure: Callable[[Announce], Result]


def parts_of(args: argparse.Namespace, scratch: Path) -> dict[str, Part]:
    """Return the parts that the options choose, in their order."""
    suite = QUICK if args.quick else SUITE
    names = args.only or [w.name for w in suite] + [*(QUICK_EXTRAS if args.quick else EXTRAS)]
    rounds, threads = args.rounds, args.threads
    epochs = 2 if args.quick else EPOCHS
    parts = {w.name: workload_part(w, args) for w in suite if w.name in names}
    cases = comparisons(quick=args.quick)
    busy = min(rounds, 3), QUICK_BUSY if args.quick else [*BUSY_CASES]
    extras = {
        "drop-in": (drop_in_turns(cases, rounds), partial(measure_drop_in, cases, rounds)),
        "search": (search_turns(rounds), partial(measure_search, rounds)),
        "busy": (busy_turns(*busy), partial(measure_busy, *busy)),
        "start-up": (startup_turns(rounds), partial(measure_startup, rounds)),
        "end-to-end": (2, partial(measure_end_to_end, scratch, epochs, threads)),
        "growth": (growth_turns(3), partial(measure_growth, scratch, 3, threads)),
    }
    return parts | {name: Part(name, *extras[name]) for name in EXTRAS if name in names}


def workload_part(workload: Workload, args: argparse.Namespace) -> Part:
    """Return the part that measures a workload, with the chosen contenders and rate meters."""
    if args.images is not None:
        size = min(args.images, workload.n_images)
        batch = size if workload.solver == "descent" else workload.batch_size
        workload = workload._replace(n_images=size, batch_size=batch)
    chosen = {
        name: entry
        for name, entry in entries(workload, quick=args.quick).items()
        if args.contenders is None or name in args.contenders
    }
    meters = {name: entry for name, entry in METERS.items() if entry.quick or not args.quick}
    return Part(
        workload.title,
        (len(chosen) + len(meters)) * (args.rounds + 1),
        partial(measure_workload, workload, chosen, meters, args.rounds, args.threads),
    )


def measure_workload(
    workload: Workload,
    chosen: dict[str, Entry],
    meters: dict[str, Entry],
    rounds: int,
    threads: int,
    announce: Announce,
) -> Result:
    """Return the results of contenders and rate meters, measured in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        facts = prepare(workload, Path(scratch))
        jobs = {
            name: Job(entry, workload, Path(scratch), threads) for name, entry in chosen.items()
        }
        # A meter is run as a training workload and uses only its threads.
        plain = workload._replace(kind="train")
        jobs |= {name: Job(entry, plain, Path(scratch), threads) for name, entry in meters.items()}
        results = measure(jobs, rounds, announce)
    machine = {name: results.pop(name) for name in meters}
    for name, entry in chosen.items():
        results[name] |= {"precision": entry.precision, "data": entry.data}
    medians = {
        name: spread(meter["seconds"]).median
        for name, meter in machine.items()
        if "cannot_run" not in meter
    }
    fastest = min((name for name in medians if name.startswith("product")), key=medians.get)
    product_rate, copy_rate = OPERATIONS / medians[fastest], COPIED / medians["copy"]
    bound = roofline(workload, facts["images"], product_rate, copy_rate)
    return {
        **workload._asdict(),
        **facts,
        "title": workload.title,
        "steps": -(-facts["images"] // workload.batch_size),
        "state_bytes": state_bytes(workload.widths, workload.solver),
        "machine": machine,
        "floor": {
            **bound._asdict(),
            "seconds": bound.seconds,
            "product": fastest,
            "product_rate": product_rate,
            "copy_rate": copy_rate,
        },
        "contenders": results,
    }


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of `mlp-xp`."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mlp-xp: error: {message} (see mlp-xp bench --help)\n")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="mlp-xp bench", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="few contenders, little data, two to three minutes")
    add("--out", type=Path, metavar="DIR", help="folder to write to (bench/history/<date>)")
    add("--rounds", type=int, help="turns of each contender (7, quick 5)")
    add("--threads", type=int, default=usable_cpus(), help="of each contender (all CPUs)")
    add("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    add("--contenders", nargs="+", metavar="NAME", help="names as in the tables")
    add("--images", type=int, help="most images per epoch")
    add("--check", action="store_true", help="fail where a ratio to a peer is below its floor")
    args = parser.parse_args(argv)
    if args.rounds is None:
        args.rounds = 5 if args.quick else 7
    for name in ("rounds", "threads", "images"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}, and must be at least 1")
    quick = [workload.name for workload in QUICK]
    for name in args.only or [] if args.quick else []:
        if name not in (*quick, *EXTRAS):
            parser.error(f"--only {name} is not in a quick run, which has {', '.join(quick)}")
    known = {name for workload in SUITE for name in entries(workload)}
    for name in args.contenders or []:
        if name not in known:
            typed = "; ".join(f'"{known_name}"' for known_name in sorted(known))
            parser.error(f"no contender is called {name!r}, expected some of {typed}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    set_threads(args.threads)
    # With it, a checkout is compiled again at every import.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    out = args.out or default_folder()
    out.mkdir(parents=True, exist_ok=True)
    names = ("quick", "rounds", "threads", "images")
    settings = {name: getattr(args, name) for name in names}
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
    print_tables(result)
    if args.quick and args.only is None:
        left_out = [name for name in PARTS if name not in parts]
        print(f"\nleft out by --quick: many contenders, {', '.join(left_out)}")
    print(f"\ntables, charts and every measured time: {out}")
    if args.check:
        problems = shortfalls(result, json.loads(FLOORS.read_text()))
        print("\n".join(problems or ["Every ratio to a peer is at or above its floor."]))
        return 1 if problems else 0
    return 0


def measure_parts(parts: dict[str, Part], result: Result, out: Path) -> None:
    """Measure the parts in turn, and write what is known after each."""
    keys = {"drop-in": "drop_in", "start-up": "startup", "end-to-end": "end_to_end"}
    with open_progress({name: part.n_turns for name, part in parts.items()}) as progress:
        for name, part in parts.items():
            progress.begin(name, part.title)
            measured = part.measure(progress.announce)
            if name in EXTRAS:
                result[keys.get(name, name)] = measured
            else:
                result["workloads"][name] = measured
            write(out, result)  # Keeps these results if a later part fails.
        progress.draw("drawing the charts")
        draw(result, out)


def default_folder() -> Path:
    """Return a folder in bench/history in a checkout, else in the current folder."""
    root = HERE / "history" if (HERE.parent / "pyproject.toml").is_file() else Path()
    return root / time.strftime("%Y-%m-%d-%H%M%S" if root.name else "bench-%Y-%m-%d-%H%M%S")


def write(out: Path, result: Result) -> None:
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "report.md").write_text(report(result), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
