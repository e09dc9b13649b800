"""A model card as Markdown and as HTML, from the same sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlp_xp.cli.report import _elements as html
from mlp_xp.cli.terminal.lines import printable
from mlp_xp.cli.terminal.text import readable

MOST_PRINTED = 13  # The most rows of a table on paper, so that a card has one page.
_MOST_LISTED = 8  # The most values in a cell.
# CSS for paper: two columns, with wide tables across both.
PRINTED = f"""
@media screen {{ .more {{ display: none }} }}
@media print {{
  @page {{ margin: 10mm }}
  :root {{ color-scheme: light }}
  body {{ max-width: none; padding: 0; font-size: 6.5pt; line-height: 1.2; columns: 2;
    column-gap: 5mm }}
  header {{ column-span: all }}
  h1 {{ font-size: 12pt }}
  h2 {{ font-size: 8pt; margin: 3pt 0 1pt; padding-top: 2pt; break-after: avoid }}
  tr {{ break-inside: avoid }}
  section:has(th:nth-child(6)) {{ column-span: all }}
  section:has(figure) {{ break-inside: avoid; display: flex; flex-wrap: wrap; gap: 0 5mm }}
  section:has(figure) h2 {{ flex-basis: 100% }}
  table, .note {{ font-size: inherit; margin: 0 }}
  figcaption {{ display: none }}
  th, td {{ padding: 0 4pt 0 0 }}
  .scroll {{ overflow: visible }}
  .number {{ white-space: normal }}
  .scroll td {{ min-width: 0; max-width: 62mm; overflow-wrap: break-word }}
  tbody tr:nth-child(n + {MOST_PRINTED + 1}) {{ display: none }}
  figure > svg {{ width: auto !important; height: 38mm !important }}
}}
"""


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
        n_more = len(value) - _MOST_LISTED
        more = [f"and {n_more} more"] if n_more > 0 else []
        return ", ".join([*map(_text, value[:_MOST_LISTED]), *more])
    return f"{value:.4g}" if isinstance(value, float) else readable(value)


def as_html(title: str, sections: Sequence[Section]) -> list[str]:
    """Return the HTML elements of a card."""
    parts = [html.heading(title, "")]
    for one in sections:
        figure = html.figures({one.title: one.figure}) if one.figure else ""
        n_more = len(one.rows) - MOST_PRINTED
        more = f'<p class="note more">and {n_more} more in card.md</p>' if n_more > 0 else ""
        table = html.table(one.header, one.rows, one.n_text)
        parts.append(html.section(one.title, table, more, figure))
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
