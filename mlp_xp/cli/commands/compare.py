"""``mlp-xp runs`` and ``mlp-xp compare``: list runs, and compare them."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlp_xp._utils.optional import check_installed
from mlp_xp._utils.storage.durable import make_folder
from mlp_xp.cli.commands import COLUMNS
from mlp_xp.cli.run_folder.run_summary import RunSummary, date_of, find_runs, read_summary
from mlp_xp.cli.terminal.lines import print_line, printable, terminal_width
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import number_text, readable, score_name, score_text, seconds_text

_WIDEST = 32  # The maximum number of characters in a table cell.
_NETWORK = ("hidden_layer_sizes", "activation", "solver")
_NUMBERS = {"score", "epochs", "seconds", "speed"}


def run_runs(args: argparse.Namespace, output: Output) -> int:
    """Print one line for each run in a folder."""
    rows = [_row(folder, run) for folder, run in find_runs(args.folder)]
    if not rows:
        raise ValueError(
            f"{args.folder} contains no runs: type another folder, or start a run with "
            "`mlp-xp train`"
        )
    is_text = args.sort in ("run", "data", "backend", "network")
    known = [row for row in rows if row[args.sort] is not None]
    known.sort(key=lambda row: row[args.sort], reverse=args.reverse is is_text)
    rows = known + [row for row in rows if row[args.sort] is None]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_runs([COLUMNS, *([_cell(row, name) for name in COLUMNS] for row in rows)])
    return 0


def run_compare(args: argparse.Namespace, output: Output) -> int:
    """Print the differences between runs, and write a page with their learning curves."""
    if len(args.runs) < 2:
        raise ValueError(f"{args.runs[0]} is a single run: type two or more runs to compare")
    check_installed("matplotlib")
    runs = [read_summary(folder) for folder in args.runs]
    names = _names(args.runs)
    results, settings = _results(runs), _differences(runs)
    _print_comparison([["", *names], *results, *settings])
    from mlp_xp.cli.report import write_comparison  # This import is slow.

    make_folder(args.out.parent)
    write_comparison(args.out, dict(zip(names, runs, strict=True)), results, settings)
    print_line(f"curves in {args.out}")
    return 0


def _row(folder: Path, run: RunSummary | None) -> dict[str, Any]:
    """Return the table row of a run by column name; unknown values are None."""
    row: dict[str, Any] = {"run": folder.name, "date": date_of(folder)}
    if run is None:
        others = dict.fromkeys((*COLUMNS[2:], "score_name"))
        return {**row, **others, "folder": str(folder), "state": "damaged"}
    result, params = run.result, run.params
    score_name, score = next(iter(run.scores.items()), (None, None))
    return {
        **row,
        "data": run.data,
        "score": score,
        "epochs": result.get("epochs", len(run.history) or None),
        "seconds": result.get("seconds"),
        "speed": result.get("images_per_second"),
        "backend": run.config["backend"].get("name"),
        # An object is shown as the name of its class.
        "network": " ".join(readable(params.get(name)).partition("(")[0] for name in _NETWORK),
        "score_name": score_name,
        "folder": str(folder),
        "state": run.state,
    }


def _cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return row["state"] if name == "score" else ""
    if name == "score":
        return score_text(row["score_name"], value)
    if name == "seconds":
        return seconds_text(value)
    if name == "speed":
        return f"{number_text(value)}/s"
    if name == "epochs" and row["state"] == "interrupted":
        return f"{value}, interrupted"
    return str(value)


def _names(folders: Sequence[Path]) -> list[str]:
    names = [folder.absolute().name for folder in folders]
    return names if len({*names}) == len(names) else list(map(str, folders))


def _results(runs: Sequence[RunSummary]) -> list[list[str]]:
    names = dict.fromkeys(name for run in runs for name in run.scores) or ["test_score"]
    rows = [_row(run.folder, run) for run in runs]
    return [
        *([score_name(name), *(_score_cell(run, name) for run in runs)] for name in names),
        ["epochs", *(_cell(row, "epochs") for row in rows)],
        ["training", *(_cell(row, "seconds") for row in rows)],
        ["samples per second", *(_cell(row, "speed") for row in rows)],
    ]


def _score_cell(run: RunSummary, name: str) -> str:
    if not run.scores:
        return "not ended"
    return score_text(name, run.scores[name]) if name in run.scores else ""


def _differences(runs: Sequence[RunSummary]) -> list[list[str]]:
    """Return a row for each setting, machine property or version that differs between the runs."""
    settings = [_settings(run) for run in runs]
    names = dict.fromkeys(name for found in settings for name in found)
    rows = [[name, *(found.get(name, "") for found in settings)] for name in names]
    return [row for row in rows if len({*row[1:]}) > 1]


def _settings(run: RunSummary) -> dict[str, str]:
    config = run.config
    found = {name: value for name, value in config["settings"].items() if name != "params"}
    found |= run.params
    # Sorted, because a process lists its thread pools in arbitrary order.
    found |= {
        f"backend: {name}": "; ".join(sorted(str(value).split("; ")))
        for name, value in config["backend"].items()
    }
    found |= {f"version: {name}": value for name, value in config.get("versions", {}).items()}
    found["platform"] = config.get("platform")
    return {name: readable(value) for name, value in found.items()}


def _fit_columns(rows: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[int]]:
    """Return the cells, shortened and escaped for printing, and the column widths."""
    cells = [[_shorten(printable(cell)) for cell in row] for row in rows]
    return cells, [max(map(len, column)) for column in zip(*cells, strict=True)]


def _print_runs(rows: Sequence[Sequence[str]]) -> None:
    """Print a table of runs with right-aligned numbers; omit columns that exceed the terminal."""
    cells, widths = _fit_columns(rows)
    room = terminal_width(sys.stdout)
    ends = [*itertools.accumulate(width + 2 for width in widths)]
    n_shown = sum(room is None or end - 2 <= room for end in ends)
    for row in cells:
        columns = (
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for cell, width, name in zip(row, widths, COLUMNS, strict=True)
        )
        print("  ".join([*columns][: max(n_shown, 1)]).rstrip())


def _print_comparison(rows: Sequence[Sequence[str]]) -> None:
    """Print one column per run, or one line per run and row if the columns are too wide."""
    cells, widths = _fit_columns(rows)
    room = terminal_width(sys.stdout)
    if room is None or sum(widths) + 2 * len(widths) - 2 <= room:
        for row in cells:
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        return
    names = [printable(name) for name in rows[0][1:]]
    widest = max(map(len, names))
    for title, *values in rows[1:]:
        print_line(title)
        for name, value in zip(names, values, strict=True):
            print_line(f"  {name:{widest}}  {value}")


def _shorten(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
