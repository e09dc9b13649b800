"""Run folders: what ``mlp-xp train`` writes and the other commands read."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.cli.start import printable
from mlp_xp.datasets import LOADERS
from mlp_xp.estimators import MLPClassifier
from mlp_xp.saving import SPEC, load_model, read_json

__all__ = ["CHECKPOINTS", "CONFIG", "Images", "new_run", "read_run"]

CONFIG, CHECKPOINTS = "config.json", "checkpoints"
_CURE = "expected a folder that `mlp-xp train` wrote, such as runs/<date>-<time>-cifar10"


@dataclass(frozen=True)
class Images:
    """What a run must know of its data set to use the model without it."""

    name: str
    path: str | None
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    max_value: int


@contextlib.contextmanager
def new_run(out: Path | None, data: str) -> Iterator[tuple[Path, Path]]:
    """Make a run folder that gets its name when it is whole.

    After an error it goes away, unless there is a model in it, or a checkpoint of one.

    Parameters
    ----------
    out : Path or None
        Where; must not exist. Default: ``runs/<date>-<time>-<data>``, with a number if taken.
    data : str

    Yields
    ------
    partial, final : Path
        The folder to write to, and what it is renamed to at the end.
    """
    partial, final = _reserve(out, data)
    try:
        yield partial, final
        partial.rename(final)
    except BaseException:
        kept = _newest_model(partial)
        if kept is None:
            shutil.rmtree(partial, ignore_errors=True)
        else:
            note = f"note: kept what is in {partial}: mlp-xp evaluate {kept}"
            print(printable(note), file=sys.stderr)
        raise


def _newest_model(run: Path) -> Path | None:
    """Give the folder of what was saved last: the model of a run, or a checkpoint of it."""
    # A name that begins with a dot is that of a checkpoint in the making.
    saved = [*run.glob(SPEC), *run.glob(f"{CHECKPOINTS}/[!.]*/{SPEC}")]
    return max(saved, key=lambda path: path.stat().st_mtime_ns).parent if saved else None


def _reserve(out: Path | None, data: str) -> tuple[Path, Path]:
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{data}"
    attempt = 1
    while True:
        final = out or Path("runs", stem if attempt == 1 else f"{stem}-{attempt}")
        partial = final.with_name(f"{final.name}.partial")
        taken = final
        if not final.exists():
            try:
                partial.mkdir(parents=True)
                return partial, final
            except FileExistsError:
                taken = partial
        if out is not None:
            raise ValueError(
                f"{taken} is already there, and nothing is overwritten: move or remove it, or "
                f"type --out {out}-2"
            )
        attempt += 1


def read_run(folder: Path) -> tuple[MLPClassifier, Images]:
    """Read the model of a run, or of one of its checkpoints, and what it was trained on.

    Raises
    ------
    ValueError
        If the folder is not a whole and consistent run folder.
    """
    is_checkpoint = folder.absolute().parent.name == CHECKPOINTS
    root = folder.absolute().parent.parent if is_checkpoint else folder
    config = read_json(root / CONFIG, _CURE)
    if not (folder / SPEC).exists() and (newest := _newest_model(root)) is not None:
        raise ValueError(f"{folder} holds no model, and {newest} does: type that in its place")
    model = load_model(folder)
    if not isinstance(model, MLPClassifier):
        raise ValueError(f"{folder} holds a {type(model).__name__}, not a classifier: {_CURE}")
    try:
        images = _decode(config["data"], model)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{root / CONFIG}, 'data': {reason}: {_CURE}") from error
    return model, images


def _decode(data: dict[str, Any], model: MLPClassifier) -> Images:
    name, path, max_value = data["name"], data["path"], data["max_value"]
    names, shape = tuple(data["class_names"]), tuple(data["image_shape"])
    classes = model.classes_
    checks = {
        f"name is {name!r}, expected one of {', '.join(LOADERS)}": name in LOADERS,
        f"path is {path!r}": isinstance(path, str | None),
        f"max_value is {max_value!r}": type(max_value) is int and 1 <= max_value <= 255,
        f"class_names do not fit the model's classes {classes.tolist()}": (
            all(isinstance(name, str) for name in names)
            and np.all(np.isin(classes, np.arange(len(names))))
        ),
        f"image_shape is {shape}, and the model has {model.n_features_in_} inputs": (
            len(shape) == 3
            and shape[0] in (1, 3)
            and all(type(n) is int and n > 0 for n in shape)
            and math.prod(shape) == model.n_features_in_
        ),
    }
    for problem, fine in checks.items():
        if not fine:
            raise ValueError(problem)
    return Images(name, path, names, shape, max_value)
