"""The rules of the gallery: no warnings, under a minute each, and the order on its page."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from sphinx.util.logging import getLogger

__all__ = ["LIMIT", "ReadingOrder", "check_example"]

LIMIT = 60.0  # Seconds.
ORDER = (
    "digits_in_twenty_lines",
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
_started: dict[str, float] = {}


class ReadingOrder:
    """The key by which sphinx-gallery sorts examples: as in `ORDER`, then those that it lacks."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, filename: str) -> tuple[int, str]:
        """Return the key of a file."""
        name = Path(filename).stem.removeprefix("plot_")
        return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def check_example(gallery_conf: dict[str, Any], filename: str, when: str) -> None:
    """Raise in an example what would be a warning, and warn of an example that is too slow.

    sphinx-gallery calls this before and after each example.
    """
    if when == "before":
        warnings.simplefilter("error")
        _started[filename] = time.perf_counter()
        return
    warnings.resetwarnings()
    seconds = time.perf_counter() - _started.pop(filename)
    if seconds > LIMIT:
        logger = getLogger(__name__)
        logger.warning("%s took %.0f s, and an example may take %.0f", filename, seconds, LIMIT)
