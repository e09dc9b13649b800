"""Official files with random changes: they load, or raise a clear error."""

import gzip
import pickle

import numpy as np
import pytest
from helpers import bounded, mutate
from official_formats import BATCHES, binary, images, python2_pickle, python3_pickle, write_archive

from mlp_xp.datasets import DatasetError, load_cifar10, load_fashion_mnist, read_cifar

SMALL = images(2, seed=0)
STATE = {b"data": SMALL.x, b"labels": [int(label) for label in SMALL.y]}
FILES = {
    "data_batch_1": [
        python2_pickle(SMALL.x, labels=SMALL.y),
        python3_pickle(SMALL.x, labels=SMALL.y),
        *(pickle.dumps(STATE, protocol=protocol) for protocol in (0, 1, 3, 4)),
    ],
    "data_batch_1.bin": [binary(SMALL.x, SMALL.y)],
}


def read_whole(path, read) -> None:
    """Read a file; check that the result is valid, or a clear error."""
    try:
        data, labels = read(path)[:2]
    except DatasetError as error:
        said = str(error)
    else:
        assert len(data) == len(labels)
        assert set(labels.tolist()) <= set(range(10))
        return
    assert str(path.parent) in said
    assert len(said) < 3000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(4))
def test_batches(name, seed, tmp_path):
    rng = np.random.default_rng(seed)
    path = tmp_path / name
    for whole in FILES[name]:
        path.write_bytes(whole)
        assert len(read_cifar(path)[0]) == 2
        for _ in range(20):
            path.write_bytes(mutate(whole, FILES[name], rng))
            with bounded():
                read_whole(path, read_cifar)


@pytest.mark.parametrize("seed", range(4))
def test_archives(seed, tmp_path):
    rng = np.random.default_rng(seed)
    members = {f"cifar-10-batches-py/{name}": FILES["data_batch_1"][0] for name in BATCHES}
    path = write_archive(tmp_path / "a.tar.gz", members)
    packed = path.read_bytes()
    unpacked = gzip.decompress(packed)
    for _ in range(15):
        path.write_bytes(mutate(packed, [unpacked], rng))
        with bounded():
            read_whole(path, load_cifar10)
        path.write_bytes(gzip.compress(mutate(unpacked, [unpacked], rng), 1))
        with bounded():
            read_whole(path, load_cifar10)


def test_idx_files(tmp_path):
    rng = np.random.default_rng(0)
    x = b"\0\0\x08\x03" + np.array([3, 28, 28], ">i4").tobytes() + bytes(3 * 784)
    y = b"\0\0\x08\x01" + np.array([3], ">i4").tobytes() + bytes([0, 5, 9])
    files = {
        f"{split}-{kind}": content
        for split in ("train", "t10k")
        for kind, content in (("images-idx3-ubyte", x), ("labels-idx1-ubyte", y))
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert len(load_fashion_mnist(tmp_path).x_test) == 3
    for name, content in files.items():
        for pack in (bytes, gzip.compress):
            for _ in range(10):
                (tmp_path / name).write_bytes(pack(mutate(content, [x, y], rng)))
                with bounded():
                    read_whole(tmp_path / name, lambda path: load_fashion_mnist(path.parent))
        (tmp_path / name).write_bytes(content)
