"""A confusion matrix whose color scale highlights mistakes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import sklearn.metrics

from mlp_xp.backends import to_numpy
from mlp_xp.plotting._style import new_axes

_MAX_LABELLED = 20


class ConfusionMatrixDisplay(sklearn.metrics.ConfusionMatrixDisplay):  # type: ignore[misc]
    """scikit-learn's confusion matrix display, with colors for mistakes.

    For a good classifier, nearly all samples are on the diagonal, so all other cells are pale on
    the usual color scale. Here, the scale ends at the largest mistake, and the diagonal is gray. By
    default, cells show percentages of the true class.

    `from_estimator` and `from_predictions` work as in scikit-learn, but the default is
    ``normalize="true"``.

    Examples
    --------
    >>> from mlp_xp.plotting import ConfusionMatrixDisplay
    >>> truth, predicted = ["cat", "cat", "dog", "dog"], ["cat", "dog", "dog", "dog"]
    >>> display = ConfusionMatrixDisplay.from_predictions(truth, predicted)
    >>> [text.get_text() for text in display.text_.flat]
    ['50', '50', '0', '100']
    """

    @classmethod
    def from_predictions(cls, y_true: Any, y_pred: Any, **settings: Any) -> Any:
        """Draw the confusion matrix of predictions, as in scikit-learn."""
        defaults = {"normalize": "true", "cmap": "YlOrRd", "xticks_rotation": None}
        return super().from_predictions(y_true, y_pred, **defaults | settings)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, **settings: Any) -> Any:
        """Draw the confusion matrix of an estimator's predictions, as in scikit-learn."""
        return cls.from_predictions(to_numpy(y), to_numpy(estimator.predict(X)), **settings)

    def plot(
        self,
        *,
        include_values: bool = True,
        cmap: str = "YlOrRd",
        xticks_rotation: Any = None,
        values_format: str | None = None,
        ax: Any = None,
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
        text_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the matrix, with the same parameters as in scikit-learn.

        By default, ``xticks_rotation`` is "horizontal" for short names and 45 degrees otherwise.
        With more than 20 classes, no values are shown in the cells.
        """
        matrix = np.asarray(self.confusion_matrix)
        is_share = matrix.dtype.kind == "f"
        shown = 100.0 * matrix if is_share else matrix
        n = len(shown)
        names = range(n) if self.display_labels is None else self.display_labels
        side = 2.6 + 0.5 * min(n, 22)
        (self.ax_,) = new_axes(ax, 1, (side + 0.8, side))
        self.figure_ = self.ax_.figure
        mistakes = np.where(np.eye(n, dtype=bool), 0.0, shown)
        largest = float(mistakes.max())
        limits = {"vmin": 0.0, "vmax": largest or 1.0}
        self.im_ = self.ax_.imshow(mistakes, cmap=cmap, **limits | (im_kw or {}))
        self.ax_.imshow(np.where(np.eye(n, dtype=bool), 0.9, np.nan), cmap="gray", vmin=0, vmax=1)
        if colorbar and largest:  # Without mistakes, all cells have the same color.
            label = "mistakes [%]" if is_share else "mistakes [samples]"
            self.figure_.colorbar(self.im_, ax=self.ax_, fraction=0.046, label=label)
        self.text_ = None
        if include_values and n <= _MAX_LABELLED:
            self.text_ = self._write(shown, mistakes, values_format, text_kw or {})
        is_short = all(len(str(name)) <= 2 for name in names)
        rotation = xticks_rotation or ("horizontal" if is_short else 45)
        aligned = {"ha": "right", "rotation_mode": "anchor"} if rotation == 45 else {}
        small = {} if n <= _MAX_LABELLED else {"fontsize": 6}
        # Class names are not formulas, even if they contain "$".
        self.ax_.set_xticks(
            range(n), names, rotation=rotation, parse_math=False, **aligned, **small
        )
        self.ax_.set_yticks(range(n), names, parse_math=False, **small)
        self.ax_.set_xlabel("predicted class")
        self.ax_.set_ylabel("true class")
        unit = "% of each true class" if is_share else "samples"
        self.ax_.set_title(f"confusion matrix [{unit}]", fontsize="medium")
        return self

    def _write(
        self, shown: np.ndarray, mistakes: np.ndarray, values_format: str | None, style: Any
    ) -> np.ndarray:
        """Write each cell's value, in white if the cell is dark."""
        texts = np.empty(shown.shape, dtype=object)
        for (row, column), value in np.ndenumerate(shown):
            is_dark = mistakes[row, column] > 0.6 * mistakes.max() > 0
            given = {"ha": "center", "va": "center", "color": "white" if is_dark else "black"}
            text = format(value, values_format or (".0f" if shown.dtype.kind == "f" else "d"))
            texts[row, column] = self.ax_.text(column, row, text, **given | style)
        return texts
