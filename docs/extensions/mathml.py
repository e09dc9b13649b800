"""Convert formulas to MathML during the build, so pages need no scripts or fonts for them."""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    """Convert a formula to MathML. If this fails, warn and show the LaTeX source."""
    formula = " ".join(node.astext().split())
    try:
        return convert(formula, display="block" if as_block else "inline")
    except Exception as error:  # latex2mathml's exceptions have no common base class.
        LOGGER.warning("formula %r: %r", formula, error, location=node)
        return html.escape(formula)


def visit_inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.Element) -> None:
    """Write a display formula, which scrolls on narrow pages."""
    translator.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
