"""A plot of the configurations tried by a tuned ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mlp_xp.plotting._style import COLORS, ink, new_axes, plain


class SearchDisplay:
    """The configurations tried in a search: each one's loss, against the training time so far.

    Filled points are configurations in the ensemble, with an area proportional to their weight.
    Crosses are configurations dropped after a few folds; their losses are from these folds only.

    Parameters
    ----------
    results : mapping of str to sequence
        A tuned ensemble's attribute `search_results_`.
    loss : float, optional
        The ensemble's loss, drawn as a line.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mlp_xp import MLPClassifier, MLPTunedClassifier
    >>> from mlp_xp.plotting import SearchDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPTunedClassifier(MLPClassifier(5, max_iter=9), n_configurations=3, n_folds=2)
    >>> display = SearchDisplay.from_estimator(model.set_params(random_state=0).fit(X, y))
    >>> display.ax_.get_xlabel()
    'training time [s]'
    """

    def __init__(self, results: Mapping[str, Sequence[Any]], *, loss: float | None = None) -> None:
        self.results, self.loss = results, loss

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Draw a fitted tuned ensemble's search.

        Parameters
        ----------
        estimator : MLPTunedClassifier or MLPTunedRegressor
        ax : Axes or None
            None creates a new figure.

        Returns
        -------
        SearchDisplay
        """
        check_is_fitted(estimator, "search_results_")
        return cls(estimator.search_results_, loss=estimator.loss_).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : Axes or None
            None creates a new figure.

        Returns
        -------
        self
        """
        [axes] = new_axes(ax, 1, (5.5, 4.0))
        self.ax_, self.figure_ = axes, axes.figure
        losses, weights = (np.asarray(self.results[name], float) for name in ("loss", "weight"))
        seconds = np.cumsum(np.asarray(self.results["seconds"], float))
        is_complete = np.asarray(self.results["status"]) == "complete"
        is_chosen = weights > 0.0
        groups: dict[str, tuple[Any, dict[str, Any]]] = {
            "in the ensemble": (is_chosen, {"s": 30 + 220 * weights[is_chosen]}),
            "trained on all folds": (is_complete & ~is_chosen, {"facecolors": "none", "s": 30}),
            "on some folds": (~is_complete & ~is_chosen, {"marker": "x", "s": 20}),
        }
        for (name, (rows, style)), color in zip(groups.items(), COLORS, strict=False):
            if np.any(rows):
                kind = "color" if style.get("marker") else "edgecolors"
                settings = {kind: color, "label": name, **style}
                axes.scatter(seconds[rows], losses[rows], **settings)
        best = np.fmin.accumulate(np.where(is_complete, losses, np.nan))
        axes.step(seconds, best, where="post", color=ink(), linewidth=1, label="best so far")
        if self.loss is not None:
            label = f"ensemble {self.loss:.3g}"
            axes.axhline(self.loss, color=ink(), linewidth=1, linestyle=":", label=label)
        for row in np.flatnonzero(is_chosen).tolist():
            axes.annotate(
                self.results["name"][row],
                (seconds[row], losses[row]),
                textcoords="offset points",
                xytext=(6, 6),
                fontsize="small",
            )
        axes.set_xlabel("training time [s]")
        axes.set_ylabel("held-out loss")
        plain(axes)
        axes.legend(fontsize="small", frameon=False)
        return self
