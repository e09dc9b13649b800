"""The random split, the digits, the list of data sets, and the real ones if they are cached."""

import hashlib
import time

import numpy as np
import pytest
from helpers import case

from mlp_xp.datasets import LOADERS, cache_dir, cifar, load_digits, locate, split_dataset

DATA = np.arange(300, dtype=np.float32).reshape(100, 3)
LABELS = np.arange(100, dtype=np.int16)


def test_the_parts_are_a_seeded_permutation_of_the_data():
    for split, n_train in ((0.9, 90), (0.5, 50), (0.011, 1), (0.994, 99)):
        x_train, y_train, x_test, y_test = split_dataset(DATA, LABELS, split)
        assert (len(x_train), len(x_test)) == (n_train, 100 - n_train)
        labels = [*y_train, *y_test]
        np.testing.assert_array_equal(np.sort(labels), LABELS)
        np.testing.assert_array_equal(np.concatenate([x_train, x_test])[:, 0] / 3, labels)
        assert (x_train.dtype, x_test.dtype) == (np.float32, np.float32)
        assert (y_train.dtype, y_test.dtype) == (np.int16, np.int16)
    first, other = (split_dataset(DATA, LABELS, 0.8, seed=seed)[1] for seed in (0, 1))
    np.testing.assert_array_equal(first, split_dataset(DATA, LABELS, 0.8)[1])
    assert (first != other).any()
    assert (first != np.sort(first)).any()


def test_a_split_that_leaves_a_part_empty_is_an_error():
    for split, message in (
        *((bad, rf"split={bad}, expected the fraction .*split=0\.9") for bad in (0, 1, -0.1, 1.5)),
        (float("nan"), "split=nan, expected the fraction"),
        (0.001, "puts 0 into training, expected at least one"),
        (0.999, "puts 100 into training, expected at least one"),
    ):
        with case(split), pytest.raises(ValueError, match=message):
            split_dataset(DATA, LABELS, split)
    with pytest.raises(ValueError, match=r"\(100, 3\) and labels of shape \(99,\), expected one"):
        split_dataset(DATA, LABELS[1:], 0.9)


def test_digits_need_only_scikit_learn(in_cache):
    d = load_digits()
    assert (d.x_train.dtype, d.y_train.dtype) == (np.uint8, np.int64)
    assert (d.x_train.shape, d.x_test.shape) == ((1438, 64), (359, 64))
    assert d.x_train.max() == d.max_value == 16
    assert d.image_shape == (1, 8, 8)
    assert set(d.y_train) == set(d.y_test) == set(range(len(d.class_names)))
    assert in_cache() == []


def test_every_data_set_can_be_located():
    assert list(LOADERS) == ["cifar10", "cifar100", "fashion-mnist", "digits"]
    assert locate("cifar10") is locate("cifar100") is None
    assert locate("digits").is_file()
    locate("fashion-mnist")  # Debian's package may be installed
    with pytest.raises(ValueError, match="'mnist', expected one of cifar10, cifar100, fashion"):
        locate("mnist")


@pytest.mark.matrix
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_the_real_data_are_the_official_ones_and_are_mapped(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no folder data
    if not (cache_dir() / name).is_dir():
        pytest.skip(f"{name} is not in {cache_dir()}; load it once to run this test")
    LOADERS[name]()
    start = time.process_time()  # Others may be at work on the machine.
    d = LOADERS[name]()
    assert time.process_time() - start < 0.1
    for x in (d.x_train, d.x_test):
        assert isinstance(x, np.memmap)
        assert not x.flags.writeable
    if name == "cifar10":
        found = tuple(hashlib.sha256(np.ascontiguousarray(a).data).hexdigest() for a in d[:4])
        assert {found} == cifar.CIFAR10.official
