"""Loaders for published data sets of small images, a small table, and the user's own files.

Published data are found on disk or downloaded, then verified and cached. Every loader except
`load_titanic` returns a `Dataset` with unscaled values. All files are treated as untrusted: nothing
in them is executed or extracted, and their sizes are limited.
"""

from collections.abc import Callable
from pathlib import Path

from mlp_xp._utils.storage.paths import cache_dir
from mlp_xp.datasets import _loading
from mlp_xp.datasets._dataset import Dataset, DatasetError, split_dataset
from mlp_xp.datasets._own_data.own import load_files
from mlp_xp.datasets.cifar import CIFAR10, CIFAR100, load_cifar10, load_cifar100, read_cifar
from mlp_xp.datasets.digits import digits_file, load_digits
from mlp_xp.datasets.fashion_mnist import FASHION_MNIST, load_fashion_mnist
from mlp_xp.datasets.parquet import Parquet
from mlp_xp.datasets.predictions import write_predictions
from mlp_xp.datasets.titanic import load_titanic

__all__ = [
    "LOADERS",
    "Dataset",
    "DatasetError",
    "Parquet",
    "cache_dir",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_files",
    "load_titanic",
    "locate",
    "read_cifar",
    "split_dataset",
    "write_predictions",
]

LOADERS: dict[str, Callable[..., Dataset]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "fashion-mnist": load_fashion_mnist,
    "digits": load_digits,
}


def locate(name: str) -> Path | None:
    """Return the path from which a data set would be loaded, or None if it must be downloaded.

    Parameters
    ----------
    name : str
        A key of `LOADERS`.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> locate("digits").name
    'digits.csv.gz'
    """
    if name not in LOADERS:
        raise ValueError(f"the data set must be one of {', '.join(LOADERS)}, got {name!r}")
    specs = {spec.name: spec for spec in (CIFAR10, CIFAR100, FASHION_MNIST)}
    return _loading.locate(specs[name]) if name in specs else digits_file()
