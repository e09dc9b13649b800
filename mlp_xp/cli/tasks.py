"""Tasks of a training, to learn classes or numbers: all that differs between the two."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mlp_xp.cli.facts import score_text, value_text
from mlp_xp.cli.process import printable
from mlp_xp.cli.report import Evaluation
from mlp_xp.cli.runs import Images, in_units
from mlp_xp.datasets import Dataset
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.plotting import ConfusionMatrixDisplay, PredictionsDisplay, new_figure, save_figure
from mlp_xp.training.records import Record, Running

__all__ = ["ESTIMATORS", "Task", "task_of", "task_of_run"]

ESTIMATORS: dict[str, Any] = {"classification": MLPClassifier, "regression": MLPRegressor}
_N_CLASSES = 3  # Of a prediction.
# Losses whose error has the unit of the targets, or its square: they can be standardized.
_STANDARDIZED = ("squared_error", "absolute_error", "huber", "quantile")
# Of a network that diverged: its scores must be finite.
_LARGEST = 1e100


class Task(ABC):
    """The kind of a training.

    Attributes
    ----------
    metric : str
        The score, as columns and results have it.
    label : str
        The score, as the axis of a picture has it.
    scaling : (mean, deviation) or None
        That the targets are standardized by; None where they are not.
    next_evaluate, next_predict : str
        What those commands do.
    """

    metric: ClassVar[str]
    label: ClassVar[str]
    next_evaluate: ClassVar[str]
    next_predict: ClassVar[str]
    scaling: tuple[float, float] | None = None

    @abstractmethod
    def describe(self, y: np.ndarray) -> str:
        """Return what is learned, for a reader."""

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return targets to train on."""
        return y

    def in_units(self, model: Any) -> Any:
        """Return a trained model that predicts in the units of the data."""
        return model

    @abstractmethod
    def test(self, model: Any, data: Dataset, **settings: Any) -> Evaluation:
        """Return the test data with what the model predicts; settings are those of `predict`."""

    @abstractmethod
    def scores(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return the scores on test data by name, the most important first."""

    def baseline(self, data: Dataset) -> dict[str, float]:
        """Return the scores of predicting the same for all samples, as `Dummy` estimators do."""
        constant = np.full(len(data.y_test), self.constant(data.y_train))
        scores = self.scores(data.y_test, constant)
        return {name.replace("test", "baseline"): score for name, score in scores.items()}

    @abstractmethod
    def constant(self, y: np.ndarray) -> Any:
        """Return what is best predicted for all samples without a look at them."""

    @abstractmethod
    def summary(self, scores: dict[str, Any]) -> str:
        """Return the scores as a sentence, and those of the baseline."""

    @abstractmethod
    def table(self, test: Evaluation, samples: str) -> tuple[list[str], dict[str, Any]]:
        """Return more about a test: lines to print, and facts for a program."""

    @abstractmethod
    def running(self, running: Running) -> list[str]:
        """Return the score of the epoch so far, if it is known."""

    @abstractmethod
    def validation(self, record: Record) -> list[str]:
        """Return the score on validation data, if there are any."""

    @abstractmethod
    def predictions(self, model: Any, x: np.ndarray) -> list[tuple[str, dict[str, Any]]]:
        """Return the prediction for each sample: as text, and as facts for a program."""

    @abstractmethod
    def draw(self, folder: Path, test: Evaluation) -> None:
        """Draw the predictions for the test data."""


@dataclass(frozen=True)
class Classification(Task):
    """Classes are learned."""

    class_names: Sequence[str]
    metric, label = "accuracy", "accuracy [%]"
    next_evaluate, next_predict = "the accuracy of each class", "classify"

    def describe(self, y: np.ndarray) -> str:
        """Return the number of classes."""
        return f"{len(self.class_names)} classes"

    def test(self, model: Any, data: Dataset, **settings: Any) -> Evaluation:
        """Return the test data with probabilities."""
        p = model.predict_proba(data.x_test, **settings)
        predicted = model.classes_[np.argmax(p, axis=1)]
        # Matplotlib prints the characters that its fonts lack.
        facts = list(map(printable, data.class_names)), data.image_shape, data.max_value
        return Evaluation(data.x_test, data.y_test, predicted, p, *facts)

    def scores(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return the accuracy."""
        return {"test_accuracy": float(np.mean(predicted == y))}

    def constant(self, y: np.ndarray) -> Any:
        """Return the most frequent class."""
        return np.argmax(np.bincount(y))

    def summary(self, scores: dict[str, Any]) -> str:
        """Return the accuracy in percent."""
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
                share = f"{100 * np.mean(is_correct):5.1f} %"
                lines.append(f"{name:{width}}  {len(is_correct):{len(samples)},}  {share}")
        return lines, {"by_class": by_class}

    def running(self, running: Running) -> list[str]:
        """Return the training accuracy."""
        accuracy = running.accuracy
        return [] if accuracy is None else [f"acc {100 * accuracy:.1f} %"]

    def validation(self, record: Record) -> list[str]:
        """Return the validation accuracy."""
        score = record.validation_score
        return [] if score is None else [f"val {100 * score:.1f} %"]

    def predictions(self, model: Any, x: np.ndarray) -> list[tuple[str, dict[str, Any]]]:
        """Return the most likely classes of each sample."""
        found = []
        for p in model.predict_proba(x):
            likeliest = np.argsort(-p, kind="stable")[:_N_CLASSES]
            likely = [self.class_names[label] for label in model.classes_[likeliest]]
            shares = dict(zip(likely, p[likeliest].tolist(), strict=True))
            text = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
            found.append((text, {"probabilities": shares}))
        return found

    def draw(self, folder: Path, test: Evaluation) -> None:
        """Draw the confusion matrix."""
        confusion = ConfusionMatrixDisplay.from_predictions(
            test.y,
            test.predicted,
            labels=range(len(self.class_names)),
            display_labels=test.class_names,
            ax=new_figure(8.5, 7.5).subplots(),
        )
        confusion.ax_.set_title(f"{len(test.y):,} test images")
        save_figure(confusion.figure_, folder / "confusion.png")


@dataclass(frozen=True)
class Regression(Task):
    """Numbers are learned, standardized where the loss allows.

    A network that learns prices would spend its training on reaching their size: its weights start
    at outputs near 0 and deviations near 1.
    """

    scaling: tuple[float, float] | None = None
    has_squared_error: bool = False
    metric, label = "r2", "R²"
    next_evaluate, next_predict = "the errors on the test data", "predict"

    @classmethod
    def of_model(cls, y: np.ndarray, model: MLPRegressor) -> Self:
        """Return the task of a model that is trained on y."""
        can_be = model.loss in _STANDARDIZED and model.output_activation in ("auto", "identity")
        if not can_be or model.target_scaling is not None:
            return cls()
        # The loss of an epoch contains the penalty.
        is_plain = model.loss == "squared_error" and model.alpha == 0
        return cls((float(np.mean(y)), float(np.std(y)) or 1.0), is_plain)

    def describe(self, y: np.ndarray) -> str:
        """Return the range of the numbers."""
        return f"numbers from {value_text(y.min())} to {value_text(y.max())}"

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return the numbers standardized."""
        mean, deviation = self.scaling or (0.0, 1.0)
        return (y - mean) / deviation

    def in_units(self, model: Any) -> Any:
        """Return a model that predicts numbers that are not standardized."""
        return model if self.scaling is None else in_units(model, self.scaling)

    def test(self, model: Any, data: Dataset, **settings: Any) -> Evaluation:
        """Return the test data with the predicted numbers."""
        predicted = np.nan_to_num(model.predict(data.x_test, **settings))
        predicted = np.clip(predicted, -_LARGEST, _LARGEST)
        return Evaluation(data.x_test, data.y_test, predicted, None, (), data.image_shape)

    def scores(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Return the share of the variance that is explained, and two mean errors."""
        return {
            "test_r2": float(r2_score(y, predicted)),
            "test_rmse": float(root_mean_squared_error(y, predicted)),
            "test_mae": float(mean_absolute_error(y, predicted)),
        }

    def constant(self, y: np.ndarray) -> Any:
        """Return the mean."""
        return np.mean(y)

    def summary(self, scores: dict[str, Any]) -> str:
        """Return all scores."""
        names = [f"test_{name}" for name in ("r2", "rmse", "mae")]
        r2, rmse, mae = (score_text(name, scores[name]) for name in names)
        text = f"test R2 {r2}, RMSE {rmse}, MAE {mae}"
        if "baseline_rmse" not in scores:
            return text
        rmse, mae = (value_text(scores[f"baseline_{name}"]) for name in ("rmse", "mae"))
        return f"{text} (the mean: RMSE {rmse}, MAE {mae})"

    def table(self, test: Evaluation, samples: str) -> tuple[list[str], dict[str, Any]]:
        """Return the mean and the deviation of the truth, to compare errors with."""
        mean, deviation = float(np.mean(test.y)), float(np.std(test.y))
        line = f"true numbers: mean {value_text(mean)}, standard deviation {value_text(deviation)}"
        return [line], {"mean": mean, "standard_deviation": deviation}

    def running(self, running: Running) -> list[str]:
        """Return the error on the training data, in their unit."""
        if self.scaling is None or not self.has_squared_error:
            return []
        rmse = math.sqrt(2.0 * max(running.loss, 0.0)) * self.scaling[1]
        return [f"RMSE {value_text(rmse)}"]

    def validation(self, record: Record) -> list[str]:
        """Return the R2 of the validation data."""
        score = record.validation_score
        return [] if score is None else [f"val R2 {score:.3f}"]

    def predictions(self, model: Any, x: np.ndarray) -> list[tuple[str, dict[str, Any]]]:
        """Return the number of each sample."""
        values = model.predict(x).tolist()
        return [(value_text(value), {"prediction": value}) for value in values]

    def draw(self, folder: Path, test: Evaluation) -> None:
        """Draw predictions against the true numbers, and errors against predictions."""
        axes = new_figure(9.0, 4.2).subplots(1, 2)
        for ax, kind in zip(axes, ("actual_vs_predicted", "residual_vs_predicted"), strict=True):
            PredictionsDisplay(y_true=test.y, y_pred=test.predicted).plot(ax, kind=kind)
        save_figure(axes[0].figure, folder / "predictions.png")


def task_of_run(images: Images) -> Task:
    """Return the task of a run, whose model predicts in the units of the data."""
    return Classification(images.class_names) if images.class_names else Regression()


def task_of(data: Dataset, model: Any) -> Task:
    """Return the task of a model that is trained on a data set."""
    if data.class_names:
        return Classification(data.class_names)
    return Regression.of_model(data.y_train, model)
