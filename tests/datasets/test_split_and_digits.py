"""The random split, the digits, and the list of data sets."""

import numpy as np
import pytest

from mlp_xp.datasets import LOADERS, load_digits, locate, split_dataset

DATA = np.arange(300, dtype=np.float32).reshape(100, 3)
LABELS = np.arange(100, dtype=np.int16)


@pytest.mark.parametrize(("split", "n_train"), [(0.9, 90), (0.5, 50), (0.011, 1), (0.994, 99)])
def test_the_parts_are_a_permutation_of_the_data(split, n_train):
    x_train, y_train, x_test, y_test = split_dataset(DATA, LABELS, split)
    assert (len(x_train), len(x_test)) == (n_train, 100 - n_train)
    np.testing.assert_array_equal(np.sort(np.concatenate([y_train, y_test])), LABELS)
    np.testing.assert_array_equal(np.concatenate([x_train, x_test])[:, 0] / 3, [*y_train, *y_test])
    assert (x_train.dtype, x_test.dtype) == (np.float32, np.float32)
    assert (y_train.dtype, y_test.dtype) == (np.int16, np.int16)


def test_the_split_is_shuffled_and_seeded():
    first, other = (split_dataset(DATA, LABELS, 0.8, seed=seed)[1] for seed in (0, 1))
    np.testing.assert_array_equal(first, split_dataset(DATA, LABELS, 0.8)[1])
    assert (first != other).any()
    assert (first != np.sort(first)).any()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        *((bad, rf"split={bad}, expected the fraction .*split=0\.9") for bad in (0, 1, -0.1, 1.5)),
        (float("nan"), "split=nan, expected the fraction"),
        (0.001, "puts 0 into training, expected at least one"),
        (0.999, "puts 100 into training, expected at least one"),
    ],
)
def test_a_split_that_leaves_a_part_empty_is_an_error(split, message):
    with pytest.raises(ValueError, match=message):
        split_dataset(DATA, LABELS, split)


def test_unequal_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"\(100, 3\) and labels of shape \(99,\), expected one"):
        split_dataset(DATA, LABELS[1:], 0.9)


def test_digits_need_only_scikit_learn(in_cache):
    d = load_digits()
    assert (d.x_train.dtype, d.y_train.dtype) == (np.uint8, np.int64)
    assert d.x_train.shape == (1438, 64)
    assert d.x_test.shape == (359, 64)
    assert d.x_train.max() == d.max_value == 16
    assert d.image_shape == (1, 8, 8)
    assert set(d.y_train) == set(d.y_test) == set(range(len(d.class_names)))
    assert in_cache() == []


def test_every_data_set_can_be_located():
    assert list(LOADERS) == ["cifar10", "cifar100", "fashion-mnist", "digits"]
    assert locate("cifar10") is None
    assert locate("cifar100") is None
    assert locate("digits").is_file()
    locate("fashion-mnist")  # Debian's package may be installed
    with pytest.raises(ValueError, match="'mnist', expected one of cifar10, cifar100, fashion"):
        locate("mnist")
