"""The folder of a run, which is renamed at the end of the run, or removed if empty."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.optional import as_typed
from mlp_xp._utils.storage.durable import locked, make_folder, remove_folder, rename_folder, sweep
from mlp_xp._utils.tree import leaves
from mlp_xp.callbacks import Callback, SearchCheckpoint
from mlp_xp.cli.run_folder.config import CHECKPOINTS, CONFIG, CURE, read_config, write_config
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.saving import SPEC
from mlp_xp.training.checkpoints.checkpoints import checkpoints

_OTHER_BYTES = 1_000_000  # The disk space in bytes for all files except the weights.


@dataclass
class RunFolder:
    """The folder of a run, which is renamed from ``path`` to ``final`` at the end of the run.

    If ``is_trained`` is true, the folder is kept after an error.
    """

    path: Path
    final: Path
    is_trained: bool = False

    def keep(self, write: Callable[[Path], None]) -> None:
        """Call ``write(folder)`` to save results; if that fails, try other folders.

        The home folder and the folder for temporary files are tried next. Then, on a terminal, the
        user is asked for a folder until one works.
        """
        try:
            write(self.path)
            return
        except OSError as error:
            first_error = _with_path(error, self.path)
        tried = [self.path]
        print_note(f"cannot write: {first_error}")
        for folder in self._other_folders():
            tried.append(folder)
            is_new = not folder.exists()
            try:
                folder.mkdir(parents=True)
                write(folder)
            except OSError as error:
                print_note(f"cannot write: {_with_path(error, folder)}")
                if is_new:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            print_note(f"the network was saved in {folder}")
            self.path = self.final = folder
            return
        raise OSError(
            first_error.errno,
            f"{first_error.strerror or first_error}: the network cannot be written to "
            f"{', '.join(map(str, tried))}; free disk space there, and type mlp-xp train "
            f"--resume {as_typed(self.final)} to resume from the last checkpoint, if there is one",
        ) from first_error

    @contextlib.contextmanager
    def in_progress(self) -> Iterator[RunFolder]:
        """Rename the folder at the end of the block; after an error, keep or remove it."""
        partial = self.path
        try:
            yield self
            if self.path == partial:
                rename_folder(partial, self.final)
            elif newest_model(partial) is None:
                shutil.rmtree(partial, ignore_errors=True)
        except BaseException as error:
            kept = newest_model(self.path)
            if kept is None and not self.is_trained:
                shutil.rmtree(partial, ignore_errors=True)
            if kept is not None:
                note = f"{self.path} was kept; to test it, type mlp-xp evaluate {as_typed(kept)}"
                if self.path == partial and not isinstance(error, Exception):
                    note += f"; to resume it, type mlp-xp train --resume {as_typed(self.final)}"
                print_note(note)
            elif self.is_trained:
                print_note(f"{partial} was kept")
            elif isinstance(error, KeyboardInterrupt):
                print_note("interrupted before the first checkpoint: nothing was saved")
            if isinstance(error, OSError):
                raise _with_path(error, self.path) from error.__cause__
            raise

    def _other_folders(self) -> Iterator[Path]:
        name = f"{self.final.name}-{os.getpid()}"
        for parent in (Path.home(), Path(tempfile.gettempdir())):
            yield parent / name
        while sys.stdin is not None and sys.stdin.isatty():
            answer = input(
                "Type a folder for the network, or free disk space and press Enter: "
            ).strip()
            yield Path(answer or Path.home()).expanduser() / f"{name}-{time.time_ns()}"


class BeginRun(Callback):
    """A callback that checks the disk space and writes ``config.json`` before the first step.

    Checkpoints are unusable without ``config.json``. It is not written earlier, because a resumed
    run must not change if its checkpoint or its data are refused.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self._config = folder, config

    def on_fit_begin(self, model: Any) -> None:
        """Write ``config.json``, or raise OSError if the disk is too full for the run."""
        n_bytes = sum(array.nbytes for array in leaves(fitted_state(model).params))
        needed, free = 2 * n_bytes + _OTHER_BYTES, shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"the run needs {needed / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB are free: "
                "delete files, or set --out to a folder on another disk",
                str(self.folder),
            )
        write_config(self.folder, self._config)


def check_is_new(out: Path) -> None:
    """Raise ValueError if the folder for a new run exists, unless it is empty, or has no name."""
    if not out.name:
        raise ValueError(f"a run needs a new folder: type --out {out / 'run'}")
    if out.exists() and not _is_empty(out):
        raise ValueError(
            f"{out} already exists, and runs are never overwritten: add --resume to resume it, or "
            f"type --out {as_typed(f'{out}-2')}"
        )


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


@contextlib.contextmanager
def new_run(out: Path | None, data: str) -> Iterator[RunFolder]:
    """Create the folder of a run, which gets its final name at the end of the run.

    After an error, the folder is removed unless it contains a model, a checkpoint or a history.
    ``out``, which may be an empty folder, defaults to ``runs/<date>-<time>-<data>``, with a number
    appended if that folder exists.
    """
    with contextlib.ExitStack() as stack:
        folder, final = _create_folder(out, data, stack)
        with RunFolder(folder, final).in_progress() as run:
            yield run


