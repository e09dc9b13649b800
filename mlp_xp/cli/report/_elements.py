"""The HTML elements of a report, with all text escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.durable import replacing
from mlp_xp.cli.run_folder.run_summary import CURVES, RunSummary, best_epoch
from mlp_xp.cli.terminal.lines import printable
from mlp_xp.plotting import THEME, TrainingCurvesDisplay, curve_colors, inline_svg, training_panels

MOST_RUNS = 5  # The maximum number of runs in a plot, each with its own color.
_TEMPLATE = Path(__file__).with_name("page.html")


def escape(value: object) -> str:
    r"""Return text with HTML markup and control characters escaped.

    Examples
    --------
    >>> from mlp_xp.cli.report._elements import escape
    >>> print(escape("<script>\x1b[2J"))
    &lt;script&gt;\x1b[2J
    """
    return html.escape(printable(value))


def write_page(path: Path, title: str, parts: Iterable[str], style: str = "") -> None:
    """Write a page; ``style`` is CSS that follows the style sheet of all pages."""
    light, dark = THEME
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        body="\n".join(filter(None, parts)),
        style=style,
        light=light,
        dark=dark,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def heading(title: str, subtitle: str) -> str:
    return f"<header><h1>{escape(title)}</h1>{paragraph(subtitle)}</header>"


def section(title: str, *parts: str) -> str:
    """Return a section with a heading, or "" if all parts are empty."""
    body = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def preformatted(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>" if text else ""


def tiles(values: Mapping[str, str]) -> str:
    """Return a row of numbers, each above its name; the first number has a larger font."""
    drawn = (
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in values.items()
    )
    return f'<div class="tiles">{"".join(drawn)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], n_text: int = 1) -> str:
    """Return a table; all columns after the first ``n_text`` contain numbers."""

    def cells(kind: str, values: Sequence[object]) -> str:
        styles = ['class="number"' if i >= n_text else "" for i in range(len(values))]
        drawn = zip(styles, values, strict=True)
        return "".join(f"<{kind} {style}>{escape(v)}</{kind}>" for style, v in drawn)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', header)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def definitions(values: Mapping[str, object]) -> str:
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in values.items())
    return f"<table><tbody>{rows}</tbody></table>" if values else ""


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>" if body else ""


def figures(drawn: Mapping[str, str]) -> str:
    """Return ``<svg>`` elements side by side, each above its caption."""
    found = (
        f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, svg in drawn.items()
    )
    return f'<div class="figures">{"".join(found)}</div>' if drawn else ""


def image_grid(
    images: Sequence[np.ndarray], captions: Sequence[tuple[str, str]], side: str = "6rem"
) -> str:
    """Return a grid of (height, width, 3) uint8 images with a bold and a plain caption line."""
    drawn = []
    for image, (bold, plain) in zip(images, captions, strict=True):
        caption = f"<b>{escape(bold)}</b><br>{escape(plain)}" if bold or plain else ""
        caption = f"<figcaption>{caption}</figcaption>" if caption else ""
        alt = escape(f"{bold} {plain}".strip())
        drawn.append(f'<figure><img src="{_data_url(image)}" alt="{alt}">{caption}</figure>')
    return f'<div class="pictures" style="--side:{side}">{"".join(drawn)}</div>'


def _data_url(image: Any) -> str:
    file = io.BytesIO()
    optional("PIL.Image").fromarray(image).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def curve_figures(run: RunSummary, test: Mapping[str, float] | None = None) -> dict[str, str]:
    """Return plots of loss, scores and learning rate by epoch, as SVG, keyed by caption.

    ``test`` maps axis labels to test scores, which are marked in the plots.
    """
    panels = training_panels(run.history, CURVES)
    marks = {"test": test, "best_epoch": best_epoch(run.result)}
    return _curve_figures(panels, curve_colors(panels), **marks)


def compared_figures(runs: Mapping[str, RunSummary]) -> dict[str, str]:
    """Return plots of loss, scores and learning rate, with one curve per run.

    Different losses are not on the same axis.
    """
    panels: dict[str, dict[str, list[Any]]] = {}
    has_one_loss = len({run.loss for run in runs.values()}) == 1
    for label, curves in CURVES.items():
        for curve, column in curves.items():
            for name, run in islice(runs.items(), MOST_RUNS):
                measure = run.loss if label == "loss" and not has_one_loss else label
                title = curve if curve == "refinement" else f"{curve} {measure}".strip()
                drawn = training_panels(run.history, {label: {name: column}})
                panels.setdefault(title, {}).update(drawn.get(label, {}))
    shown = {title: curves for title, curves in panels.items() if curves}
    return _curve_figures(shown, curve_colors({"": runs}))


def _curve_figures(
    panels: Mapping[str, Mapping[str, Any]], colors: Mapping[str, str], **marks: Any
) -> dict[str, str]:
    drawn = {}
    for label, curves in panels.items():
        display = TrainingCurvesDisplay({label: curves}, colors=colors, **marks)
        drawn[f"{label} by epoch"] = svg_of(display, 3.25, 3.0, f"{label} by epoch")
    return drawn


def svg_of(display: Any, width: float, height: float, title: str, **settings: Any) -> str:
    """Return a display as an ``<svg>`` element; ``width`` and ``height`` are in inches."""

    def draw(figure: Any) -> None:
        display.plot(ax=figure.subplots(), **settings)

    return inline_svg(draw, width, height, title)
