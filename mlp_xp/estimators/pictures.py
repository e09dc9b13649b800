"""The property ``plot`` of estimators."""

from __future__ import annotations

from typing import Any

__all__ = ["PicturesMixin"]


class PicturesMixin:
    """Pictures of an estimator, where people look for them."""

    @property
    def plot(self) -> Any:
        """Pictures: ``plot()`` draws the training curves, ``plot.confusion(X, y)`` and so on more.

        See `mlp_xp.plotting.Plots`; needs matplotlib, of the ``cli`` extra.
        """
        from mlp_xp.plotting import Plots  # Few ask for it.

        return Plots(self)
