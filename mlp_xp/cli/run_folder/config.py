"""``config.json`` of a run: settings, data, machine and result, written and parsed here alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.storage.durable import replacing
from mlp_xp.cli.loading import FILES, Source
from mlp_xp.datasets import LOADERS
from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data.columns import decode_columns
from mlp_xp.saving import read_json

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "CURE",
    "REPORT",
    "DataInfo",
    "data_info",
    "read_config",
    "write_config",
]

CONFIG, CHECKPOINTS, REPORT = "config.json", "checkpoints", "report.html"
CURE = "expected a folder that `mlp-xp train` wrote, such as runs/<date>-<time>-cifar10"


@dataclass(frozen=True)
class DataInfo:
    """The facts about a data set that using a model without it takes.

    ``class_names`` is empty where numbers are predicted. ``columns`` belong to a table.
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

    @property
    def source(self) -> Source:
        """The data to load."""
        task = "classification" if self.class_names else "regression"
        columns = self.columns
        return Source(self.name, self.path, self.target, self.image_size, task, columns=columns)


def read_config(folder: Path, cure: str = CURE) -> dict[str, Any]:
    """Return the content of a run's ``config.json``; the cure ends the error where it is none."""
    return read_json(folder / CONFIG, cure)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.json``, all or nothing."""
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2, allow_nan=False))


def data_info(config: dict[str, Any], model: Any) -> DataInfo:
    """Check what a configuration says of the data of a model, and return it."""
    data = config["data"]
    name, path, max_value = data["name"], data["path"], data["max_value"]
    names, shape = tuple(data["class_names"]), data["image_shape"]
    shape = None if shape is None else tuple(shape)
    target, size = data.get("target"), data.get("image_size")
    features = tuple(data.get("feature_names", ()))
    columns = decode_columns(data.get("columns", ()))
    classes = getattr(model, "classes_", np.empty(0, dtype=int))
    checks = {
        f"name must be one of {', '.join(LOADERS)}, {FILES}, got {name!r}": (
            name in LOADERS or (name == FILES and path is not None)
        ),
        f"target is {target!r}": isinstance(target, str | None),
        f"image_size is {size}": (
            size is None or (len(size) == 2 and all(type(n) is int and n > 0 for n in size))
        ),
        f"feature_names has {len(features)} names for {model.n_features_in_} inputs": (
            all(isinstance(name, str) for name in features)
            and len(features) in ((model.n_features_in_,) if shape is None else (0,))
        ),
        f"columns has {len(columns)} columns, and feature_names other ones": (
            not columns or tuple(column.name for column in columns) == features
        ),
        f"path is {path!r}": isinstance(path, str | None),
        f"max_value is {max_value!r}": type(max_value) is int and 1 <= max_value <= 255,
        f"class_names do not fit the model's classes {classes.tolist()}": (
            all(isinstance(name, str) for name in names)
            and np.all(np.isin(classes, np.arange(len(names))))
        ),
        f"image_shape is {shape}, and the model has {model.n_features_in_} inputs": (
            shape is None
            or (
                len(shape) == 3
                and shape[0] in (1, 3)
                and all(type(n) is int and n > 0 for n in shape)
                and math.prod(shape) == model.n_features_in_
            )
        ),
    }
    for problem, is_valid in checks.items():
        if not is_valid:
            raise ValueError(problem)
    size = None if size is None else tuple(size)
    return DataInfo(name, path, names, shape, max_value, target, size, features, columns)
