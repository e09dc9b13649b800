"""A plot of predicted against true values."""

from __future__ import annotations

from typing import Any, Self

import sklearn.metrics
from sklearn.utils._plotting import _validate_style_kwargs

from mlp_xp._utils.optional import optional
from mlp_xp.backends import to_numpy
from mlp_xp.plotting._style import COLORS, ink, new_axes, plain


class PredictionsDisplay(sklearn.metrics.PredictionErrorDisplay):  # type: ignore[misc]
    """scikit-learn's plot of predictions, which shows true against predicted values by default.

    `from_estimator` and `from_predictions` work as in scikit-learn.

    Examples
    --------
    >>> from mlp_xp.plotting import PredictionsDisplay
    >>> display = PredictionsDisplay.from_predictions([1.0, 2.0], [1.1, 1.9])
    >>> display.ax_.get_xlabel(), display.ax_.get_ylabel()
    ('predicted', 'true')
    """

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, **settings: Any) -> Any:
        """Draw the predictions of an estimator, as in scikit-learn."""
        return cls.from_predictions(to_numpy(y), to_numpy(estimator.predict(X)), **settings)

    @classmethod
    def from_predictions(cls, y_true: Any, y_pred: Any, **settings: Any) -> Any:
        """Draw predictions, as in scikit-learn."""
        return super().from_predictions(
            y_true, y_pred, **{"kind": "actual_vs_predicted"} | settings
        )

    def plot(self, ax: Any = None, *, kind: str = "actual_vs_predicted", **settings: Any) -> Self:
        """Draw the points and the diagonal, with the same parameters as in scikit-learn."""
        (axes,) = new_axes(ax, 1, (4.6, 4.2))
        styles: dict[str, dict[str, Any]] = {
            "scatter_kwargs": {"color": COLORS[0], "alpha": 0.5, "s": 10, "linewidths": 0},
            "line_kwargs": {"color": ink(), "linestyle": ":"},
        }
        for part, style in styles.items():
            settings[part] = _validate_style_kwargs(style, settings.get(part) or {})
        super().plot(axes, kind=kind, **settings)
        is_truth = kind == "actual_vs_predicted"
        axes.set(xlabel="predicted", ylabel="true" if is_truth else "true - predicted")
        ticker = optional("matplotlib.ticker")
        # scikit-learn does not place ticks at round numbers.
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.MaxNLocator(5))
            axis.set_major_formatter(ticker.StrMethodFormatter("{x:,.10g}"))
        plain(axes)
        return self
