"""The user's cache of decoded arrays: one folder a data set, one ``.npy`` file an array.

A folder is written beside its place and renamed into it, so it is there whole or not at all, for
every process. Its content is verified before it is stored; at each load only shape, dtype and file
size are checked, which finds a file cut short in no time but not a changed byte.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.paths import cache_dir
from mlp_xp.datasets._types import DatasetError


def is_stored(name: str) -> bool:
    """Whether the cache has the data set `name`; one that cannot be read has nothing."""
    return os.path.isdir(cache_dir() / name)


def store(name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write verified arrays to the cache, all or nothing; OSError if the disk refuses.

    One process at a time: what is unfinished when it begins, a killed process has left.
    """
    folder = cache_dir() / name
    with locked(f"{name}.store"):
        for left in folder.parent.glob(f".{name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        if folder.is_dir():
            return  # Another process was first, and what it stored passed the same check.
        scratch = folder.with_name(f".{name}-new")
        scratch.mkdir()
        try:
            for key, array in arrays.items():
                with (scratch / f"{key}.npy").open("xb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def open_stored(
    name: str, layout: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a stored data set: images as read-only memory maps, labels in memory.

    Parameters
    ----------
    name : str
        The data set's folder in the cache.
    layout : mapping of str to (shape, dtype)
        What must be there.

    Raises
    ------
    DatasetError
        A file is missing, not to be read, cut short, or holds another shape or dtype.
    """
    folder = cache_dir() / name
    arrays: dict[str, NDArray[Any]] = {}
    for key, (shape, dtype) in layout.items():
        path = folder / f"{key}.npy"
        expected = f"{np.dtype(dtype)} of shape {shape}"
        try:
            array = np.lib.format.open_memmap(path, mode="r")
            found = f"{array.dtype} of shape {array.shape}"
            whole = array.offset + array.nbytes == path.stat().st_size
            fault = found if whole else f"{found} in a file of another size"
        except Exception as error:  # A broken header makes NumPy raise what it stumbles over.
            fault = getattr(error, "strerror", None) or str(error)
        if fault != expected:
            raise DatasetError(
                f"the cached file {path} is missing or damaged ({fault}), expected {expected}: "
                f"delete the folder {folder} and load the data set again, or where it is not "
                "yours name another cache, as in export MLP_XP_CACHE=/path/to/folder"
            )
        arrays[key] = array if array.ndim == 2 else np.array(array)
    return arrays


def seen_mark(name: str, source: Path) -> Path:
    """Return the empty file whose presence says that `source`, as it now is, was verified.

    Its name is a digest of the source's path and of name, size and times of each of its files.
    """
    source = source.resolve()
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    stats = [(file.name, file.stat()) for file in files if file.exists()]
    facts = [(key, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for key, stat in stats]
    digest = hashlib.sha256(repr((str(source), facts)).encode()).hexdigest()
    return cache_dir() / name / f"seen-{digest[:32]}"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name`, which is gone with the process; other processes wait for it."""
    path = cache_dir() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:  # it gives up after ten seconds
                    continue
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
