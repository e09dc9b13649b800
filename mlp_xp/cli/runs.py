"""Run folders: what ``mlp-xp train`` writes and the other commands read."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.callbacks import Callback
from mlp_xp.cli.start import printable
from mlp_xp.datasets import LOADERS
from mlp_xp.estimators import MLPClassifier
from mlp_xp.saving import SPEC, load_model, read_json

__all__ = ["CHECKPOINTS", "CONFIG", "Images", "Room", "RunFolder", "new_run", "read_run"]

CONFIG, CHECKPOINTS = "config.json", "checkpoints"
_PICTURES = 1_000_000  # bytes of all that is not weights
_CURE = "expected a folder that `mlp-xp train` wrote, such as runs/<date>-<time>-cifar10"


@dataclass(frozen=True)
class Images:
    """What a run must know of its data set to use the model without it."""

    name: str
    path: str | None
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    max_value: int


class RunFolder:
    """Where a run is written.

    Attributes
    ----------
    path : Path
        What to write to.
    final : Path
        What it is called when it is whole.
    """

    def __init__(self, path: Path, final: Path) -> None:
        self.path = path
        self.final = final

    def keep(self, write: Callable[[Path], None]) -> None:
        """Write what is only in memory; where the folder refuses it, into another one.

        The home folder and the folder for temporary files are tried. Then somebody at a terminal is
        asked for a folder, as often as it takes.

        Parameters
        ----------
        write : callable
            ``write(folder)`` writes all of it; an `OSError` says that it cannot.

        Raises
        ------
        OSError
            No folder took it.
        """
        try:
            write(self.path)
            return
        except OSError as error:
            refused = _with_path(error, self.path)
        print(printable(f"note: cannot write: {refused}"), file=sys.stderr)
        for folder in self._other_folders():
            try:
                folder.mkdir(parents=True)
                write(folder)
            except OSError as error:
                print(printable(f"note: nor here: {_with_path(error, folder)}"), file=sys.stderr)
                continue
            print(printable(f"note: the network is kept in {folder}"), file=sys.stderr)
            self.path = self.final = folder
            return
        raise refused

    def _other_folders(self) -> Iterator[Path]:
        name = f"{self.final.name}-{os.getpid()}"
        for parent in (Path.home(), Path(tempfile.gettempdir())):
            yield parent / name
        while sys.stdin is not None and sys.stdin.isatty():
            typed = input("Type a folder for the network, or make room and press Enter: ").strip()
            yield Path(typed or Path.home()).expanduser() / f"{name}-{time.time_ns()}"


class Room(Callback):
    """Raise an error before the first step where a folder has no room for the network."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_fit_begin(self, model: Any) -> None:
        """Compare the size of the weights with what is free."""
        n_bytes = sum(array.nbytes for array in (*model.coefs_, *model.intercepts_))
        needed, free = 2 * n_bytes + _PICTURES, shutil.disk_usage(self._folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"the run needs {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free; make "
                "room, or type --out with a folder elsewhere",
                str(self._folder),
            )


def _with_path(error: OSError, path: Path) -> OSError:
    """Return an error that names its file: a write that fails does not know it."""
    if error.filename is None and error.errno is not None:
        error.filename = str(path)
    return error


@contextlib.contextmanager
def new_run(out: Path | None, data: str) -> Iterator[RunFolder]:
    """Make a run folder that gets its name when it is whole.

    After an error it goes away, unless there is a model in it, or a checkpoint of one.

    Parameters
    ----------
    out : Path or None
        Where; must not exist. Default: ``runs/<date>-<time>-<data>``, with a number if taken.
    data : str

    Yields
    ------
    RunFolder
    """
    partial, final = _reserve(out, data)
    run = RunFolder(partial, final)
    try:
        yield run
        if run.path == partial:
            partial.rename(final)
        else:
            _remove_without_model(partial)
    except BaseException as error:
        kept = _newest_model(run.path) or _remove_without_model(partial)
        if kept is not None:
            note = f"note: kept what is in {run.path}: mlp-xp evaluate {kept}"
            print(printable(note), file=sys.stderr)
        if isinstance(error, OSError):
            raise _with_path(error, run.path) from error.__cause__
        raise


def _remove_without_model(run: Path) -> Path | None:
    """Remove a run folder, unless it holds a model, whose folder is returned."""
    kept = _newest_model(run)
    if kept is None:
        shutil.rmtree(run, ignore_errors=True)
    return kept


def _newest_model(run: Path) -> Path | None:
    """Return the folder of what was saved last: the model of a run, or a checkpoint of it."""
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
            except OSError as error:
                raise ValueError(
                    f"{partial} cannot be made ({error.strerror}): type --out with a folder that "
                    "you may write to"
                ) from error
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
    if not (folder / SPEC).exists():
        newest = _newest_model(root)
        raise ValueError(
            f"{folder} holds no network: the training ended before there was one; type "
            "`mlp-xp train` again, with --checkpoint 1 to keep the network of every epoch"
            if newest is None
            else f"{folder} holds no model, and {newest} does: type that in its place"
        )
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
