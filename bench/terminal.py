"""The tables of a run for a terminal of any width, or for a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

import drop_in
import searches
from busy import HEADER, busy_rows
from contenders import OURS
from report import seconds
from spread import Spread, ratio, spread
from targets import targets
from turns import Result

__all__ = ["Table", "print_tables", "tables_of"]

_GAP = 2  # Spaces between columns.
_NAMES = 20  # Least width of the first column; it wraps.
_MARK = "not compared"
_TIMES = f"times ours: a contender's time divided by that of {OURS}; above 1, mlp_xp is faster."


class Table(NamedTuple):
    """A table: columns are in order of importance, and the last are left out where it is narrow.

    ``missing`` has the reason for each name that could not be compared.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    missing: dict[str, str]
    note: str = ""


def print_tables(result: Result, file: TextIO | None = None) -> None:
    """Print the tables of a run, and what is not compared and why."""
    from rich.console import Console  # As in `progress`.
    from rich.text import Text

    file = sys.stdout if file is None else file
    is_terminal = file.isatty()
    console = Console(
        file=file,
        force_terminal=is_terminal,
        # A pipe gets all columns, and no line is cut.
        width=None if is_terminal else 10_000,
        highlight=False,
    )
    settings = result["settings"]
    facts = [
        f"{'quick run' if settings['quick'] else 'run'} of {_count(settings['rounds'], 'round')}",
        _count(settings["threads"], "thread"),
        result["environment"]["cpu"],
    ]
    console.print(Text(", ".join(facts), style="dim"))
    tables = [*tables_of(result)]
    if result["workloads"]:
        console.print(Text(_TIMES, style="dim"))
    for table in tables:
        console.print()
        console.print(Text(table.title, style="bold"))
        if table.note:
            console.print(Text(table.note, style="dim"))
        console.print(_drawn(table, console.width))
    missing = {reason for table in tables for reason in table.missing.values()}
    if packages := sorted(filter(None, map(_package, missing))):
        from mlp_xp._utils.optional import install_command

        console.print()
        names = ", ".join(packages)
        console.print(Text(f"to compare with {names} too: {install_command('peers')}"))


def tables_of(result: Result) -> Iterator[Table]:
    """Yield the tables of a run."""
    for workload in result["workloads"].values():
        yield _workload_table(workload)
    if cases := result.get("drop_in"):
        yield _drop_in_table(cases)
    for search in result.get("search", {}).values():
        yield _search_table(search)
    if busy := result.get("busy"):
        yield Table("beside a program that keeps a processor busy", HEADER, busy_rows(busy), {})
    if startup := result.get("startup"):
        yield _startup_table(startup)
    if whole := result.get("end_to_end"):
        yield _end_to_end_table(whole)
    for title, points in result.get("growth", {}).items():
        yield _growth_table(title, points)
    if found := targets(result):
        rows = [[t.name, "yes" if t.met else "no", t.measured, t.wanted] for t in found]
        yield Table("targets", ["measure", "met", "measured", "target"], rows, {})


def _workload_table(workload: Result) -> Table:
    runs = workload["contenders"]
    unit = "epoch" if workload["kind"] == "train" else "call"
    ours = runs.get(OURS, {}).get("seconds")

    def cells(run: Result) -> list[str]:
        own = spread(run["seconds"])
        return [
            seconds(own.median),
            f"{ratio(run['seconds'], ours).median:.2f}" if ours else _MARK,
            f"{workload['images'] / own.median:,.0f}",
            f"{workload['floor']['seconds'] / own.median:.0%}",
            f"{run['peak_bytes'] / 1e6:,.0f}" if run.get("peak_bytes") else "",
            _range(own),
        ]

    header = ["contender", unit, "times ours", "images/s", "of roofline", "peak MB", "quartiles"]
    images = f"{_count(workload['images'], 'image')} of {workload['data']}"
    note = f"{images} in each {unit}; roofline {seconds(workload['floor']['seconds'])}"
    return _table(workload["title"], header, runs, cells, note)


def _drop_in_table(cases: Result) -> Table:
    rows, missing = [], {}
    has_plain = any(drop_in.PLAIN in case["contenders"] for case in cases.values())
    for case in cases.values():
        name = f"{case['case']}, {case['threads']} thread{'s' * (case['threads'] != '1')}"
        runs = case["contenders"]
        known = {who: run["seconds"] for who, run in runs.items() if "seconds" in run}
        theirs, ours = known.get(drop_in.PEER), known.get(OURS)
        plain = known.get(drop_in.PLAIN)
        for who, run in runs.items():
            if "cannot_run" in run:
                missing[f"{name}: {who}"] = _reason(run)
        cells = [_median(ours), _median(theirs), _times(theirs, ours), f"{case['wanted']:g}"]
        rows.append([name, *cells, *([_times(theirs, plain)] if has_plain else [])])
    header = ["script", "mlp_xp", "scikit-learn", "times ours", "target"]
    header += ["times without numba"] if has_plain else []
    return Table("as a drop-in for scikit-learn", header, rows, missing)


