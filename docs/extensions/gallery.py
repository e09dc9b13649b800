"""The rules of the gallery: no warnings in an example, and the order on its page."""

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
    "onnx_in_a_browser",
)


class ReadingOrder:
    """The key by which sphinx-gallery sorts examples: as in `ORDER`, then those that it lacks."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, filename: str) -> tuple[int, str]:
        """Return the key of a file."""
        name = Path(filename).stem.removeprefix("plot_")
        return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def check_example(gallery_conf: dict[str, Any], filename: str, when: str) -> None:
    """Raise in an example what would be a warning.

    sphinx-gallery calls this before and after each example.
    """
    if when == "before":
        warnings.simplefilter("error")
    else:
        warnings.resetwarnings()
