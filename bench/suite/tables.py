"""Tables, with renderers for Markdown pages and for terminals."""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.suite.records import Result

NOT_COMPARED = "not compared"
# A reason why a contender cannot run: a missing package.
NOT_INSTALLED = r"ModuleNotFoundError: No module named '(\w+)[\w.]*'|(\w+) is not installed"


class Table(NamedTuple):
    """A table with columns in order of importance; narrow terminals omit the last columns."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]
    missing: dict[str, str] = {}  # noqa: RUF012 - why each missing name could not be compared
    note: str = ""
    terms: str = ""  # Explains the table on pages.


class Spread(NamedTuple):
    """Median and quartiles of some measurements."""

    median: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """The interquartile range."""
        return self.high - self.low


def spread(values: Sequence[float]) -> Spread:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, low, high)


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Return the spread of the ratios per turn, because a slow turn affects both contenders."""
    # A failed contender has fewer turns.
    return spread([a / b for a, b in zip(theirs, ours, strict=False)])


def seconds(value: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def median(times: Sequence[float] | None) -> str:
    return seconds(spread(times).median) if times else NOT_COMPARED


def quartiles(times: Sequence[float]) -> str:
    return " to ".join(map(seconds, spread(times)[1:]))


def times(theirs: Any, ours: Any, wanted: float | None = None, *, short: bool = False) -> str:
    """Return the ratio of their time to ours, with quartiles or short; bold if below the target."""
    if not theirs or not ours:
        return NOT_COMPARED
    got = ratio(theirs, ours)
    text = f"{got.median:.2f}" if short else ratio_text(got)
    return text if wanted is None or got.median >= wanted else f"**{text}**"


def ratio_text(got: Spread) -> str:
    return f"{got.median:.2f} ({got.low:.2f} to {got.high:.2f})"


def megabytes(run: Result) -> str:
    return f"{run['peak_bytes'] / 1e6:,.0f}" if run.get("peak_bytes") else ""


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def bold_least(values: Sequence[float], form: str) -> list[str]:
    """Return numbers as cells, with the smallest in bold."""
    return [f"**{v:{form}}**" if v == min(values) else f"{v:{form}}" for v in values]


def contender_table(
    title: str, columns: list[str], runs: Result, cells: Callable[..., list[str]], **more: str
) -> Table:
    """Return the table of the contenders that ran, and the reasons why others did not."""
    ran = {name: run for name, run in runs.items() if "cannot_run" not in run}
    missing = reasons(runs) if runs else {"the chosen contenders": "they are not in this part"}
    rows = [[name, *cells(name, run)] for name, run in ran.items()]
    return Table(title, columns, rows, missing, **more)


def measured(runs: Result) -> dict[str, list[float]]:
    """Return the seconds of each contender that ran, by name."""
    return {name: run["seconds"] for name, run in runs.items() if "seconds" in run}


def reasons(runs: Result) -> dict[str, str]:
    return {name: run["cannot_run"] for name, run in runs.items() if "cannot_run" in run}


def markdown(table: Table, heading: str = "", fold: str = "") -> str:
    """Return a table in Markdown after its heading, note and terms; collapse it under ``fold``."""
    rows = grid(table.columns, table.rows)
    missing = [f"- {name} cannot run here: {reason}" for name, reason in table.missing.items()]
    rows = folded(fold, rows) if fold else rows
    return paragraphs(heading, table.note, table.terms, rows, "\n".join(missing))


def paragraphs(*texts: str) -> str:
    """Join all texts that are not empty."""
    return "\n\n".join(filter(None, texts))


def grid(columns: Sequence[str], rows: list[list[str]]) -> str:
    """Return rows in Markdown; columns of numbers are right-aligned."""
    if not rows:
        return ""
    number = re.compile(r"(\*\*)?[-<\d]|at |not |cannot |$")
    rule = ["--:" if all(map(number.match, cells)) else "---" for cells in zip(*rows, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, rule, *rows])


def folded(summary: str, text: str) -> str:
    """Return collapsed Markdown, which a click on the summary opens."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def replace_block(page: str, name: str, text: str) -> str:
    """Replace the text between ``<!-- name -->`` and ``<!-- end of name -->`` in a page."""
    block = re.compile(f"(<!-- {name} -->\n).*(<!-- end of {name} -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def print_tables(head: list[str], tables: list[Table], bold: str = "") -> None:
    """Print tables for a pipe or a terminal of any width, with one contender's row in bold."""
    from rich.console import Console  # Here: a peer's process must load only the peer.

    from mlp_xp._utils.optional import install_command
    from mlp_xp.cli.terminal.lines import printable

    is_terminal = sys.stdout.isatty()
    # Output to a pipe has all columns and complete lines.
    shown = {"force_terminal": is_terminal, "width": None if is_terminal else 10_000}
    console = Console(**shown, highlight=False, markup=False, emoji=False)
    for line in head:
        console.print(line, style="dim")
    packages = set()
    for table in tables:
        console.print(f"\n{table.title}", style="bold")
        if table.note:
            console.print(table.note, style="dim")
        if table.rows:
            console.print(_drawn(table, console, bold))
        for name, reason in table.missing.items():
            if found := re.fullmatch(NOT_INSTALLED, reason):
                packages.add(package := found[1] or found[2])
                reason = f"{package} is not installed"
            console.print(f"{name}  {NOT_COMPARED}: {printable(reason)}", style="yellow")
    if packages:
        names = ", ".join(sorted(packages))
        console.print(f"\nto compare with {names} too: {install_command('peers')}")


def _drawn(table: Table, console: Any, bold: str) -> Any:
    """Return a rich table with the columns that fit the console."""
    from rich import box
    from rich.table import Table as Grid

    # Columns are separated by a space of the box and their padding.
    drawn = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column(table.columns[0])
    for name in table.columns[1:]:
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        cells = [cell.replace("**", "") for cell in row]
        drawn.add_row(*cells, style="bold" if row[0] == bold else "")
    wide = console.options.update(width=10_000)  # Measurements are at most this width.
    while len(drawn.columns) > 2 and console.measure(drawn, options=wide).minimum > console.width:
        drawn.columns.pop()
    return drawn
