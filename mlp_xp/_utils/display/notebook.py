"""A notebook output area whose content can be updated."""

from __future__ import annotations

import sys
from typing import Any


def in_notebook() -> bool:
    """Whether this process is a notebook kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


class NotebookPlace:
    """An output area below a notebook cell; each update replaces its content."""

    def __init__(self) -> None:
        self._handle: Any = None

    def update(self, html: str, text: str) -> None:
        """Replace the content; front ends that cannot show HTML show the text."""
        from IPython.display import display, update_display

        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            update_display(content, raw=True, display_id=self._handle.display_id)


def bar_html(fraction: float | None, left: str, right: str) -> str:
    """Return the HTML of a progress bar; ``fraction`` is None if unknown."""
    value = "" if fraction is None else f" value={min(max(fraction, 0.0), 1.0):.4f}"
    return (
        '<div style="display:flex;gap:.8em;align-items:center;flex-wrap:wrap;'
        'font-variant-numeric:tabular-nums">'
        f"<span>{left}</span><progress max=1{value} "
        'style="flex:1 1 10em;max-width:24em;accent-color:#0072B2"></progress>'
        f"<span>{right}</span></div>"
    )
