"""The user's cache of decoded arrays: one folder per data set, one ``.npy`` file per array.

A folder is written completely or not at all, after its content has been verified. Loading checks
only shapes, dtypes and file sizes, which detects truncated files, but not changed bytes.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.storage.durable import locked, make_folder, new_folder, sweep
from mlp_xp._utils.storage.paths import cache_dir
from mlp_xp.datasets._dataset import DatasetError, Layout


def is_stored(name: str) -> bool:
    """Whether the cache contains the data set ``name``; False if the cache cannot be read."""
    return os.path.isdir(cache_dir() / name)


def store(name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write verified arrays to the cache atomically; raise OSError if that fails."""
    cache = cache_dir()
    make_folder(cache)
    with locked(cache, waits=True):
        sweep(cache)
        if (cache / name).is_dir():
            return  # Another process stored the data in the meantime.
        with new_folder(cache / name) as folder:
            for key, array in arrays.items():
                with (folder / f"{key}.npy").open("xb") as file:
                    np.save(file, array, allow_pickle=False)


def open_stored(name: str, layout: Layout) -> dict[str, NDArray[Any]]:
    """Return the arrays of a cached data set: images as read-only memory maps, labels in memory.

    ``layout`` contains the arrays' names, shapes and dtypes. Raise DatasetError for a missing,
    truncated or unexpected file.
    """
    folder = cache_dir() / name
    arrays: dict[str, NDArray[Any]] = {}
    for key, (shape, dtype) in layout.items():
        path = folder / f"{key}.npy"
        expected = f"{np.dtype(dtype)} of shape {shape}"
        try:
            array = np.lib.format.open_memmap(path, mode="r")
            found = f"{array.dtype} of shape {array.shape}"
            is_complete = array.offset + array.nbytes == path.stat().st_size
            fault = found if is_complete else f"{found} in a file of another size"
        except Exception as error:  # A damaged header can make NumPy raise any error.
            fault = getattr(error, "strerror", None) or str(error)
        if fault != expected:
            raise DatasetError(
                f"the cached file {path} must be {expected}, but is missing or damaged ({fault}): "
                f"delete the folder {folder} and load the data set again, or set the environment "
                "variable MLP_XP_CACHE to another folder"
            )
        arrays[key] = array if array.ndim == 2 else np.array(array)
    return arrays


def verified_mark(name: str, source: Path) -> Path:
    """Return the path of the empty file that marks the current ``source`` as verified.

    The file name is a digest of the source's path, and of the names, sizes and times of its files.
    """
    source = source.resolve()
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    stats = [(file.name, file.stat()) for file in files if file.exists()]
    known = [(key, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for key, stat in stats]
    digest = hashlib.sha256(repr((str(source), known)).encode()).hexdigest()
    return cache_dir() / name / f"seen-{digest[:32]}"
