"""Official files with random changes: they load, or raise a clear error."""

import gzip
import pickle

import numpy as np
import pytest
from formats import BATCHES, archive_of, binary, images, pickle2, pickle3
from helpers import bounded, mutate

from mlp_xp.datasets import DatasetError, load_cifar10, load_fashion_mnist, read_cifar

pytestmark = pytest.mark.matrix

SMALL = images(2, seed=0)
STATE = {b"data": SMALL.x, b"labels": [int(label) for label in SMALL.y]}
FILES = {
    "data_batch_1": [
        pickle2(SMALL.x, labels=SMALL.y),
        pickle3(SMALL.x, labels=SMALL.y),
        *(pickle.dumps(STATE, protocol=protocol) for protocol in (0, 1, 3, 4)),
    ],
    "data_batch_1.bin": [binary(SMALL.x, SMALL.y)],
}


def read_changed(path, content, read):
    """Read a file of a content; check that the result is valid, or a clear error, and soon."""
    path.write_bytes(content)
    said, labels = str(path.parent), []
    with bounded():
        try:
            data, labels = read(path)[:2]
            assert len(data) == len(labels)
        except DatasetError as error:
            said = str(error)
    assert set(map(int, labels)) <= set(range(10))
    assert str(path.parent) in said
    assert len(said) < 3000


@pytest.mark.parametrize("name", FILES)
def test_batches(name, tmp_path, rng):
    path = tmp_path / name
    for whole in FILES[name]:
        path.write_bytes(whole)
        assert len(read_cifar(path)[0]) == 2
        for _ in range(80):
            read_changed(path, mutate(whole, FILES[name], rng), read_cifar)


def test_archives(tmp_path, rng):
    files = dict.fromkeys(BATCHES, FILES["data_batch_1"][0])
    path = archive_of(tmp_path / "a.tar.gz", files)
    packed = path.read_bytes()
    unpacked = gzip.decompress(packed)
    assert len(load_cifar10(path).x_test) == 2
    for _ in range(60):
        read_changed(path, mutate(packed, [unpacked], rng), load_cifar10)
        read_changed(path, gzip.compress(mutate(unpacked, [unpacked], rng), 1), load_cifar10)


def test_idx_files(tmp_path, rng):
    x = b"\0\0\x08\x03" + np.array([3, 28, 28], ">i4").tobytes() + bytes(3 * 784)
    y = b"\0\0\x08\x01" + np.array([3], ">i4").tobytes() + bytes([0, 5, 9])
    files = {tmp_path / f"{part}-images-idx3-ubyte": x for part in ("train", "t10k")}
    files |= {tmp_path / f"{part}-labels-idx1-ubyte": y for part in ("train", "t10k")}
    for path, content in files.items():
        path.write_bytes(content)
    assert len(load_fashion_mnist(tmp_path).x_test) == 3
    for path, content in files.items():
        for pack in [bytes, gzip.compress] * 10:
            changed = pack(mutate(content, [x, y], rng))
            read_changed(path, changed, lambda path: load_fashion_mnist(path.parent))
        path.write_bytes(content)
