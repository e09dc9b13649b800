"""Fashion-MNIST in IDX files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import case
from official_formats import write_folder

from mlp_xp.datasets import DatasetError, fashion_mnist, load_fashion_mnist

NAMES = tuple(fashion_mnist._FILES.values())
IMAGES, LABELS = NAMES[:2]


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    found = []
    for n in (6, 4):
        found += [rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)]
    return dict(zip(NAMES, found, strict=True))


@pytest.fixture
def files(arrays):
    return {name: idx(array) for name, array in arrays.items()}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_plain_or_gzip(tmp_path, arrays, files, pack, in_cache):
    suffix = "" if pack is bytes else ".gz"
    packed = {name + suffix: pack(content) for name, content in files.items()}
    d = load_fashion_mnist(write_folder(tmp_path / "f", packed))
    for found, expected in zip(d, arrays.values(), strict=False):
        np.testing.assert_array_equal(found, expected.reshape(found.shape))
    assert (d.x_train.shape, d.x_train.dtype) == ((6, 784), np.uint8)
    assert (d.y_test.shape, d.y_test.dtype) == ((4,), np.int64)
    assert d.image_shape == (1, 28, 28)
    assert len(d.class_names) == 10
    assert in_cache() == []


def test_the_data_folder_is_searched(files):
    folder = write_folder(Path("data", "fashion-mnist"), files)
    assert len(load_fashion_mnist().x_test) == 4
    (folder / NAMES[1]).unlink()
    with pytest.raises(DatasetError, match=rf"has neither {NAMES[1]} nor {NAMES[1]}\.gz, expected"):
        load_fashion_mnist()


DAMAGE = {
    "cut short": (IMAGES, lambda raw: raw[:-1]),
    "too long": (IMAGES, lambda raw: raw + b"x"),
    "header only half": (LABELS, lambda raw: raw[:6]),
    "wrong magic": (LABELS, lambda raw: b"\1" + raw[1:]),
    "wrong type": (LABELS, lambda raw: raw[:2] + b"\x0d" + raw[3:]),
    "images for labels": (LABELS, lambda raw: idx(np.zeros((6, 28, 28)))),
    "wrong size of image": (IMAGES, lambda raw: idx(np.zeros((6, 28, 27)))),
    "no labels": (LABELS, lambda raw: idx(np.zeros(0))),
    "huge": (IMAGES, lambda raw: raw[:4] + struct.pack(">3I", 2**31, 28, 28) + raw[16:]),
    "too few labels": (LABELS, lambda raw: idx(np.zeros(5))),
    "label too large": (LABELS, lambda raw: idx(np.full(6, 10))),
    "cut gzip": (IMAGES, lambda raw: gzip.compress(raw)[:-20]),
    "damaged gzip": (IMAGES, lambda raw: gzip.compress(raw)[:-8] + bytes(8)),
}


def test_a_damaged_file_is_an_error(tmp_path, files, in_cache):
    folder = write_folder(tmp_path / "fashion", files)
    for name, (damaged, damage) in DAMAGE.items():
        (folder / damaged).write_bytes(damage(files[damaged]))
        with case(name), pytest.raises(DatasetError, match=r"fashion.*etch it\s+again"):
            load_fashion_mnist(folder)
        (folder / damaged).write_bytes(files[damaged])
    assert in_cache() == []
