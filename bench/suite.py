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
from pathlib import Path

from charts import draw
from contenders import Entry, entries
from drop_in import measure_drop_in
from end_to_end import measure_end_to_end
from environment import environment, usable_cpus
from growth import measure_growth
from rates import COPIED, METERS, OPERATIONS
from regressions import FLOORS, shortfalls
from roofline import roofline, state_bytes
from searches import measure_search
from spread import spread
from startup import measure_startup
from tables import report
from turns import Job, Result, measure, prepare, say, set_threads
from workloads import QUICK, SUITE, Workload

__all__ = ["main"]

HERE = Path(__file__).parent
EXTRAS = ("drop-in", "search", "start-up", "end-to-end", "growth")
EPOCHS = 12  # Of the end-to-end training: the default of `mlp-xp train`.


def measure_workload(
    workload: Workload, chosen: dict[str, Entry], rounds: int, threads: int, *, quick: bool
) -> Result:
    """Return the results of contenders and rate meters, measured in turns."""
    say(workload.title)
    meters = {name: entry for name, entry in METERS.items() if entry.quick or not quick}
    with tempfile.TemporaryDirectory() as scratch:
        facts = prepare(workload, Path(scratch))
        jobs = {
            name: Job(entry, workload, Path(scratch), threads) for name, entry in chosen.items()
        }
        # A meter is run as a training workload and uses only its threads.
        plain = workload._replace(kind="train")
        jobs |= {name: Job(entry, plain, Path(scratch), threads) for name, entry in meters.items()}
        results = measure(jobs, rounds)
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


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="few contenders, little data, about two minutes")
    add("--out", type=Path, metavar="DIR", help="folder to write to (bench/history/<date>)")
    add("--rounds", type=int, help="turns of each contender (7, quick 5)")
    add("--threads", type=int, default=usable_cpus(), help="of each contender (all CPUs)")
    names = [workload.name for workload in SUITE]
    add("--only", nargs="+", choices=[*names, *EXTRAS], metavar="PART", help=", ".join(names))
    add("--contenders", nargs="+", metavar="NAME", help="names as in the tables")
    add("--images", type=int, help="most images per epoch")
    add("--check", action="store_true", help="fail where a ratio to a peer is below its floor")
    args = parser.parse_args(argv)
    if args.rounds is None:
        args.rounds = 5 if args.quick else 7
    for name in ("rounds", "threads", "images"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}, and must be at least 1")
    known = {name for workload in SUITE for name in entries(workload)}
    for name in args.contenders or []:
        if name not in known:
            parser.error(f"no contender is called {name!r}; there are {', '.join(sorted(known))}")
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
    parts = args.only or [w.name for w in (QUICK if args.quick else SUITE)]
    if args.only is None:
        parts += ["drop-in"] if args.quick else EXTRAS

    for workload in QUICK if args.quick else SUITE:
        if workload.name not in parts:
            continue
        if args.images is not None:
            size = min(args.images, workload.n_images)
            batch = size if workload.solver == "descent" else workload.batch_size
            workload = workload._replace(n_images=size, batch_size=batch)
        chosen = {
            name: entry
            for name, entry in entries(workload, quick=args.quick).items()
            if args.contenders is None or name in args.contenders
        }
        result["workloads"][workload.name] = measure_workload(
            workload, chosen, args.rounds, args.threads, quick=args.quick
        )
        write(out, result)  # Keeps these results if a later part fails.
    if "drop-in" in parts:
        result["drop_in"] = measure_drop_in(args.rounds, quick=args.quick)
    if "search" in parts:
        result["search"] = measure_search(args.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        if "start-up" in parts:
            result["startup"] = measure_startup(args.rounds)
        if "end-to-end" in parts:
            result["end_to_end"] = measure_end_to_end(Path(scratch), EPOCHS, args.threads)
        if "growth" in parts:
            result["growth"] = measure_growth(Path(scratch), 3, args.threads)
    write(out, result)
    draw(result, out)
    print((out / "report.md").read_text())
    print(f"Written: {out}", file=sys.stderr)
    if args.check:
        problems = shortfalls(result, json.loads(FLOORS.read_text()))
        print("\n".join(problems or ["Every ratio to a peer is at or above its floor."]))
        return 1 if problems else 0
    return 0


def default_folder() -> Path:
    """Return a folder in bench/history in a checkout, else in the current folder."""
    root = HERE / "history" if (HERE.parent / "pyproject.toml").is_file() else Path()
    return root / time.strftime("%Y-%m-%d-%H%M%S" if root.name else "bench-%Y-%m-%d-%H%M%S")


def write(out: Path, result: Result) -> None:
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "report.md").write_text(report(result), encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
