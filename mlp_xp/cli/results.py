"""The files of a run beside the model: configuration, history and pictures."""

from __future__ import annotations

import csv
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp import __version__
from mlp_xp._utils.durable import replacing
from mlp_xp._utils.optional import optional
from mlp_xp._utils.signals import postponed
from mlp_xp.backends import Backend
from mlp_xp.cli.report import Evaluation
from mlp_xp.cli.runs import CONFIG, Images
from mlp_xp.cli.settings import Settings
from mlp_xp.datasets import Dataset
from mlp_xp.estimators import MLPClassifier
from mlp_xp.plotting import (
    ConfusionMatrixDisplay,
    TrainingCurvesDisplay,
    new_figure,
    save_figure,
    training_panels,
)
from mlp_xp.saving import encode
from mlp_xp.training.records import Record

__all__ = [
    "config_of",
    "draw_curves",
    "draw_results",
    "history_of",
    "result_of",
    "test_of",
    "write_config",
    "write_history",
]

_COLUMNS = [name.replace("validation_score", "validation_accuracy") for name in Record._fields]


def config_of(
    settings: Settings, model: MLPClassifier, data: Dataset, backend: Backend
) -> dict[str, Any]:
    """Return what decides a run, and what is needed to use its model without the data set."""
    path = None if settings.data_path is None else str(Path(settings.data_path).resolve())
    images = Images(
        settings.data,
        path,
        data.class_names,
        data.image_shape,
        data.max_value,
        settings.target,
        settings.image_size,
        data.feature_names,
    )
    libraries = ("numpy", "scikit-learn", "array-api-compat")
    params = model.get_params(deep=False)
    del params["callbacks"]
    encoded = {name: encode(name, value, name) for name, value in params.items()}
    return {
        "settings": {**asdict(settings), "params": encoded},
        "data": asdict(images),
        "backend": {"name": backend.name, **backend.describe()},
        "versions": {"python": platform.python_version(), "mlp-xp": __version__}
        | {name: version(name) for name in libraries},
        "platform": platform.platform(),
    }


def history_of(model: MLPClassifier) -> list[dict[str, Any]]:
    """Return a row for each epoch."""
    return [dict(zip(_COLUMNS, record, strict=True)) for record in model.history_]


def test_of(model: MLPClassifier, data: Dataset, *, has_views: bool) -> Evaluation:
    """Return the test data with what the model predicts, without test-time views if so asked."""
    p = model.predict_proba(data.x_test, **({} if has_views else {"tta": None}))
    predicted = model.classes_[np.argmax(p, axis=1)]
    facts = data.class_names, data.image_shape, data.max_value
    return Evaluation(data.x_test, data.y_test, predicted, p, *facts)


def result_of(
    history: list[dict[str, Any]], y: np.ndarray, predicted: np.ndarray, *, is_interrupted: bool
) -> dict[str, Any]:
    """Return the accuracy on the test images, and the time of the training."""
    seconds = sum(row["seconds"] for row in history)
    return {
        "test_accuracy": float(np.mean(predicted == y)),
        "epochs": len(history),
        "interrupted": is_interrupted,
        "seconds": seconds,
        # "lbfgs" may stop before its first epoch.
        "images_per_second": sum(row["n_samples"] for row in history) / (seconds or 1.0),
    }


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.json``, all or nothing."""
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2, allow_nan=False))


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write ``history.csv``."""
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(history)


def draw_results(
    folder: Path, history: list[dict[str, Any]], data: Dataset, predicted: np.ndarray
) -> None:
    """Draw loss and accuracy by epoch, and the confusion matrix of the test images."""
    with postponed():
        optional("matplotlib.backends.backend_agg")
    curves = draw_curves(history, float(np.mean(predicted == data.y_test)))
    save_figure(curves.figure_, folder / "curves.png")
    confusion = ConfusionMatrixDisplay.from_predictions(
        data.y_test,
        predicted,
        labels=range(len(data.class_names)),
        display_labels=data.class_names,
        ax=new_figure(8.5, 7.5).subplots(),
    )
    confusion.ax_.set_title(f"{len(predicted):,} test images")
    save_figure(confusion.figure_, folder / "confusion.png")


def draw_curves(
    history: list[dict[str, Any]], test_accuracy: float | None
) -> TrainingCurvesDisplay:
    """Draw loss, accuracy and learning rate by epoch, as far as they are known."""
    columns = {
        "loss": {"training": "loss", "validation": "validation_loss"},
        "accuracy [%]": {"training": "accuracy", "validation": "validation_accuracy"},
    }
    # A fit may end before its first epoch.
    panels = training_panels(history, columns) or {"loss": {"training": []}}
    test = None if test_accuracy is None else {"accuracy [%]": 100.0 * test_accuracy}
    axes = new_figure(5.5 * len(panels), 4).subplots(1, len(panels), squeeze=False)[0]
    return TrainingCurvesDisplay(panels, test=test).plot(ax=axes)
