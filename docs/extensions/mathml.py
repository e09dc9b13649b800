"""Formulas as MathML, made while the site is built: they need no script and no font."""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    """Convert a formula; one that cannot be converted is a warning, and stays as it is written."""
    formula = " ".join(node.astext().split())
    try:
        return convert(formula, display="block" if as_block else "inline")
    except Exception as error:  # It has a dozen of its own, without a common base.
        LOGGER.warning("formula %r: %r", formula, error, location=node)
        return html.escape(formula)


def visit_inline(translator: Any, node: nodes.Element) -> None:
    """Write a formula within a line."""
    translator.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.Element) -> None:
    """Write a formula of its own, which scrolls where the page is narrow."""
    translator.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer, and choose it."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
