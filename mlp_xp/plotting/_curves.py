"""Plots of loss, score and learning rate by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import cycle
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from mlp_xp.plotting._style import COLORS, ink, new_axes, plain, set_figure_title
from mlp_xp.training.loop.history import kept_epoch

# Curves of at most this many epochs have markers, so a single epoch is visible.
_MARKED = 50
_WIDEST = 20  # A legend with longer labels, in characters, uses a single column.


@dataclass(eq=False, repr=False)
class TrainingCurvesDisplay:
    """Training curves: loss, score and learning rate by epoch.

    Parameters
    ----------
    panels : mapping of str to mapping of str to (epochs,) sequence
        The curves in each panel, by the panel's label, e.g. ``"loss"``, and the curve's name, e.g.
        ``"training"``. None and NaN are gaps.
    best_epoch : int, optional
        Epoch whose weights were kept, from 1, marked in each panel. By default, the last epoch.
    test : mapping of str to float, optional
        Results on test data by panel label, marked at the epoch whose weights were kept.
    colors : mapping of str to color, optional
        Colors by curve name, to override `curve_colors`.

    Attributes
    ----------
    axes_ : list of matplotlib Axes, one per panel
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from mlp_xp.plotting import TrainingCurvesDisplay
    >>> curves = {"loss": {"training": [2.0, 1.0]}, "accuracy [%]": {"training": [40, 60]}}
    >>> display = TrainingCurvesDisplay(curves, test={"accuracy [%]": 55}).plot()
    >>> [axes.get_ylabel() for axes in display.axes_]
    ['loss', 'accuracy [%]']
    """

    panels: Mapping[str, Mapping[str, Sequence[float | None]]]
    _: KW_ONLY
    best_epoch: int | None = None
    test: Mapping[str, float] | None = None
    colors: Mapping[str, Any] | None = None

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any = None, y: Any = None, *, ax: Any = None
    ) -> Self:
        """Draw the training curves of a fitted estimator.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            A fitted estimator, with any solver.
        X, y : array-like, optional
            Test data, whose loss and score are marked.
        ax : Axes, sequence of Axes, or None
            A single Axes is divided among the panels; None creates a new figure.

        Returns
        -------
        TrainingCurvesDisplay

        Raises
        ------
        ValueError
            If the fit ended before its first epoch.

        Examples
        --------
        >>> from mlp_xp import MLPRegressor
        >>> from mlp_xp.plotting import TrainingCurvesDisplay
        >>> model = MLPRegressor(max_iter=3, learning_rate="cosine").fit([[0.0], [1.0]], [0, 1])
        >>> display = TrainingCurvesDisplay.from_estimator(model)
        >>> list(display.panels)
        ['loss', 'learning rate']
        """
        check_is_fitted(estimator)
        is_share = is_classifier(estimator)
        # The training accuracy is recorded only if requested.
        score = "accuracy [%]" if is_share else "R²"
        columns = {
            "loss": {"training": "loss", "validation": "validation_loss"},
            score: {"training": "accuracy"},
        }
        measure = score
        if estimator.scoring is not None:
            name = estimator.scoring if isinstance(estimator.scoring, str) else "score"
            measure = name.replace("_", " ")
        scored = [record for record in estimator.history_ if record.validation_score is not None]
        rows: list[dict[str, Any]] = [record._asdict() for record in estimator.history_]
        if measure == "refinement":  # This score is a negated loss.
            columns["loss"]["refinement"] = "refinement"
            for row in rows:
                score_of_row = row["validation_score"]
                row["refinement"] = None if score_of_row is None else -score_of_row
        elif any(record.validation_score != -record.validation_loss for record in scored):
            columns.setdefault(measure, {})["validation"] = "validation_score"
        columns["learning rate"] = {"": "learning_rate"}
        if not estimator.history_:
            raise ValueError(
                "There are no curves to draw, because the fit ended before its first epoch: fit "
                f"with a tol below {estimator.tol!r}."
            )
        panels = training_panels(rows, columns)
        test = None
        if X is not None:
            results = estimator.evaluate(X, y)
            test = {"loss": results["loss"]}
            (value,) = (value for name, value in results.items() if name != "loss")
            test[score] = value * (100.0 if is_share else 1.0)
        best = None
        if estimator.early_stopping and estimator.validation_scores_:
            best = kept_epoch(estimator.validation_scores_, estimator.best_validation_score_)
        return cls(panels, best_epoch=best, test=test).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, sequence of Axes, or None
            A single Axes is divided among the panels; None creates a new figure.

        Returns
        -------
        self
        """
        self.axes_ = new_axes(ax, len(self.panels), (3.2, 2.9))
        self.figure_ = self.axes_[0].figure
        set_figure_title(self.figure_, ax, "training curves")
        colors = {**curve_colors(self.panels), **(self.colors or {})}
        for axes, (label, curves) in zip(self.axes_, self.panels.items(), strict=True):
            self._draw(axes, label, curves, colors)
        return self

    def _draw(
        self, axes: Any, label: str, curves: Mapping[str, Sequence[Any]], colors: Mapping[str, Any]
    ) -> None:
        n_epochs = max(map(len, curves.values()))
        kept = self.best_epoch or n_epochs
        style = {"marker": "o", "markersize": 3} if n_epochs <= _MARKED else {}
        texts = {}
        for name, values in curves.items():
            color = colors.get(name, COLORS[0])
            numbers = np.asarray([np.nan if v is None else v for v in values], dtype=float)
            (line,) = axes.plot(
                range(1, len(numbers) + 1), numbers, color=color, label=name, **style
            )
            known = numbers[:kept][np.isfinite(numbers[:kept])]
            if name and len(known):
                texts[line] = f"{name} {known[-1]:.3g}"
        axes.set_xlabel("epoch")
        axes.set_ylabel(label.replace(" (", "\n("))  # A long label would be cut off.
        plain(axes)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if self.test and label in self.test:
            value = self.test[label]
            (point,) = axes.plot([kept], [value], "D", color=ink(), markersize=5, label="test")
            texts[point] = f"test {value:.3g}"
        if self.best_epoch is not None:
            dotted = axes.axvline(self.best_epoch, color=ink(), linewidth=1, linestyle=":")
            texts[dotted] = f"kept: epoch {self.best_epoch}"
        if texts:  # Place the legend above the axes, where it does not cover curves.
            n_columns = 2 if max(map(len, texts.values())) <= _WIDEST else 1
            place: Any = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": n_columns}
            place |= {"handlelength": 1.4, "handletextpad": 0.5, "columnspacing": 1.0}
            axes.legend([*texts], texts.values(), fontsize="small", frameon=False, **place)


def curve_colors(panels: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a color for each curve name, in the order of the panels."""
    names = dict.fromkeys(name for curves in panels.values() for name in curves if name)
    return dict(zip(names, cycle(COLORS), strict=False))


def training_panels(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, list[Any]]]:
    """Return the panels for a `TrainingCurvesDisplay` from a table with one row per epoch.

    ``columns`` maps panel labels and curve names to columns. Curves without numbers are omitted;
    panels whose label ends in ``[%]`` are in percent.
    """
    panels: dict[str, dict[str, list[Any]]] = {}
    for label, names in columns.items():
        factor = 100.0 if label.endswith("[%]") else 1.0
        for name, column in names.items():
            values = [row.get(column) for row in rows]
            if any(value is not None and np.isfinite(value) for value in values):
                scaled = [None if value is None else factor * value for value in values]
                panels.setdefault(label, {})[name] = scaled
    return panels
