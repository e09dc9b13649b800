"""Run folders: what ``mlp-xp train`` wrote, read by the other commands."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.cli.loading import FILES
from mlp_xp.datasets import LOADERS
from mlp_xp.datasets._columns import decode_columns, input_names
from mlp_xp.datasets._dataset import Column
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.saving import SPEC, load_model, read_json
from mlp_xp.training.checkpoints import checkpoints

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "REPORT",
    "DataInfo",
    "named",
    "newest_model",
    "read_run",
    "unfinished",
]

CONFIG, CHECKPOINTS, REPORT = "config.json", "checkpoints", "report.html"
_CURE = "expected a folder that `mlp-xp train` wrote, such as runs/<date>-<time>-cifar10"


@dataclass(frozen=True)
class DataInfo:
    """The facts about a data set that using a model without it takes.

    ``class_names`` is empty where numbers are predicted. ``columns`` are those of a table.
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
    def source(self) -> tuple[Any, ...]:
        """The data as `load_data` takes them."""
        task = "classification" if self.class_names else "regression"
        return self.name, self.path, self.target, self.image_size, task, (), self.columns


def read_run(folder: Path) -> tuple[Any, DataInfo]:
    """Read the model of a run, or of one of its checkpoints, and the facts about its data set.

    Raises
    ------
    ValueError
        If the folder is not a complete and consistent run folder.
    """
    is_checkpoint = folder.absolute().parent.name == CHECKPOINTS
    root = folder.absolute().parent.parent if is_checkpoint else folder
    config = read_json(root / CONFIG, _CURE)
    if not (folder / SPEC).exists():
        newest = newest_model(root)
        raise ValueError(
            f"{folder} holds no network: the training ended before there was one; type "
            "`mlp-xp train` again, with --checkpoint 1 to keep the network of every epoch"
            if newest is None
            else f"{folder} holds no model, and {newest} does: type that instead"
        )
    model = load_model(folder)
    try:
        names = list(config["data"]["class_names"])
        kind = MLPClassifier if names else MLPRegressor
        if not isinstance(model, kind):
            raise TypeError(f"the model is a {type(model).__name__}, and no {kind.__name__}")
        if names and model.classes_.dtype.kind == "U":  # `named` wrote it.
            model.classes_ = np.asarray([names.index(name) for name in model.classes_.tolist()])
        images = _decode(config["data"], model)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{root / CONFIG}, 'data': {reason}: {_CURE}") from error
    if is_checkpoint:
        check_scaling(folder, config)
    return model, images


def check_scaling(folder: Path, config: dict[str, Any]) -> None:
    """Raise ValueError for a folder whose model predicts standardized numbers and does not know."""
    if config["data"].get("target_scaling") is not None:
        raise ValueError(
            f"{folder} was written before the network itself standardized the numbers to predict: "
            "type `mlp-xp train` with the options of before; a run that is complete can be used"
        )


def named(model: Any, class_names: Sequence[str]) -> Any:
    """Return a copy of a model that predicts the names of classes, if any, instead of numbers."""
    if not class_names:
        return model
    model = copy.copy(model)
    model.classes_ = np.asarray(class_names)[model.classes_]
    return model


def newest_model(run: Path) -> Path | None:
    """Return the folder that was saved last: the model of a run, or one of its checkpoints."""
    # The name of a checkpoint that is being written begins with a dot.
    specs = [*run.glob(SPEC), *run.glob(f"{CHECKPOINTS}/[!.]*/{SPEC}")]
    return max(specs, key=lambda path: path.stat().st_mtime_ns).parent if specs else None


def unfinished(name: Path) -> tuple[Path, Path]:
    """Return the folder of a run that was interrupted, and the name that it gets when complete.

    Parameters
    ----------
    name : Path
        That name, or the folder.

    Raises
    ------
    ValueError
        If there is no such run, it is complete, or it has no settings.
    """
    partial = name.with_name(f"{name.name}.partial")
    folder = partial if partial.exists() else name
    if not folder.exists():
        raise ValueError(f"neither {partial} nor {name} is there: {_CURE}")
    if not (folder / CONFIG).exists():
        raise ValueError(
            f"{folder} has no {CONFIG}: the run was interrupted before its training began, or this "
            "is no run; type `mlp-xp train` with the options of before"
        )
    final = folder.with_name(re.sub(r"\.partial(-\d+)?$", "", folder.name))
    result = read_json(folder / CONFIG, _CURE).get("result")
    if folder == final and result is not None:
        if not (isinstance(result, dict) and result.get("interrupted")):
            reason = "is complete, there is nothing to resume"
        elif not checkpoints(folder / CHECKPOINTS):
            reason = "was interrupted without a checkpoint to resume from"
        else:
            return folder, final
        raise ValueError(f"{name} {reason}: mlp-xp evaluate {name}")
    if folder != final and final.exists():
        numbered = (final.with_name(f"{final.name}-{number}") for number in itertools.count(2))
        final = next(free for free in numbered if not free.exists())
    return folder, final


def _decode(data: dict[str, Any], model: MLPClassifier | MLPRegressor) -> DataInfo:
    """Check the entry ``data`` of a configuration, and return it."""
    name, path, max_value = data["name"], data["path"], data["max_value"]
    names, shape = tuple(data["class_names"]), data["image_shape"]
    shape = None if shape is None else tuple(shape)
    target, size = data.get("target"), data.get("image_size")
    features = tuple(data.get("feature_names", ()))
    columns = decode_columns(data.get("columns", ()))
    classes = getattr(model, "classes_", np.empty(0, dtype=int))
    checks = {
        f"name is {name!r}, expected one of {', '.join(LOADERS)}, {FILES}": (
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
        f"columns make {len(input_names(columns))} inputs, and the model has other ones": (
            not columns or input_names(columns) == features
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
