"""Data sets of small images: find or fetch them, verify them, load them as uint8.

Every loader returns a `Dataset`. Nothing is scaled: pixels stay what the file holds, and become
floating-point numbers a batch at a time where they are used.
"""

from collections.abc import Callable
from pathlib import Path

from mlp_xp._utils.paths import cache_dir
from mlp_xp.datasets import _core
from mlp_xp.datasets._split import split_dataset
from mlp_xp.datasets._types import Dataset, DatasetError
from mlp_xp.datasets.cifar import CIFAR10, CIFAR100, load_cifar10, load_cifar100, read_cifar
from mlp_xp.datasets.digits import find_digits, load_digits
from mlp_xp.datasets.fashion_mnist import FASHION_MNIST, load_fashion_mnist

__all__ = [
    "LOADERS",
    "Dataset",
    "DatasetError",
    "cache_dir",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "locate",
    "read_cifar",
    "split_dataset",
]

LOADERS: dict[str, Callable[..., Dataset]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "fashion-mnist": load_fashion_mnist,
    "digits": load_digits,
}


def locate(name: str) -> Path | None:
    """Return where a data set would be taken from; None if it would have to be fetched.

    Parameters
    ----------
    name : str
        A key of `LOADERS`.

    Raises
    ------
    ValueError
        There is no such data set.

    Examples
    --------
    >>> locate("digits").name
    'digits.csv.gz'
    """
    if name not in LOADERS:
        raise ValueError(f"data set {name!r}, expected one of {', '.join(LOADERS)}")
    specs = {spec.name: spec for spec in (CIFAR10, CIFAR100, FASHION_MNIST)}
    return _core.locate(specs[name]) if name in specs else find_digits()
