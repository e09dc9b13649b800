"""The parts of the commands that differ between classification and regression."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from sklearn.metrics import (
    PredictionErrorDisplay,
    log_loss,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.cli.report import Evaluation
from mlp_xp.cli.terminal.lines import printable
from mlp_xp.cli.terminal.text import score_text, value_text
from mlp_xp.datasets import Dataset
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.averaging import networks_of
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.plotting import ConfusionMatrixDisplay, new_figure, save_figure
from mlp_xp.training.loop.records import Running

ESTIMATORS: dict[str, Any] = {"classification": MLPClassifier, "regression": MLPRegressor}
_N_CLASSES = 3  # The number of classes printed for each prediction.
_N_COUNTED = 10  # The number of classes in a summary.
_LEVELS = (0.05, 0.95)  # The quantiles that are predicted from a standard deviation.
_LARGEST = 1e100  # Predictions are clipped to this, so a diverged network has finite scores.


class Predictions(NamedTuple):
    """Predictions for new samples.

    ``columns`` are the columns of a file, ``results`` the JSON values of each sample, ``summary``
    a line about all samples, and ``texts(n)`` the columns of a printed table of n samples.
    """

    columns: Mapping[str, list[Any]]
    results: list[dict[str, Any]]
    summary: str
    texts: Callable[[int], dict[str, list[str]]]


@dataclass(frozen=True)
class Classification:
    """The parts of the commands that are specific to classification."""

    class_names: Sequence[str]
    metric, label = "accuracy", "accuracy [%]"
    next_evaluate, next_predict = "the accuracy of each class", "classify"

    def describe(self, y: np.ndarray) -> str:
        """Describe the targets by the number of classes."""
        return f"{len(self.class_names)} classes"

    def test(self, model: Any, data: Dataset, **settings: Any) -> Evaluation:
        """Return the test data with predicted classes and probabilities."""
        p = model.predict_proba(data.x_test, **settings)
        predicted = model.classes_[np.argmax(p, axis=1)]
        # Escape control characters, because matplotlib warns that it has no glyphs for them.
        names = list(map(printable, data.class_names))
        return Evaluation(data.x_test, data.y_test, predicted, p, names, data.image_shape)

    def scores(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return the accuracy."""
        return {"test_accuracy": float(np.mean(predicted == y))}

    def constant(self, y: np.ndarray) -> Any:
        """Return the most frequent class."""
        return np.argmax(np.bincount(y))

    def is_useless(self, test: Evaluation, y: np.ndarray, model: Any) -> bool:
        """Whether the class frequencies of ``y`` predict the test data better.

        Both the accuracy and the log loss must be worse, since a class may be rare.
        """
        assert test.probabilities is not None
        constant = np.mean(test.y == self.constant(y))
        if np.mean(test.predicted == test.y) >= constant:
            return False
        classes = model.classes_
        frequencies = np.bincount(y, minlength=len(self.class_names))[classes] / len(y)
        known = np.isin(test.y, classes)
        loss, constant = (
            log_loss(test.y[known], p[known], labels=classes)
            for p in (test.probabilities, np.tile(frequencies, (len(known), 1)))
        )
        return bool(loss > constant)

    def summary(self, scores: dict[str, Any]) -> str:
        """Return the test accuracy as text."""
        text = f"test accuracy {100 * scores['test_accuracy']:.2f} %"
        baseline = scores.get("baseline_accuracy")
        return text if baseline is None else f"{text} (most frequent class {100 * baseline:.2f} %)"

    def table(self, test: Evaluation, samples: str) -> tuple[list[str], dict[str, Any]]:
        """Return the accuracy of each class."""
        names = list(map(printable, self.class_names))
        width = max(map(len, names))
        lines, by_class = [f"{'class':{width}}  {samples}   right"], {}
        for label, name in enumerate(names):
            is_correct = (test.predicted == test.y)[test.y == label]
            if len(is_correct):
                by_class[self.class_names[label]] = float(np.mean(is_correct))
                percent = f"{100 * np.mean(is_correct):5.1f} %"
                lines.append(f"{name:{width}}  {len(is_correct):{len(samples)},}  {percent}")
        return lines, {"by_class": by_class}

    def running(self, running: Running, model: Any) -> list[str]:
        """Return the training accuracy as text, if it was measured."""
        accuracy = running.accuracy
        return [] if accuracy is None else [f"acc {100 * accuracy:.1f} %"]

    def validation(self, score: float) -> str:
        """Return the validation accuracy as text."""
        return f"val {100 * score:.1f} %"

    def predict(self, model: Any, x: np.ndarray, interval: float | None) -> Predictions:
        """Return the label, the probabilities, and the set of likely classes of each sample."""
        p = model.predict_proba(x)
        names = [self.class_names[label] for label in model.classes_]
        order = np.argsort(-p, axis=1, kind="stable")[:, :_N_CLASSES]
        labels = [names[i] for i in order[:, 0].tolist()]
        columns: dict[str, list[Any]] = {"label": labels}
        columns |= {f"probability_{name}": p[:, i].tolist() for i, name in enumerate(names)}
        likely = [
            {names[i]: float(row[i]) for i in likeliest}
            for row, likeliest in zip(p, order.tolist(), strict=True)
        ]
        results = [
            {"label": label, "probabilities": found}
            for label, found in zip(labels, likely, strict=True)
        ]
        if interval is not None:
            found = model.predict_set(x, interval)
            sets = [[names[i] for i in np.flatnonzero(row)] for row in found]
            columns["set"] = [", ".join(one) for one in sets]
            results = [result | {"set": one} for result, one in zip(results, sets, strict=True)]
        counts = Counter(labels).most_common()
        parts = [f"{name} {count:,}" for name, count in counts[:_N_COUNTED]]
        parts += [f"{len(counts) - _N_COUNTED} other classes"] if len(counts) > _N_COUNTED else []

        def texts(n: int) -> dict[str, list[str]]:
            ranked = [[f"{100 * value:.1f} %" for value in one.values()] for one in likely[:n]]
            shown = {"label": labels[:n], "probability": [one[0] for one in ranked]}
            if len(names) > 2:
                shown["next"] = [
                    ", ".join(f"{name} {text}" for name, text in [*zip(one, text, strict=True)][1:])
                    for one, text in zip(likely[:n], ranked, strict=True)
                ]
            return shown | {name: columns[name][:n] for name in ("set",) if name in columns}

        return Predictions(columns, results, ", ".join(parts), texts)

    def draw(self, folder: Path, test: Evaluation) -> None:
        """Draw the confusion matrix."""
        labels, ax = range(len(self.class_names)), new_figure(8.5, 7.5).subplots()
        ConfusionMatrixDisplay.from_predictions(
            test.y, test.predicted, labels=labels, display_labels=test.class_names, ax=ax
        )
        ax.set_title(f"{len(test.y):,} test {'samples' if test.image_shape is None else 'images'}")
        save_figure(ax.figure, folder / "confusion.png")


