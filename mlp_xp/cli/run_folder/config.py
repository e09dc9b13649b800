"""The ``config.json`` of a run: its settings, data, machine and result."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.storage.durable import replacing
from mlp_xp.cli.loading import load_data
from mlp_xp.cli.terminal.output import Output
from mlp_xp.datasets import LOADERS, Dataset
from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data.columns import decode_columns
from mlp_xp.recipes import FILES
from mlp_xp.saving import read_json

CONFIG, CHECKPOINTS, REPORT = "config.json", "checkpoints", "report.html"
CURE = "expected a folder that `mlp-xp train` wrote, such as runs/<date>-<time>-cifar10"


@dataclass(frozen=True)
class DataInfo:
    """A description of a run's data set that allows using the model without the data.

    ``class_names`` is empty for regression. ``columns`` is empty if the data are not a table.
    """

    name: str
    path: str | None
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    max_value: int
    target: str | None = None
    image_size: tuple[int, int] | None = None
    feature_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()

    def load(self, output: Output) -> Dataset:
        """Load the data set."""
        options = {
            "target": self.target,
            "image_size": self.image_size,
            "task": "classification" if self.class_names else "regression",
            "columns": self.columns or None,
        }
        return load_data(self.name, self.path, options, output)


def read_config(folder: Path, cure: str = CURE) -> dict[str, Any]:
    """Read the ``config.json`` of a run; error messages end with ``cure``."""
    return read_json(folder / CONFIG, cure)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.json`` atomically."""
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2, allow_nan=False))


def data_info(config: dict[str, Any], model: Any) -> DataInfo:
    """Return the data description in a configuration, after checking it against the model."""
    data = config["data"]
    lists = ("class_names", "image_shape", "image_size", "feature_names")
    given = {name: None if data[name] is None else tuple(data[name]) for name in lists}
    info = DataInfo(**data | given | {"columns": decode_columns(data["columns"])})
    size, shape, features = info.image_size, info.image_shape, info.feature_names
    classes = getattr(model, "classes_", np.empty(0, dtype=int))
    checks = {
        f"name must be one of {', '.join(LOADERS)}, {FILES}, got {info.name!r}": (
            info.name in LOADERS or (info.name == FILES and info.path is not None)
        ),
        f"target must be text or null, got {info.target!r}": isinstance(info.target, str | None),
        f"image_size must be null or two positive integers, got {size}": (
            size is None or (len(size) == 2 and _are_counts(size))
        ),
        f"feature_names has {len(features)} names for {model.n_features_in_} inputs": (
            _are_texts(features) and len(features) == (model.n_features_in_ if shape is None else 0)
        ),
        "columns and feature_names must have the same names": (
            not info.columns or tuple(column.name for column in info.columns) == features
        ),
        f"path must be text or null, got {info.path!r}": isinstance(info.path, str | None),
        f"max_value must be an integer from 1 to 255, got {info.max_value!r}": (
            _are_counts([info.max_value]) and info.max_value <= 255
        ),
        f"class_names do not match the model's classes {classes.tolist()}": (
            _are_texts(info.class_names)
            and np.all(np.isin(classes, np.arange(len(info.class_names))))
        ),
        f"image_shape is {shape}, but the model has {model.n_features_in_} inputs": (
            shape is None
            or (
                len(shape) == 3
                and shape[0] in (1, 3)
                and _are_counts(shape)
                and math.prod(shape) == model.n_features_in_
            )
        ),
    }
    for problem, is_valid in checks.items():
        if not is_valid:
            raise ValueError(problem)
    return info


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_counts(values: Iterable[Any]) -> bool:
    return all(type(value) is int and value > 0 for value in values)
