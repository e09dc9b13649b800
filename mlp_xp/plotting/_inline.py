"""Figures as inline SVG, in the colors of the page's theme."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp.plotting._style import COLORS, new_figure

_INK = "#010203"  # A unique color as a placeholder for the page's text color.
_DARK = ("#4BA3E3", "#F0874A", "#2FC79B", "#E3A0C6", "#8FD0F5")

# CSS variables for line colors, on light and dark pages.
THEME = (
    "".join(f"--line-{i}:{color};" for i, color in enumerate(COLORS)),
    "".join(f"--line-{i}:{color};" for i, color in enumerate(_DARK)),
)

# CSS selectors for dark themes in JupyterLab, Visual Studio Code and Colab.
_DARK_PAGES = ("[data-jp-theme-light=false]", "[data-vscode-theme-kind*=dark]", "[theme=dark]")


def inline_svg(draw: Callable[[Any], object], width: float, height: float, title: str) -> str:
    """Return a figure drawn by ``draw(figure)`` as an ``<svg>`` element.

    ``width`` and ``height`` are in inches. ``title`` is a description for screen readers; it also
    makes the identifiers unique. Text, axes and grid use the page's text color, and lines the
    colors of `THEME` if the page defines them. The background is transparent. The figure shrinks
    with the page.
    """
    matplotlib = optional("matplotlib")
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style = dict.fromkeys((*names, "grid.color"), _INK) | {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "image.interpolation": "none",  # The page scales the image, not matplotlib.
        "svg.fonttype": "none",
        "svg.hashsalt": title,
    }
    file = io.StringIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The page's font may contain characters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = new_figure(width, height)
        draw(figure)
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _themed(file.getvalue(), title)


def in_notebook_colors(svg: str) -> str:
    """Add the colors of `THEME` for light and dark notebooks to a figure from `inline_svg`."""
    light, dark = THEME
    on_dark = ",".join(f"{page} .mlp-xp-curve" for page in _DARK_PAGES)
    style = f"<style>.mlp-xp-curve{{{light}}}{on_dark}{{{dark}}}</style>"
    return f'{style}<div class="mlp-xp-curve">{svg}</div>'


def _themed(svg: str, title: str) -> str:
    """Return only the ``<svg>`` element, using the page's theme colors."""
    svg = svg[svg.index("<svg") :]
    width, box = re.findall(r'width="([\d.]+)pt"|viewBox="([^"]+)"', svg)[:2]
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box[1] or width[1]}" role="img" aria-label="{label}" '
        f'style="width:{float(width[0] or box[0]) * 96 / 72:.0f}px;max-width:100%;height:auto">'
    )
    # Remove control characters, which names may contain but HTML does not allow.
    body = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", svg[svg.index(">") + 1 :])
    body = re.sub(
        r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.S
    )
    # Remove ids, which must be unique within a page but are the same in all figures.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = body.replace(_INK, "currentColor")
    for i, color in enumerate(COLORS):
        body = body.replace(color.lower(), f"var(--line-{i},{color})")
    return head + body.strip()
