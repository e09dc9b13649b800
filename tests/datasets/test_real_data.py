"""The real data sets, if they are in the cache; nothing is downloaded."""

import hashlib
import time

import numpy as np
import pytest

from mlp_xp.datasets import LOADERS, cache_dir, cifar

pytestmark = [pytest.mark.real_data, pytest.mark.matrix]

# SHA-256 of the files in cifar-10-binary.tar.gz, as torchvision for Ruby has them.
BINARY = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no folder data

    def cached(name):
        if not (cache_dir() / name).is_dir():
            pytest.skip(f"{name} is not in {cache_dir()}; load it once to run this test")
        return LOADERS[name]()

    return cached


def test_cifar10_is_the_official_archive_and_has_the_pinned_digests(load):
    d = load("cifar10")
    x, y = [*np.split(d.x_train, 5), d.x_test], [*np.split(d.y_train, 5), d.y_test]
    for pixels, labels, digest in zip(x, y, BINARY.values(), strict=True):
        records = np.column_stack([labels.astype(np.uint8), pixels])
        assert hashlib.sha256(records.data).hexdigest() == digest
    assert (d.x_train.dtype, d.y_train.dtype) == (np.uint8, np.int64)
    (pinned,) = cifar.CIFAR10.official
    found = tuple(hashlib.sha256(np.ascontiguousarray(a).data).hexdigest() for a in d[:4])
    assert found == pinned


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_a_second_load_is_fast_and_copies_nothing(load, name):
    load(name)
    start = time.process_time()  # Others may be at work on the machine.
    d = load(name)
    assert time.process_time() - start < 0.1
    for x in (d.x_train, d.x_test):
        assert isinstance(x, np.memmap)
        assert not x.flags.writeable
