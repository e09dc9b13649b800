"""The reports of one run, and of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import (
    PredictionErrorDisplay,
    confusion_matrix,
    mean_absolute_error,
    precision_recall_fscore_support,
    r2_score,
    root_mean_squared_error,
)

from mlp_xp.cli.report._elements import (
    MOST_RUNS,
    compared_figures,
    curve_figures,
    definitions,
    figures,
    folded,
    heading,
    image_grid,
    paragraph,
    preformatted,
    section,
    svg_of,
    table,
    tiles,
    write_page,
)
from mlp_xp.cli.run_folder.run_summary import RunSummary, changed_settings
from mlp_xp.cli.terminal.text import (
    number_text,
    readable,
    score_name,
    score_text,
    seconds_text,
    value_text,
)
from mlp_xp.plotting import (
    CalibrationDisplay,
    ConfusionMatrixDisplay,
    largest_weights,
    surest_mistakes,
)

_CHOSEN = ("data", "data_path", "target", "task", "drop", "recipe", "validation")
_N_NEURONS, _N_MISTAKES = 32, 24
_MAX_OPEN = 25  # Tables with more classes are collapsed.
_N_POINTS = 2000  # The maximum number of points in a plot of predictions.
# The line is visible on light and dark pages.
_POINTS = {"scatter_kwargs": {"s": 10}, "line_kwargs": {"color": "gray"}}
_PREDICTIONS = {
    "actual_vs_predicted": "test samples: true against predicted",
    "residual_vs_predicted": "test samples: residuals",
}


class Evaluation(NamedTuple):
    """The test data of a run, and the predictions of its model.

    ``y`` and ``predicted``, of shape (samples,), are class indices or target values.
    ``probabilities`` has one column per class in ``model.classes_``; for regression, it is None and
    ``class_names`` is empty. ``image_shape`` is None if the samples are not images.
    """

    x: np.ndarray
    y: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    class_names: Sequence[str]
    image_shape: tuple[int, ...] | None


def write_report(
    path: Path,
    name: str,
    config: dict[str, Any],
    history: list[dict[str, Any]],
    model: Any,
    test: Evaluation,
    note: str = "",
) -> None:
    """Write the report of a run from its ``config.json``, history, fitted model and test data.

    ``note`` is printed at the top, e.g. that the training was interrupted.
    """
    settings, result = config["settings"], config["result"]
    run = RunSummary(path.parent, config, history)
    scores, data = run.scores, run.data
    score, value = next(iter(scores.items()))
    mark = {"accuracy [%]": 100 * value} if score.endswith("accuracy") else {"R²": value}
    summary = model.summary()
    everything = {name: readable(value) for name, value in settings["params"].items()}
    machine = config["backend"] | {"platform": config["platform"]} | config["versions"]
    if test.probabilities is None:
        sections = _value_sections(test)
    else:
        sections = _class_sections(model, test, test.probabilities)
    chosen = {name: settings.get(name) for name in _CHOSEN if settings.get(name)}
    if "drop" in chosen:
        chosen["drop"] = ", ".join(chosen["drop"])
    numbers = {
        **{score_name(key): score_text(key, number) for key, number in scores.items()},
        **_baseline(result),
        "test samples": number_text(len(test.y)),
        "epochs": number_text(result["epochs"]),
        "training": seconds_text(result["seconds"]),
        "samples per second": number_text(result["images_per_second"]),
        "parameters": number_text(summary.parameters),
    }
    command = preformatted(config.get("command", ""))
    changed = definitions(chosen | changed_settings(model, settings["params"]))
    others = folded("all parameters", definitions(everything))
    parts = [
        heading(name, f"A network trained on {data} by mlp-xp."),
        paragraph(note),
        tiles(numbers),
        section("Training", figures(curve_figures(run, mark))),
        *sections,
        _first_layer(model, test),
        section("Command and settings", command, changed, others),
        _network(summary),
        section("Machine and versions", definitions(machine)),
    ]
    write_page(path, f"{name}, {data}", parts)


def _baseline(result: dict[str, Any]) -> dict[str, str]:
    names = {"baseline_accuracy": "most frequent class", "baseline_rmse": "RMSE of the mean"}
    return {text: score_text(name, result[name]) for name, text in names.items() if name in result}


def _class_sections(model: Any, test: Evaluation, probabilities: np.ndarray) -> list[str]:
    labels = range(len(test.class_names))
    rates = confusion_matrix(test.y, test.predicted, labels=labels, normalize="true")
    confusion = ConfusionMatrixDisplay(rates, display_labels=test.class_names)
    side = min(3.0 + 0.25 * len(labels), 7.5)
    matrix = svg_of(confusion, side + 0.7, side, "confusion matrix")
    calibration = CalibrationDisplay.of_predictions(test.y, probabilities, classes=model.classes_)
    reliability = svg_of(calibration, 4.4, 3.6, "reliability")
    error = 100 * (calibration.calibration_error or 0.0)
    of_matrix = "Each row is a true class. Darker colors are more frequent mistakes."
    of_error = (
        f"The expected calibration error (ECE) is {error:.1f} %: how far the probability of the "
        "predicted class is from the fraction of correct predictions, on average. Below the "
        "dotted line, the network is overconfident."
    )
    matrix = figures({"percent of the true class": matrix})
    reliability = figures({"bars: fraction of the test samples": reliability})
    return [
        _class_table(test),
        section("Confusion", paragraph(of_matrix), matrix),
        section("Reliability", paragraph(of_error), reliability),
        _mistakes(model, test, probabilities),
    ]


def _class_table(test: Evaluation) -> str:
    """Return a table of recall, precision and F1 per class, with the lowest recall first."""
    labels = range(len(test.class_names))
    counts = confusion_matrix(test.y, test.predicted, labels=labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        test.y, test.predicted, labels=labels, average=None, zero_division=0.0
    )
    mistakes = np.where(np.eye(len(labels), dtype=bool), 0, counts)
    rows = []
    for label in np.argsort(recall, kind="stable"):
        other = int(np.argmax(mistakes[label]))
        n_taken = mistakes[label, other]
        taken = f"{test.class_names[other]} ({n_taken:,})" if n_taken else ""
        percents = (f"{100 * measure[label]:.1f} %" for measure in (recall, precision, f1))
        rows.append([test.class_names[label], taken, f"{support[label]:,}", *percents])
    names = ["class", "most often confused with", "samples", "recall", "precision", "F1"]
    drawn = table(names, rows, n_text=2)
    if len(rows) > _MAX_OPEN:
        drawn = folded(f"{len(rows)} classes, the worst first", drawn)
    explained = "Recall is the fraction of a class that was recognized, precision the fraction of "
    explained += "the predictions of a class that were correct, and F1 their harmonic mean."
    return section("Classes", paragraph(explained), drawn)


def _mistakes(model: Any, test: Evaluation, probabilities: np.ndarray) -> str:
    """Return the most confident mistakes as images; "" if the samples are not images."""
    if test.image_shape is None or test.image_shape[0] not in (1, 3):
        return ""
    names = [test.class_names[int(label)] for label in model.classes_]
    given = {"classes": model.classes_, "class_names": names, "image_shape": test.image_shape}
    found = surest_mistakes(test.x, test.y, probabilities, n_images=_N_MISTAKES, **given)
    if found is None:
        return section("Surest mistakes", paragraph("None: all predictions are correct."))
    captions = [
        (f"{predicted} {100 * p:.0f} %", f"is {truth}")
        for predicted, p, truth in zip(found.predicted, found.confidence, found.truth, strict=True)
    ]
    note = "Samples that are hard or have a wrong label. The prediction is in bold."
    return section("Surest mistakes", paragraph(note), image_grid(found.pictures(), captions))


def _value_sections(test: Evaluation) -> list[str]:
    y, predicted = test.y, test.predicted
    rows = np.random.default_rng(0).permutation(len(y))[:_N_POINTS]
    display = PredictionErrorDisplay(y_true=y[rows], y_pred=predicted[rows])
    drawn = {
        caption: svg_of(display, 4.4, 4.0, caption, kind=kind, **_POINTS)
        for kind, caption in _PREDICTIONS.items()
    }
    errors = {
        "R2": f"{r2_score(y, predicted):.4f}",
        "root mean squared error": value_text(root_mean_squared_error(y, predicted)),
        "mean absolute error": value_text(mean_absolute_error(y, predicted)),
        "standard deviation of the truth": value_text(float(np.std(y))),
    }
    table_of = table(["", *errors], [["test samples", *errors.values()]])
    return [section("Errors", table_of), section("Predictions", figures(drawn))]


def _network(summary: Any) -> str:
    rows = [(row.name, *map(number_text, row[1:4])) for row in summary.rows]
    total = ("total", "", number_text(summary.parameters), number_text(summary.work))
    header = ["layer", "outputs", "parameters", "FLOPs per sample"]
    return section("Network", table(header, [*rows, total]))


def _first_layer(model: Any, test: Evaluation) -> str:
    """Return the weights of a dense first layer as images, if its inputs are images."""
    shape = test.image_shape
    weights: Any = next(iter(getattr(model, "coefs_", ())), None)  # No coefs_ if n_members > 1.
    if shape is None or shape[0] not in (1, 3) or len(getattr(weights, "shape", ())) != 2:
        return ""
    shown = largest_weights(model, shape, _N_NEURONS).pictures()
    colors = "red raises their output, blue lowers it" if shape[0] == 1 else "gray is 0"
    note = f"The {len(shown)} of {weights.shape[1]:,} neurons with the largest weights, each on "
    note += f"its own scale: {colors}."
    drawn = image_grid(shown, [("", "")] * len(shown), side="3.5rem")
    return section("First layer", paragraph(note), drawn)


def write_comparison(
    path: Path,
    runs: Mapping[str, RunSummary],
    results: Sequence[Sequence[str]],
    settings: Sequence[Sequence[str]],
) -> None:
    title, header = f"{len(runs)} runs side by side", ["", *runs]
    left_out = len(runs) - MOST_RUNS
    note = paragraph(f"The last {left_out} runs have no curve." if left_out > 0 else "")
    curves = figures(compared_figures(runs))
    differences = paragraph("Settings, machine and versions are the same.")
    if settings:
        differences = table(header, settings, n_text=len(header))
    parts = [heading(title, ", ".join(runs)), section("Results", table(header, results))]
    parts += [section("Training", note, curves), section("What differs", differences)]
    write_page(path, title, parts)
