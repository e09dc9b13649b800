"""The ``config.json`` of a run: its settings, data, machine and result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.storage.durable import replacing
from mlp_xp.cli.settings import DataSettings, Settings
from mlp_xp.datasets import LOADERS, Dataset
from mlp_xp.datasets._files import sha256_of_file
from mlp_xp.datasets._own_data.columns import decode_columns
from mlp_xp.recipes import FILES
from mlp_xp.saving import read_json
from mlp_xp.saving._files import expect

CONFIG, CHECKPOINTS, REPORT = "config.json", "checkpoints", "report.html"
# The names in the file of the fields that locate the data.
_NAMES = {"name": "data", "path": "data_path"}
CURE = "expected a folder that `mlp-xp train` wrote, such as runs/<date>-<time>-cifar10"


@dataclass(frozen=True)
class DataInfo(DataSettings):
    """A description of a run's data set that allows using the model without the data.

    ``class_names`` is empty for regression. ``columns`` is empty if the data are not a table.
    ``digest`` is the digest of the user's own data; see `digest_of`. ``sha256`` is the SHA-256 of
    the table's file, or None for other data and for runs of earlier versions.
    """

    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    max_value: int = 255
    feature_names: tuple[str, ...] = ()
    digest: str | None = None
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        values = asdict(self)
        del values["task"], values["drop"]  # Both follow from the class names and the columns.
        return {name: values.pop(field) for name, field in _NAMES.items()} | values


def describe_data(settings: Settings, data: Dataset) -> DataInfo:
    """Return the description of a run's data set."""
    known = {field.name: getattr(settings, field.name) for field in fields(DataSettings)}
    known["drop"] = ()
    if settings.data_path is not None:
        known["data_path"] = str(Path(settings.data_path).resolve())
    if data.columns is not None:
        known |= {"target": data.columns.target, "columns": data.columns.used}
    found = {name: getattr(data, name) for name in ("class_names", "image_shape", "max_value")}
    if settings.data == FILES:
        found["digest"], path = digest_of(data), Path(str(settings.data_path))
        found["sha256"] = sha256_of_file(path) if path.is_file() else None
    return DataInfo(**known | found, feature_names=data.feature_names)


def digest_of(data: Dataset) -> str:
    """Return a digest of the targets, which changes if other rows are held out for testing."""
    sha256 = hashlib.sha256()
    for y in (data.y_train, data.y_test):
        sha256.update(f"{y.dtype.str} {len(y)} ".encode() + np.ascontiguousarray(y).tobytes())
    return sha256.hexdigest()


def read_config(folder: Path, cure: str = CURE) -> dict[str, Any]:
    """Read the ``config.json`` of a run; error messages end with ``cure``."""
    return read_json(folder / CONFIG, cure)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.json`` atomically."""
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2, allow_nan=False))


def data_info(config: dict[str, Any], model: Any) -> DataInfo:
    """Return the data description in a configuration, after checking it against the model."""
    data = {**config["data"]}
    given = {field: data.pop(name) for name, field in _NAMES.items()}
    lists = ("class_names", "image_shape", "image_size", "feature_names")
    given |= {name: None if data[name] is None else tuple(data[name]) for name in lists}
    given["task"] = "classification" if given["class_names"] else "regression"
    info = DataInfo(**data | given | {"columns": decode_columns(data["columns"])})
    _ = info.form  # Raise an error for invalid values.
    size, shape, features = info.image_size, info.image_shape, info.feature_names
    classes = getattr(model, "classes_", np.empty(0, dtype=int))
    is_known = info.data in LOADERS or (info.data == FILES and info.data_path is not None)
    expect(is_known, f"name must be one of {', '.join(LOADERS)}, {FILES}, got {info.data!r}")
    is_text = isinstance(info.target, str | None)
    expect(is_text, f"target must be text or null, got {info.target!r}")
    is_size = size is None or (len(size) == 2 and _are_counts(size))
    expect(is_size, f"image_size must be null or two positive integers, got {size}")
    n_inputs = model.n_features_in_
    fits = _are_texts(features) and len(features) == (n_inputs if shape is None else 0)
    expect(fits, f"feature_names has {len(features)} names for {n_inputs} inputs")
    fits = not info.columns or tuple(column.name for column in info.columns) == features
    expect(fits, "columns and feature_names must have the same names")
    is_text = isinstance(info.data_path, str | None)
    expect(is_text, f"path must be text or null, got {info.data_path!r}")
    is_byte = _are_counts([info.max_value]) and info.max_value <= 255
    expect(is_byte, f"max_value must be an integer from 1 to 255, got {info.max_value!r}")
    names = info.class_names
    fits = _are_texts(names) and bool(np.all(np.isin(classes, np.arange(len(names)))))
    expect(fits, f"class_names do not match the model's classes {classes.tolist()}")
    if shape is not None:
        fits = len(shape) == 3 and shape[0] in (1, 3) and _are_counts(shape)
        fits = fits and math.prod(shape) == n_inputs
        expect(fits, f"image_shape is {shape}, but the model has {n_inputs} inputs")
    return info


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_counts(values: Iterable[Any]) -> bool:
    return all(type(value) is int and value > 0 for value in values)
