"""Figures of a training: loss and accuracy by epoch, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.durable import replacing
from mlp_xp._utils.optional import optional

__all__ = ["confusion_figure", "curves_figure", "save_figure"]

# Wong, "Color blindness" (2011), doi:10.1038/nmeth.1618: distinct in gray too.
_COLORS = ("#0072B2", "#D55E00", "#009E73")
_MAX_LABELLED = 20


def curves_figure(losses: Sequence[float], accuracies: Mapping[str, Sequence[float]]) -> Any:
    """Draw loss and accuracy against the epoch.

    Parameters
    ----------
    losses : (epochs,) floats
    accuracies : mapping of str to (epochs,) floats
        From 0 to 1, by the name of the images, e.g. ``{"training": [...]}``. If empty, only the
        loss is drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If the ``cli`` extra is not installed.

    Examples
    --------
    >>> from mlp_xp.plotting import curves_figure
    >>> figure = curves_figure([2.0, 1.0], {"training": [0.4, 0.6]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'accuracy [%]']
    """
    n = 2 if accuracies else 1
    figure = optional("matplotlib.figure").Figure(figsize=(5 * n, 4), layout="constrained")
    loss_axes, *others = figure.subplots(1, n, squeeze=False)[0]
    # A line needs two epochs, a marker one.
    style = {"marker": "o", "markersize": 3} if len(losses) <= 50 else {}
    epochs = range(1, len(losses) + 1)
    loss_axes.plot(epochs, losses, color=_COLORS[0], label="training", **style)
    loss_axes.set_ylabel("loss")
    for axes in others:
        axes.set_ylabel("accuracy [%]")
        for color, (name, values) in zip(cycle(_COLORS), accuracies.items(), strict=False):
            percent = [100.0 * value for value in values]
            label = f"{name}, at last {percent[-1]:.1f} %"
            axes.plot(epochs, percent, color=color, label=label, **style)
    for axes in (loss_axes, *others):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def confusion_figure(truth: Any, predicted: Any, class_names: Sequence[str]) -> Any:
    """Draw the confusion matrix, each row in percent of the images of that class.

    Parameters
    ----------
    truth, predicted : (images,) integers
        From 0 to ``len(class_names) - 1``.
    class_names : sequence of str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If the ``cli`` extra is not installed.

    Examples
    --------
    >>> from mlp_xp.plotting import confusion_figure
    >>> figure = confusion_figure([0, 0, 1, 1], [0, 1, 1, 1], ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['50', '50', '0', '100']
    """
    n = len(class_names)
    counts = np.zeros((n, n))
    np.add.at(counts, (np.asarray(truth), np.asarray(predicted)), 1)
    percent = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    is_small = n <= _MAX_LABELLED
    size = 2.5 + 0.5 * n if is_small else 14.0
    figure = optional("matplotlib.figure").Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the true class [%]")
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    if all(len(name) <= 2 for name in class_names):
        slanted = {}
    small_text = {} if is_small else {"fontsize": 6}
    rotation = slanted if is_small else {"rotation": 90}
    axes.set_xticks(range(n), class_names, **rotation, **small_text)
    axes.set_yticks(range(n), class_names, **small_text)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{100 * accuracy:.2f} % of {counts.sum():,.0f} images right")
    if is_small:
        for (row, column), value in np.ndenumerate(percent):
            color = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, all or nothing."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