def _search_table(search: Result) -> Table:
    ours = search["contenders"][searches.OURS].get("seconds")

    def cells(run: Result) -> list[str]:
        memory = f"{spread(run['bytes']).median / 2**20:.0f} MiB"
        return [_median(run["seconds"]), _times(run["seconds"], ours), memory]

    header = ["contender", "time", "times ours", "memory"]
    return _table(f"search: {search['title']}", header, search["contenders"], cells)


def _startup_table(startup: Result) -> Table:
    steps = startup["first_steps"]
    rows, missing = [], {}
    for name, run in startup["imports"].items():
        if "cannot_run" in run:
            missing[name] = _reason(run)
            continue
        own = spread(run["seconds"])
        step = steps.get(OURS if name == "mlp_xp" else name, {}).get("seconds")
        rows.append([name, seconds(own.median), _median(step) if step else "", _range(own)])
    header = ["library", "import", "first step", "quartiles of the import"]
    return Table("start-up, in a new process", header, rows, missing)


def _end_to_end_table(whole: Result) -> Table:
    def cells(run: Result) -> list[str]:
        times = [seconds(run["seconds"]), seconds(run["training_seconds"])]
        peak = f"{run['peak_bytes'] / 1e6:,.0f}" if run.get("peak_bytes") else ""
        return [*times, f"{run['test_accuracy']:.2%}", peak]

    header = ["run", "total", "training", "test accuracy", "peak MB"]
    runs = {"CIFAR-10": whole} if "cannot_run" in whole else whole["runs"]
    epochs = f" for {whole['epochs']} epochs" if "epochs" in whole else ""
    return _table(f"end to end: the default network on CIFAR-10{epochs}", header, runs, cells)


def _growth_table(title: str, points: list[Result]) -> Table:
    rows, missing = [], {}
    for who in points[0]["contenders"]:
        runs = [point["contenders"][who] for point in points]
        if all("cannot_run" in run for run in runs):
            missing[who] = _reason(runs[0])
            continue
        rows.append([who, *(_median(run.get("seconds")) for run in runs)])
        for point, run in zip(points, runs, strict=True):
            if "cannot_run" in run:
                missing[f"{who}, {point['value']:,}"] = _reason(run)
    header = ["contender", *(f"{point['value']:,}" for point in points)]
    return Table(f"seconds of an epoch by {title}", header, rows, missing)


def _table(
    title: str,
    header: list[str],
    runs: Result,
    cells: Callable[[Result], list[str]],
    note: str = "",
) -> Table:
    """Return the table of contenders: those that ran, and why others did not."""
    ran = {name: run for name, run in runs.items() if "cannot_run" not in run}
    missing = {name: _reason(run) for name, run in runs.items() if "cannot_run" in run}
    if not runs:
        missing = {"the chosen contenders": "they take no part in this"}
    rows = [[name, *cells(run)] for name, run in ran.items()]
    return Table(title, header, rows, missing, note)


def _drawn(table: Table, width: int) -> Any:
    """Return the table as an object of rich, no wider than so many characters."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    columns = [*zip(table.header, *table.rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    names = max([widths[0] if table.rows else 0, *map(len, table.missing)])
    n_shown = len(widths)
    while n_shown > 2 and min(names, _NAMES) + _used(widths[1:n_shown]) > width:
        n_shown -= 1
    first = max(min(names, width - _used(widths[1:n_shown] if table.rows else [_NAMES])), 8)
    # Columns are a space of the box apart, beside their padding.
    drawn = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column(table.header[0], width=first)
    for name in table.header[1:n_shown]:
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        style = "bold" if row[0] == OURS else ""
        drawn.add_row(*(Text(cell) for cell in row[:n_shown]), style=style)
    reasons = Grid.grid(padding=(0, _GAP, 0, 0))
    reasons.add_column(width=first)
    reasons.add_column()
    for name, reason in table.missing.items():
        reasons.add_row(Text(name), Text(f"{_MARK}: {reason}", style="yellow"))
    return Group(*([drawn] if table.rows else []), *([reasons] if table.missing else []))


def _used(widths: list[int]) -> int:
    return sum(widths) + _GAP * len(widths)


def _reason(run: Result) -> str:
    """Return why a contender did not run, for a reader."""
    from mlp_xp.cli.process import printable

    package = _package(run["cannot_run"])
    return f"{package} is not installed" if package else printable(run["cannot_run"])


def _package(reason: str) -> str | None:
    """Return the package that is not installed, if that is the reason."""
    found = re.fullmatch(
        r"ModuleNotFoundError: No module named '(\w+)[\w.]*'|(\w+) is not installed", reason
    )
    return None if found is None else found[1] or found[2]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _median(times: list[float] | None) -> str:
    return _MARK if times is None else seconds(spread(times).median)


def _times(theirs: list[float] | None, ours: list[float] | None) -> str:
    return f"{ratio(theirs, ours).median:.2f}" if theirs and ours else _MARK


def _range(own: Spread) -> str:
    return f"{seconds(own.low)} to {seconds(own.high)}"