@contextlib.contextmanager
def resumed_run(run: FoundRun) -> Iterator[RunFolder]:
    """Open the folder of an existing run, which gets its final name at the end of the block.

    Raise BlockingIOError if the run is still in progress.
    """
    with locked(run.folder):
        sweep(run.folder)
        # Keep the files of the existing run after an error.
        with RunFolder(run.folder, run.final, is_trained=True).in_progress() as folder:
            yield folder


def newest_model(run: Path) -> Path | None:
    """Return the folder of the newest model or checkpoint of a run, or None."""
    # The name of an unfinished checkpoint begins with a dot.
    specs = [*run.glob(SPEC), *run.glob(f"{CHECKPOINTS}/[!.]*/{SPEC}")]
    return max(specs, key=lambda path: path.stat().st_mtime_ns).parent if specs else None


class FoundRun(NamedTuple):
    """An existing run: its folder, its final folder, and the content of its ``config.json``."""

    folder: Path
    final: Path
    config: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        """The result of the run; empty if the run has not ended."""
        result = self.config.get("result")
        return result if isinstance(result, dict) else {}

    @property
    def n_epochs(self) -> int:
        """The requested number of epochs."""
        n_epochs: int = self.config["settings"]["params"]["max_iter"]
        return n_epochs

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended and was not interrupted."""
        return bool(self.result) and not self.result.get("interrupted")


def find_run(name: Path) -> FoundRun | None:
    """Find a run; ``name`` is its final folder, or the folder of an interrupted run.

    Return None if the run does not exist, is an empty folder, or was interrupted before its
    training began. Raise ValueError if the folder is not a run, or is a run without a checkpoint to
    resume from.
    """
    partial = name.with_name(f"{name.name}.partial")
    folder = partial if partial.exists() else name
    if not folder.exists() or _is_empty(folder):
        return None
    final = folder.with_name(re.sub(r"\.partial(-\d+)?$", "", folder.name))
    if not (folder / CONFIG).exists():
        if folder != final and folder.is_dir():
            return None
        kind = f"has no {CONFIG}" if folder.is_dir() else "is a file"
        raise ValueError(f"{folder} {kind}, so it is not a run folder: {CURE}")
    found = FoundRun(folder, final, read_config(folder))
    if folder == final:
        is_over = found.result and not found.is_complete
        kept = folder / CHECKPOINTS
        if is_over and not (checkpoints(kept) or (kept / SearchCheckpoint.file).exists()):
            raise ValueError(
                f"{name} was interrupted without a checkpoint to resume from: to test it, type "
                f"mlp-xp evaluate {as_typed(name)}"
            )
        return found
    return found._replace(final=_numbered(final, 2)) if final.exists() else found


def _numbered(path: Path, first: int) -> Path:
    """Return the path with the first unused number appended, counting from ``first``."""
    names = (path.with_name(f"{path.name}-{number}") for number in itertools.count(first))
    return next(name for name in names if not name.exists())


def _create_folder(out: Path | None, data: str, stack: contextlib.ExitStack) -> tuple[Path, Path]:
    """Create and lock the folder ``<name>.partial``; return it and ``<name>``."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{data}"
    attempt = 1
    while True:
        final = out or Path("runs", stem if attempt == 1 else f"{stem}-{attempt}")
        partial = final.with_name(f"{final.name}.partial")
        if out is not None:
            check_is_new(out)
        if out is not None or not final.exists():
            try:
                if final.exists():
                    final.rmdir()  # It is empty.
                _move_aside(partial)
                make_folder(partial)
                stack.enter_context(locked(partial))
                return partial, final
            except BlockingIOError as error:
                if out is not None:
                    raise ValueError(
                        f"another mlp-xp train is writing to {partial}: type --out "
                        f"{as_typed(f'{out}-2')}"
                    ) from error
            except OSError as error:
                raise ValueError(
                    f"{partial} cannot be created ({error.strerror}): set --out to a folder that "
                    "you may write to"
                ) from error
        attempt += 1


def _move_aside(partial: Path) -> None:
    """Rename the folder of a killed run, or remove the folder if it contains no model."""
    if not partial.exists():
        return
    with locked(partial):
        sweep(partial)
        if not (partial / CONFIG).exists() and any(partial.iterdir()):
            raise ValueError(f"{partial} is not from mlp-xp train: move or remove it")
        if newest_model(partial) is None:
            remove_folder(partial)
            return
        rename_folder(partial, free := _numbered(partial, 1))
    print_note(
        f"{partial}, left by an interrupted run, was renamed to {free}; to resume that run, "
        f"type mlp-xp train --resume {as_typed(free)}"
    )


def _with_path(error: OSError, path: Path) -> OSError:
    """Set the file name of an error to ``path`` if it has none; return the error."""
    if error.filename is None and error.errno is not None:
        error.filename = str(path)
    return error
