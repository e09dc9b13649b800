"""The HTML representation of estimators in a notebook, and their plots."""

from __future__ import annotations

import re
from typing import Any

from sklearn.utils import estimator_html_repr

# Parts of scikit-learn's box have fixed colors for a light page: invert them on a dark page.
_DARK_BOX = (
    "<style>.mlp-xp-box .sk-global.dark .sk-estimator{filter:invert(.9) hue-rotate(180deg)}</style>"
)
LINK = re.compile(r'\s(?:rel|target|href)="[^"]*"')


class DescriptionMixin:
    """A mixin that shows each parameter's description as a tooltip in a notebook.

    scikit-learn shows descriptions only in links to documentation, which are removed.
    """

    def _get_params_html(self, deep: bool = True, doc_link: str = "") -> Any:
        table: Any = super()._get_params_html(deep)  # type: ignore[misc]
        table.doc_link, page = "#", table._repr_html_inner
        table._repr_html_inner = lambda: LINK.sub("", page())
        return table


class NotebookMixin(DescriptionMixin):
    """A mixin with the attribute `plot` and the HTML representation of estimators."""

    @property
    def plot(self) -> Any:
        """Plots: ``plot()`` for training curves, ``plot.confusion(X, y)`` and others.

        See `mlp_xp.plotting.Plots`; requires matplotlib, which the ``cli`` extra installs.
        """
        from mlp_xp.plotting import Plots  # Import late, since few users need it.

        return Plots(self)

    def _html_repr(self: Any) -> str:
        """Return scikit-learn's representation, with the network's summary if fitted."""
        network = self.summary()._repr_html_() if "coefs_" in vars(self) else ""
        return f'{_DARK_BOX}<div class="mlp-xp-box">{estimator_html_repr(self)}</div>{network}'
