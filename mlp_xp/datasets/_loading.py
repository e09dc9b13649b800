"""Find or download a data set, then read, verify and cache it."""

import errno
import math
import os
import shutil
from collections.abc import Callable, Collection
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.storage.durable import locked, make_folder
from mlp_xp._utils.storage.paths import cache_dir
from mlp_xp.datasets import _cache
from mlp_xp.datasets._dataset import Content, Dataset, DatasetError, Layout
from mlp_xp.datasets._download import Remote, UnreachableError, download

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Spec:
    """A published data set, and how to find, read and verify it.

    ``paths`` are tried in this order in the folder ``data``. ``official`` contains the fingerprints
    of the published data, and ``layout`` the shapes and dtypes of their arrays; nothing else is
    cached. ``fallback`` downloads the content from another source into an empty folder, and
    ``by_hand`` tells the user what to do if the download fails.
    """

    name: str
    paths: tuple[str, ...]
    read: Callable[[Path], Content]
    official: Collection[tuple[str, ...]]
    layout: Layout
    remotes: tuple[Remote, ...]
    by_hand: str
    fallback: Callable[[Path], Content] | None = None


def layout_of(n_train: int, n_pixels: int) -> Layout:
    """Return the layout of labeled images, 10,000 of them for testing."""
    return {
        "x_train": ((n_train, n_pixels), np.uint8),
        "y_train": ((n_train,), np.int64),
        "x_test": ((10_000, n_pixels), np.uint8),
        "y_test": ((10_000,), np.int64),
    }


def existing_path(spec: Spec) -> Path | None:
    """Return the first of the data set's paths that exists, or None."""
    paths = (Path("data") / path for path in spec.paths)
    return next((path for path in paths if path.exists()), None)


def locate(spec: Spec) -> Path | None:
    """Return the path that `load` would read, or None if it would download the data."""
    stored = cache_dir() / spec.name
    return existing_path(spec) or (stored if _cache.is_stored(spec.name) else None)


def load(spec: Spec, path: str | PathLike[str] | None = None) -> Arrays:
    """Return the arrays of a data set: from ``path``, the folder ``data``, the cache or a download.

    Data with the published number of images must be identical to the published data, and are
    cached. Data with any other number of images are the user's own: their structure is checked, and
    they are never cached.
    """
    source = Path(path) if path is not None else existing_path(spec)
    if source is None:
        if not _cache.is_stored(spec.name):
            _fetch(spec)
        return _cache.open_stored(spec.name, spec.layout)
    # Compute the mark before reading, so that changes made while reading are detected.
    mark = _cache.verified_mark(spec.name, source)
    if os.path.exists(mark):  # This is also False if the cache cannot be read.
        return _cache.open_stored(spec.name, spec.layout)
    content = spec.read(source)
    arrays = dict(content.arrays)
    if content.fingerprint in spec.official:
        return _keep(spec, mark, arrays)
    if all(arrays[key].shape == shape for key, (shape, _) in spec.layout.items()):
        raise DatasetError(
            f"{source} is not the published {spec.name}: the number of images is the same, but "
            "pixels, labels or order differ: download it again"
        )
    return arrays


def load_images(
    spec: Spec,
    path: str | PathLike[str] | None,
    class_names: tuple[str, ...],
    image_shape: tuple[int, int, int],
    labels: str = "",
) -> Dataset:
    """Load images, with the labels whose names in the layout end in ``labels``."""
    found = load(spec, path)
    y_train, y_test = found[f"y_train{labels}"], found[f"y_test{labels}"]
    return Dataset(found["x_train"], y_train, found["x_test"], y_test, class_names, image_shape)


def _keep(spec: Spec, mark: Path, arrays: Arrays) -> Arrays:
    try:
        if not _cache.is_stored(spec.name):
            _cache.store(spec.name, arrays)
        mark.touch()
    except OSError:
        return arrays  # Ignore a full disk or missing permission: the cache only saves time.
    return _cache.open_stored(spec.name, spec.layout)


def _fetch(spec: Spec) -> None:
    try:
        downloads = cache_dir() / f"{spec.name}.download"
        make_folder(downloads)
        with locked(downloads, waits=True):
            if _cache.is_stored(spec.name):  # Another process has stored the data.
                return
            _check_room(spec, downloads)
            content = _fetch_content(spec, downloads)
            if content.fingerprint not in spec.official:
                raise DatasetError(
                    f"the data downloaded for {spec.name} are not the published data; nothing was "
                    f"stored. {spec.by_hand}"
                )
            _cache.store(spec.name, content.arrays)
        shutil.rmtree(downloads, ignore_errors=True)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free disk space" if is_full else "get permission to read and write there"
        raise DatasetError(
            f"{spec.name} cannot be stored in {cache_dir()} ({error}): {cure}, or "
            "set the environment variable MLP_XP_CACHE to another folder"
        ) from error


def _check_room(spec: Spec, folder: Path) -> None:
    """Raise OSError if the disk has too little space for the download and the arrays."""
    layout = spec.layout.values()
    needed = 2 * sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in layout)
    free = shutil.disk_usage(folder).free
    if free < needed:
        reason = f"it needs {needed / 1e6:,.0f} MB temporarily, but {free / 1e6:,.0f} MB are free"
        raise OSError(errno.ENOSPC, reason)


def _fetch_content(spec: Spec, downloads: Path) -> Content:
    try:
        files = [download(remote, downloads) for remote in spec.remotes]
    except UnreachableError as error:
        reasons = str(error)
    else:
        return spec.read(files[0] if len(files) == 1 else downloads)
    if spec.fallback is not None:
        scratch = downloads / "scratch"  # Only the process that holds the lock uses this folder.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            return spec.fallback(scratch)
        except UnreachableError as error:
            reasons = f"{reasons}; {error}"
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    raise UnreachableError(f"{spec.name} cannot be downloaded: {reasons}. {spec.by_hand}")
