"""The options of ``mlp-xp runs`` and ``mlp-xp compare``."""

from __future__ import annotations

from pathlib import Path

from mlp_xp.cli.options import Parser

__all__ = ["COLUMNS", "add_compare", "add_runs"]

# Of the table of runs, and what --sort takes.
COLUMNS = ("run", "date", "data", "score", "epochs", "seconds", "speed", "backend", "network")


def add_runs(parser: Parser) -> None:
    """Add the options of ``mlp-xp runs``."""
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path("runs"), metavar="FOLDER", help="(runs)")
    add(
        "--sort",
        choices=COLUMNS,
        default="date",
        metavar="COLUMN",
        help=f"{', '.join(COLUMNS)}; the largest number and the newest first (date)",
    )
    add("--reverse", action="store_true", help="the other way round")
    add("--json", action="store_true", help="print the table as JSON, with unrounded numbers")


def add_compare(parser: Parser) -> None:
    """Add the options of ``mlp-xp compare``."""
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="two or more folders of runs")
    add(
        "--out",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="the page with curves (%(default)s); an old one is replaced",
    )
