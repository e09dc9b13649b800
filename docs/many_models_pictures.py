"""Run the examples in many-models.md and plot their results.

python docs/many_models_pictures.py
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).parent
BLUE, GRAY = "#0072B2", "#999999"


def example_values() -> dict[str, Any]:
    """Run the page's examples and return their variables."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / "many-models.md").read_text(), re.MULTILINE | re.DOTALL
    )
    values: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks:
            exec(block, values)
    return values


def draw_many_models(values: dict[str, Any], folder: Path = DOCS) -> None:
    """Plot the search, the ensemble and the learning curve of the page."""
    from matplotlib.figure import Figure

    ours = BLUE
    drawn = []

    def figure(name: str, width: float = 5.6) -> Any:
        picture = Figure(figsize=(width, 3.2), layout="constrained")
        drawn.append((picture, folder / f"many-models-{name}.png"))
        return picture.add_subplot()

    axes = figure("search")
    search, grid = values["search"], values["grid"]
    rates, penalties = grid["learning_rate_init"], grid["alpha"]
    # scikit-learn sorts the names of a grid, and the last one varies fastest.
    scores = search.cv_results_["mean_test_score"].reshape(len(penalties), len(rates))
    axes.imshow(scores, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(rates)), rates)
    axes.set_yticks(range(len(penalties)), penalties)
    axes.set(xlabel="learning_rate_init", ylabel="alpha", title="Mean test accuracy, 3 folds")
    for (row, column), score in np.ndenumerate(scores):
        shade = "white" if score > scores.mean() else "black"
        axes.text(column, row, f"{score:.3f}", ha="center", va="center", color=shade)

    axes = figure("ensemble")
    line, mean, std = values["line"], values["mean"], values["std"]
    axes.fill_between(line, mean - 2 * std, mean + 2 * std, color=ours, alpha=0.2, lw=0)
    for network in values["ensemble"].estimators_:
        axes.plot(line, network.predict(line[:, None]), color=GRAY, lw=0.6)
    axes.plot(line, mean, color=ours, lw=2, label="mean ± 2 standard deviations")
    axes.plot([], [], color=GRAY, lw=0.6, label="one of the networks")
    axes.plot(values["x"], values["values"], ".", color="black", ms=4, label="training samples")
    axes.set(ylim=(-4, 4), xlabel="x", ylabel="y", title="Ten networks, and where they differ")
    axes.legend(frameon=False)

    axes = figure("curve")
    beside = {"textcoords": "offset points"}
    for name, color in (("train", GRAY), ("test", ours)):
        each = values[f"{name}_scores"]
        middle, around = each.mean(axis=1), each.std(axis=1)
        band = middle - around, middle + around
        axes.fill_between(values["sizes"], *band, color=color, alpha=0.2, lw=0)
        axes.plot(values["sizes"], middle, "o-", color=color)
        axes.annotate(name, (values["sizes"][-1], middle[-1]), (8, -3), **beside, color=color)
    axes.set(xscale="log", xlabel="training samples", ylabel="accuracy")
    axes.set_title("Accuracy by the number of training samples, 5 folds")
    axes.set_xticks(values["sizes"], [f"{size:,}" for size in values["sizes"]])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)

    for picture, path in drawn:
        picture.savefig(path, dpi=150)


if __name__ == "__main__":
    draw_many_models(example_values())
