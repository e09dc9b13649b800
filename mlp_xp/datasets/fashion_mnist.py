"""Fashion-MNIST, from the official IDX files, plain or gzip."""

import math
import struct
from os import PathLike
from pathlib import Path

import numpy as np

from mlp_xp.datasets import _class_names
from mlp_xp.datasets._dataset import Content, Dataset, DatasetError, Pixels
from mlp_xp.datasets._download import Remote
from mlp_xp.datasets._files import read_file, sha256
from mlp_xp.datasets._loading import Spec, layout_of, load_images

_SHAPE = (1, 28, 28)
# The SHA-256 of the official files, with the ending ``.gz``.
_DIGESTS = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
_FILES = dict(zip(("x_train", "y_train", "x_test", "y_test"), _DIGESTS, strict=True))
_UINT8 = 8  # The code of uint8 in an IDX header.


def _read_idx(path: Path, item: tuple[int, ...]) -> Pixels:
    """Return the (n, *item) uint8 array of an IDX file."""
    raw = read_file(path)
    n_axes = len(item) + 1
    size = 4 + 4 * n_axes
    expected = f"an IDX file of uint8 with the axes {('n', *item)}"
    if len(raw) < size or raw[:4] != bytes((0, 0, _UINT8, n_axes)):
        raise DatasetError(
            f"{path} must be {expected}, but starts with {raw[:4]!r}: download it again"
        )
    shape = struct.unpack_from(f">{n_axes}I", raw, 4)
    if shape[1:] != item or not shape[0] or len(raw) - size != math.prod(shape):
        raise DatasetError(
            f"{path} must be {expected}, but has the axes {shape} and {len(raw) - size} bytes "
            "after the header: download it again"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=size).reshape(shape)


def _read(folder: Path) -> Content:
    raw = {}
    for key, name in _FILES.items():
        paths = [folder / name, folder / f"{name}.gz"]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise DatasetError(
                f"{folder} has neither {name} nor {name}.gz: pass a folder with "
                f"{', '.join(_FILES.values())}, each plain or with .gz"
            )
        raw[key] = _read_idx(path, _SHAPE[1:] if key.startswith("x") else ())
    arrays = {}
    for split in ("train", "test"):
        x, y = raw[f"x_{split}"], raw[f"y_{split}"]
        if len(x) != len(y) or y.max() >= len(_class_names.FASHION_MNIST):
            raise DatasetError(
                f"{folder}: the {split} files must have one label from 0 to 9 per image, got "
                f"{len(x)} images and {len(y)} labels up to {y.max()}: download them again"
            )
        arrays[f"x_{split}"] = x.reshape(len(x), -1)
        arrays[f"y_{split}"] = y.astype(np.int64)
    return Content(arrays, tuple(sha256(arrays[key]) for key in _FILES))


_SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

FASHION_MNIST = Spec(
    name="fashion-mnist",
    paths=("fashion-mnist", "/usr/share/datasets/fashion-mnist"),  # The second path is Debian's.
    read=_read,
    official=[
        (
            "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "e3245b63f7c40d1c8b652835f19744d970c1613b40ddac6bcfc87b9c46e16a0b",
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "d51d859896c55775b9e9e219b77ff03bcec1b6ac322f313544dc3f9e7bc94fae",
        )
    ],
    layout=layout_of(60_000, 784),
    remotes=tuple(Remote(f"{_SITE}/{name}.gz", digest) for name, digest in _DIGESTS.items()),
    by_hand=(
        "On Debian and Ubuntu: apt install dataset-fashion-mnist. Elsewhere, download its four "
        f"files from {_SITE} on another machine, and put them into the folder data/fashion-mnist"
    ),
)


def load_fashion_mnist(path: str | PathLike[str] | None = None) -> Dataset:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images, 28 by 28 gray pixels, 10 classes.

    The data are read from the first existing source: ``path``; the folder ``data/fashion-mnist``;
    the folder of Debian's package ``dataset-fashion-mnist``; the user's cache. Otherwise they are
    downloaded from the official site. The SHA-256 is verified, and the decoded arrays are cached.

    Parameters
    ----------
    path : str or path-like, optional
        A folder with the four IDX files, each plain or with ``.gz``.

    Returns
    -------
    Dataset
        ``x_train`` (60000, 784) and ``x_test`` (10000, 784) are uint8, pixels row by row;
        ``y_train`` and ``y_test`` are int64. From the cache, images are read-only memory maps.

    Raises
    ------
    DatasetError
        The data is damaged, is not the published data, or cannot be downloaded.
    ImportError
        It must be downloaded, and the ``cli`` extra is not installed.

    References
    ----------
    H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, 2017, https://arxiv.org/abs/1708.07747
    """
    return load_images(FASHION_MNIST, path, _class_names.FASHION_MNIST, _SHAPE)
