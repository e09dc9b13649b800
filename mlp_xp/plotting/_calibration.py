"""Reliability diagrams for two or more classes, with the calibration error."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import sklearn.calibration

from mlp_xp.backends import to_numpy
from mlp_xp.plotting._style import COLORS, ink, new_axes, plain


class CalibrationDisplay(sklearn.calibration.CalibrationDisplay):  # type: ignore[misc]
    """scikit-learn's reliability diagram for two or more classes, with the calibration error.

    With more than two classes, it plots the fraction of correct predictions against the probability
    of the predicted class. Bars at the bottom show each bin's fraction of the samples.
    `from_estimator` and `from_predictions` work as in scikit-learn; `from_predictions` also accepts
    a (samples, classes) array.

    Attributes
    ----------
    calibration_error : float or None
        Expected calibration error, from 0 to 1: each bin's distance from the diagonal, averaged
        over the samples. None if the display was created from ``prob_true`` and ``prob_pred``.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks" (2017),
    arXiv:1706.04599.

    Examples
    --------
    >>> from mlp_xp.plotting import CalibrationDisplay
    >>> probabilities = [[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]]
    >>> display = CalibrationDisplay.from_predictions([0, 1], probabilities)
    >>> round(display.calibration_error, 2)  # 0.9 is correct, 0.7 is not.
    0.4
    """

    calibration_error: float | None = None
    _shares: Any = None
    _is_multiclass = False

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, **settings: Any) -> Self:
        """Draw the diagram for a classifier's probabilities, as in scikit-learn."""
        p = to_numpy(estimator.predict_proba(X))
        settings.setdefault("name", type(estimator).__name__)
        if p.shape[1] > 2:
            return cls.from_predictions(y, p, classes=estimator.classes_, **settings)
        positive = settings.setdefault("pos_label", estimator.classes_[1])
        column = int(np.flatnonzero(np.asarray(estimator.classes_) == positive)[0])
        return cls.from_predictions(y, p[:, column], **settings)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_prob: Any,
        *,
        classes: Any = None,
        n_bins: int = 10,
        strategy: str = "uniform",
        pos_label: Any = None,
        name: str | None = None,
        **settings: Any,
    ) -> Self:
        """Draw the diagram for predicted probabilities.

        Parameters
        ----------
        y_true : (samples,) array-like of labels
        y_prob : (samples,) or (samples, classes) array-like
            Probabilities of the positive class, or of each class.
        classes : (classes,) array-like, optional
            Sorted labels of the columns; by default 0, 1, 2, ...
        n_bins : int, default=10
        strategy, pos_label, name, **settings
            As in scikit-learn, but no legend is drawn.

        Returns
        -------
        CalibrationDisplay
        """
        display = cls.of_predictions(
            y_true, y_prob, classes=classes, n_bins=n_bins, strategy=strategy, pos_label=pos_label
        )
        return display.plot(name=name, **settings)

    @classmethod
    def of_predictions(
        cls,
        y_true: Any,
        y_prob: Any,
        *,
        classes: Any = None,
        n_bins: int = 10,
        strategy: str = "uniform",
        pos_label: Any = None,
    ) -> Self:
        """Return the display for probabilities without drawing it; see `from_predictions`."""
        truth, p = to_numpy(y_true), np.asarray(to_numpy(y_prob))
        is_multiclass = p.ndim == 2
        if is_multiclass:
            labels = np.arange(p.shape[1]) if classes is None else np.asarray(classes)
            truth, p, pos_label = labels[np.argmax(p, axis=1)] == truth, np.max(p, axis=1), True
        p = np.clip(p, 0.0, 1.0)  # Probabilities may exceed 1 by a rounding error.
        shown, predicted = sklearn.calibration.calibration_curve(
            truth, p, pos_label=pos_label, n_bins=n_bins, strategy=strategy
        )
        display = cls(shown, predicted, p, pos_label=pos_label)
        display._is_multiclass = is_multiclass
        edges = np.linspace(0, 1, n_bins + 1)
        if strategy == "quantile":
            edges = np.percentile(p, 100 * edges)
        # As in scikit-learn, a probability on an edge belongs to the lower bin.
        shares = np.bincount(np.searchsorted(edges[1:-1], p), minlength=n_bins) / len(p)
        display.calibration_error = float(np.sum(shares[shares > 0] * np.abs(shown - predicted)))
        display._shares = edges, shares
        return display

    def plot(
        self, *, ax: Any = None, name: str | None = None, ref_line: bool = True, **settings: Any
    ) -> Self:
        """Draw the diagram, with the same parameters as in scikit-learn."""
        (self.ax_,) = new_axes(ax, 1, (4.6, 4.2))
        self.figure_ = self.ax_.figure
        style = {"color": COLORS[0], "marker": "o", "markersize": 4} | settings
        if ref_line:
            self.ax_.plot([0, 1], [0, 1], ":", color=ink(), linewidth=1)
        (self.line_,) = self.ax_.plot(
            self.prob_pred, self.prob_true, label=name or self.estimator_name, **style
        )
        if self._shares is not None:
            edges, shares = self._shares
            self.ax_.bar(
                edges[:-1], shares, np.diff(edges), align="edge", color=ink(), alpha=0.15, zorder=0
            )
        if self.calibration_error is not None:
            self.ax_.set_title(f"calibration error {100 * self.calibration_error:.1f} %")
        of_class = "" if self.pos_label is None else f" of {self.pos_label}"
        noun = "the predicted class" if self._is_multiclass else f"the positive class{of_class}"
        self.ax_.set_xlabel(f"probability of {noun}", parse_math=False)
        self.ax_.set_ylabel("fraction correct" if self._is_multiclass else "fraction of that class")
        self.ax_.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        plain(self.ax_)
        return self