@dataclass(frozen=True)
class Regression:
    """The parts of the commands that are specific to regression."""

    metric, label = "r2", "R²"
    next_evaluate, next_predict = "the errors on the test data", "predict"

    def describe(self, y: np.ndarray) -> str:
        """Describe the targets by their range."""
        return f"numbers from {value_text(y.min())} to {value_text(y.max())}"

    def test(self, model: Any, data: Dataset, **settings: Any) -> Evaluation:
        """Return the test data with the predicted numbers."""
        predicted = np.nan_to_num(model.predict(data.x_test, **settings))
        predicted = np.clip(predicted, -_LARGEST, _LARGEST)
        return Evaluation(data.x_test, data.y_test, predicted, None, (), data.image_shape)

    def scores(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return R2, the root mean squared error and the mean absolute error."""
        return {
            "test_r2": float(r2_score(y, predicted)),
            "test_rmse": float(root_mean_squared_error(y, predicted)),
            "test_mae": float(mean_absolute_error(y, predicted)),
        }

    def constant(self, y: np.ndarray) -> Any:
        """Return the mean of the targets."""
        return np.mean(y)

    def is_useless(self, test: Evaluation, y: np.ndarray, model: Any) -> bool:
        """Whether the mean of ``y`` predicts the test data better, by RMSE and MAE."""
        constant = np.full(len(test.y), self.constant(y))
        return all(
            measure(test.y, test.predicted) > measure(test.y, constant)
            for measure in (root_mean_squared_error, mean_absolute_error)
        )

    def summary(self, scores: dict[str, Any]) -> str:
        """Return all test scores as text."""
        names = [f"test_{name}" for name in ("r2", "rmse", "mae")]
        r2, rmse, mae = (score_text(name, scores[name]) for name in names)
        text = f"test R2 {r2}, RMSE {rmse}, MAE {mae}"
        if "baseline_rmse" not in scores:
            return text
        rmse, mae = (value_text(scores[f"baseline_{name}"]) for name in ("rmse", "mae"))
        return f"{text} (the mean: RMSE {rmse}, MAE {mae})"

    def table(self, test: Evaluation, samples: str) -> tuple[list[str], dict[str, Any]]:
        """Return the mean and standard deviation of the targets, for comparison with the errors."""
        mean, deviation = float(np.mean(test.y)), float(np.std(test.y))
        line = f"true values: mean {value_text(mean)}, standard deviation {value_text(deviation)}"
        return [line], {"mean": mean, "standard_deviation": deviation}

    def running(self, running: Running, model: Any) -> list[str]:
        """Return the training error as text, in the unit of the targets."""
        scaling = model._state.targets.scaling
        # The loss includes the L2 penalty, so it yields the RMSE only if alpha is 0.
        if scaling is None or model.loss != "squared_error" or model.alpha != 0:
            return []
        rmse = math.sqrt(2.0 * max(running.loss, 0.0)) * float(scaling[1][0])
        return [f"RMSE {value_text(rmse)}"]

    def validation(self, score: float) -> str:
        """Return the validation R2 as text."""
        return f"val R2 {score:.3f}"

    def predict(self, model: Any, x: np.ndarray, interval: float | None) -> Predictions:
        """Return the predicted value of each sample, its interval, and the loss's quantiles."""
        values = model.predict(x)
        columns: dict[str, list[float]] = {"prediction": values.tolist()}
        loss = fitted_state(networks_of(model)[0]).loss
        if loss.has_std:
            columns["std"] = model.predict(x, return_std=True)[1].tolist()
        levels = _LEVELS if loss.has_std else loss.levels
        for level in levels:
            columns[f"quantile_{level:g}"] = model.predict(x, quantiles=level).tolist()
        if interval is not None:
            low, high = model.predict(x, interval=interval).T.tolist()
            columns |= {"lower": low, "upper": high}
        rows = zip(*columns.values(), strict=True)
        results = [dict(zip(columns, row, strict=True)) for row in rows]
        mean, least, most = map(value_text, (values.mean(), values.min(), values.max()))

        def texts(n: int) -> dict[str, list[str]]:
            return {name: [*map(value_text, found[:n])] for name, found in columns.items()}

        return Predictions(columns, results, f"mean {mean}, from {least} to {most}", texts)

    def draw(self, folder: Path, test: Evaluation) -> None:
        """Draw predictions against true values, and errors against predictions."""
        axes = new_figure(9.0, 4.2).subplots(1, 2)
        for ax, kind in zip(axes, ("actual_vs_predicted", "residual_vs_predicted"), strict=True):
            PredictionErrorDisplay(y_true=test.y, y_pred=test.predicted).plot(ax, kind=kind)
        save_figure(axes[0].figure, folder / "predictions.png")


Task: TypeAlias = Classification | Regression


def score_of(model: Any, task: Task) -> str:
    """Return the name of the validation score: the metric, "loss", "refinement" or "score"."""
    if model.scoring in ("loss", "refinement"):
        return str(model.scoring)
    loss = getattr(getattr(model, "_state", None), "loss", None)
    if model.scoring is None and loss is not None and (loss.has_std or loss.levels):
        return "loss"  # R2 ignores predicted intervals.
    return task.metric if model.scoring in (None, task.metric) else "score"


def task_of(class_names: Sequence[str]) -> Task:
    """Return a classification task with these classes, or regression if there are none."""
    return Classification(class_names) if class_names else Regression()


def result_text(task: Task, result: dict[str, Any], samples: str) -> str:
    """Return the result of a run as one line: the scores, the time and the speed."""
    seconds, speed = result["seconds"], result["images_per_second"]
    return f"{task.summary(result)}, {seconds:.1f} s, {speed:,.0f} {samples}/s"


def baseline_of(task: Task, data: Dataset) -> dict[str, float]:
    """Return the test scores of a constant prediction, like scikit-learn's dummy estimators."""
    constant = np.full(len(data.y_test), task.constant(data.y_train))
    scores = task.scores(data.y_test, constant)
    return {name.replace("test", "baseline"): score for name, score in scores.items()}
