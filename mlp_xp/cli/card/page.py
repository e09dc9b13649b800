"""A model card as Markdown and as HTML, from the same sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlp_xp.cli.report import _elements as html
from mlp_xp.cli.terminal.lines import printable
from mlp_xp.cli.terminal.text import readable


class Section(NamedTuple):
    """A heading, a table of text, and a figure as SVG, which only HTML shows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 1
    figure: str = ""


def section_of(title: str, found: Any, n_text: int = 1, figure: str = "") -> Section:
    """Return a section with the entries of a mapping, or with a row for each mapping of a list."""
    if isinstance(found, Mapping):
        rows = [[_name(key), _text(value)] for key, value in found.items()]
        return Section(title, ("", ""), rows, 2, figure)
    keys = [*dict.fromkeys(key for row in found for key in row)]
    rows = [[_text(row.get(key)) for key in keys] for row in found]
    return Section(title, [*map(_name, keys)], rows, n_text, figure)


def _name(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else readable(value)


def as_html(title: str, sections: Sequence[Section]) -> list[str]:
    """Return the HTML elements of a card."""
    parts = [html.heading(title, "")]
    for one in sections:
        figure = html.figures({one.title: one.figure}) if one.figure else ""
        parts.append(html.section(one.title, html.table(one.header, one.rows, one.n_text), figure))
    return parts


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return a card as Markdown."""
    lines = [f"# {escape(title)}", ""]
    for title, header, rows, n_text, _ in sections:
        rule = ["---" if i < n_text else "---:" for i in range(len(header))]
        table = [[*map(escape, header)], rule, *([*map(escape, row)] for row in rows)]
        lines += [f"## {escape(title)}", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return text with the signs of Markdown and HTML escaped."""
    kept = re.sub(r"([\\`*\[\]<>|&#~$])", r"\\\1", printable(text))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", kept)
