"""The order of the gallery's examples, and a hook that turns their warnings into errors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

__all__ = ["ReadingOrder", "check_example"]

ORDER = (
    "digits_in_twenty_lines",
    "table_of_text_and_holes",
    "scikit_learn_with_one_import_changed",
    "training_curves_of_solvers",
    "cifar10_with_a_recipe",
    "four_array_libraries",
    "decision_boundaries",
    "learning_rate_schedules",
    "first_layer_weights",
    "saliency",
    "search_and_ensemble",
    "learning_curve",
    "calibration",
    "prediction_intervals",
    "custom_loss",
    "gradients_step_by_step",
    "checkpoints_and_resume",
    "digits_in_a_browser",
)


class ReadingOrder:
    """Sort key of the gallery: the examples in `ORDER` first, then all others by name."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, filename: str) -> tuple[int, str]:
        name = Path(filename).stem.removeprefix("plot_")
        return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def check_example(gallery_conf: dict[str, Any], filename: str, when: str) -> None:
    """Turn warnings into errors while an example runs; called before and after each example."""
    if when == "before":
        warnings.simplefilter("error")
    else:
        warnings.resetwarnings()
