"""The random split, the digits, and the list of data sets."""

import subprocess
import sys

import numpy as np
import pytest

from mlp_xp.datasets import LOADERS, load_digits, locate, split_dataset


@pytest.fixture
def samples():
    return np.arange(300, dtype=np.float32).reshape(100, 3), np.arange(100, dtype=np.int16)


@pytest.mark.parametrize(("split", "n_train"), [(0.9, 90), (0.5, 50), (0.011, 1), (0.994, 99)])
def test_the_parts_are_a_permutation_of_the_data(samples, split, n_train):
    data, labels = samples
    x_train, y_train, x_test, y_test = split_dataset(data, labels, split)
    assert (len(x_train), len(x_test)) == (n_train, 100 - n_train)
    np.testing.assert_array_equal(np.sort(np.concatenate([y_train, y_test])), labels)
    np.testing.assert_array_equal(np.concatenate([x_train, x_test])[:, 0] / 3, [*y_train, *y_test])
    assert (x_train.dtype, x_test.dtype) == (np.float32, np.float32)
    assert (y_train.dtype, y_test.dtype) == (np.int16, np.int16)


def test_the_split_is_shuffled_and_seeded(samples):
    first, again, other = (split_dataset(*samples, 0.8, seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != np.sort(first)).any()


@pytest.mark.parametrize("split", [0, 1, -0.1, 1.5, float("nan")])
def test_a_split_outside_0_and_1_is_an_error(samples, split):
    with pytest.raises(ValueError, match=rf"split={split}, expected the fraction .*split=0\.9"):
        split_dataset(*samples, split)


@pytest.mark.parametrize(("split", "n_train"), [(0.001, 0), (0.999, 100)])
def test_a_split_that_leaves_a_part_empty_is_an_error(samples, split, n_train):
    with pytest.raises(ValueError, match=rf"puts {n_train} into training, expected at least one"):
        split_dataset(*samples, split)


def test_unequal_lengths_are_an_error(samples):
    with pytest.raises(ValueError, match=r"\(100, 3\) and labels of shape \(99,\), expected one"):
        split_dataset(samples[0], samples[1][1:], 0.9)


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


def test_the_import_loads_no_optional_library():
    code = (
        "import sys, mlp_xp.datasets\n"
        "print([m for m in ('PIL', 'requests', 'sklearn.datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
