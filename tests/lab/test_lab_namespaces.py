"""The lab on every backend, its initial weights, and its errors."""

from __future__ import annotations

import re

import array_api_compat
import numpy as np
import pytest
from plain_lab import assert_all_close, lab_data

from mlp_xp import lab
from mlp_xp.backends import to_numpy
from mlp_xp.lab import _runs

# Namespaces


@pytest.fixture
def namespace(backend):
    """A function that copies a NumPy array to the backend under test."""
    return lambda array: backend.put(np.array(array))


def test_every_namespace_computes_the_same(namespace):
    weights, data, labels = lab_data(n=12)
    targets = np.eye(5)[labels]
    given = [namespace(weight) for weight in weights]
    x, y, t = namespace(data), namespace(labels), namespace(targets)

    for actual, expected in (
        (lab.learn_once_mse(*given, x, t, 0.1), lab.learn_once_mse(*weights, data, targets, 0.1)),
        (
            lab.learn_once_cross_entropy(*given, x, y, 0.1),
            lab.learn_once_cross_entropy(*weights, data, labels, 0.1),
        ),
        (lab.train_mlp(*given, x, y, 0.1, 3), lab.train_mlp(*weights, data, labels, 0.1, 3)),
    ):
        for array, like in zip(actual[:4], given, strict=True):
            assert array_api_compat.device(array) == array_api_compat.device(like)
            assert array.dtype == like.dtype
            assert type(array) is type(like)
        assert_all_close([to_numpy(array) for array in actual[:4]], expected[:4])
        assert_all_close(actual[4:], expected[4:])

    assert lab.test_mlp(*given, x, y) == lab.test_mlp(*weights, data, labels)
    hot = lab.one_hot(y)
    assert array_api_compat.device(hot) == array_api_compat.device(y)
    np.testing.assert_array_equal(to_numpy(hot), lab.one_hot(labels))

    run = lab.run_mlp_training(x, y, x, y, 3, 0.5, 3, seed=1)
    expected_run = lab.run_mlp_training(data, labels, data, labels, 3, 0.5, 3, seed=1)
    assert run[:2] == expected_run[:2]
    assert run[2] == pytest.approx(expected_run[2], rel=1e-12)


def test_no_autograd_graph_is_recorded():
    torch = pytest.importorskip("torch")
    weights, data, labels = lab_data()
    free = [torch.tensor(weight, requires_grad=True) for weight in weights]
    x, y = torch.tensor(data, requires_grad=True), torch.tensor(labels)
    targets = torch.tensor(np.eye(5)[labels], requires_grad=True)
    for given in (free, [weight.detach() for weight in free]):
        for *new, _ in (
            lab.learn_once_mse(*given, x, targets, 0.1),
            lab.learn_once_cross_entropy(*given, x, y, 0.1),
            lab.train_mlp(*given, x, y, 0.1, 2)[:5],
        ):
            assert not any(weight.requires_grad for weight in new)


def test_uint8_data_on_every_namespace(namespace):
    weights, data, labels = lab_data()
    pixels = np.abs(40 * data).astype(np.uint8)
    expected = lab.learn_once_cross_entropy(*weights, pixels, labels, 0.1)
    actual = lab.learn_once_cross_entropy(
        *map(namespace, weights), namespace(pixels), namespace(labels), 0.1
    )
    assert_all_close([to_numpy(array) for array in actual[:4]], expected[:4])


# one_hot and run_mlp_training


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (2, [0, 0, 1]),
        ([1, 0], [[0, 1], [1, 0]]),
        ([[0, 1], [2, 0]], [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 0, 0]]]),
        ([0, 0], [[1], [1]]),
    ],
)
def test_one_hot(labels, expected):
    hot = lab.one_hot(np.array(labels))
    np.testing.assert_array_equal(hot, expected)
    assert hot.dtype == np.float64


@pytest.mark.filterwarnings("error")
def test_one_hot_has_the_default_dtype_of_the_library(backend):
    labels = backend.xp.asarray([2, 0], device=backend.device)
    hot = lab.one_hot(labels)
    assert hot.dtype == backend.xp.ones(1, device=backend.device).dtype
    with backend.scope():
        np.testing.assert_array_equal(to_numpy(hot + hot), [[0, 0, 2], [2, 0, 0]])


def test_arguments_by_name_may_come_in_any_order():
    weights, data, labels = lab_data()
    named = dict(zip(("w1", "b1", "w2", "b2"), weights, strict=True))
    *new, loss = lab.learn_once_cross_entropy(
        learning_rate=0.1, labels_train=labels, data=data, **named
    )
    *expected, same = lab.learn_once_cross_entropy(*weights, data, labels, 0.1)
    assert loss == same
    assert_all_close(new, expected)
    with pytest.raises(TypeError, match=r"test_mlp\(\) missing 6 required .* 'w1'"):
        lab.test_mlp()


def test_one_hot_of_uint8_counts_256_classes():
    assert lab.one_hot(np.array([255], np.uint8)).shape == (1, 256)


def test_run_learns_and_repeats_with_the_same_seed():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=90)
    pixels = (generator.integers(60, size=(90, 6)) + 60 * labels[:, None]).astype(np.uint8)
    split = pixels[:60] / np.float32(255), labels[:60], pixels[60:] / np.float32(255), labels[60:]
    accuracies, test_accuracy, losses = lab.run_mlp_training(*split, 8, 1.0, 200)
    assert len(accuracies) == len(losses) == 200
    assert losses[-1] < losses[0]
    assert test_accuracy > 0.9
    assert lab.run_mlp_training(*split, 8, 1.0, 200) == (accuracies, test_accuracy, losses)
    assert lab.run_mlp_training(*split, 8, 1.0, 200, seed=1)[2] != losses


def test_run_accepts_integers_and_counts_the_classes_of_both_sets():
    data = np.arange(8, dtype=np.uint8).reshape(4, 2)
    accuracies, test_accuracy, losses = lab.run_mlp_training(
        data, np.array([0, 1, 0, 1]), data, np.array([2, 2, 2, 2]), 3, 0.1, 2
    )
    assert len(accuracies) == len(losses) == 2
    assert test_accuracy == 0.0


# Errors


def call(**changes):
    weights, data, labels = lab_data()
    given = dict(zip(("w1", "b1", "w2", "b2"), weights, strict=True))
    given |= {"data_train": data, "labels_train": labels, "learning_rate": 0.1, "num_epoch": 1}
    return lab.train_mlp(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"b1": np.zeros(3)},
            "b1 has shape (3,), and must have two axes. Biases are rows, b1[None",
        ),
        ({"b1": np.zeros((7, 3))}, "b1 has shape (7, 3), and must have shape (1, 3)"),
        ({"w2": np.zeros((4, 5))}, "w2 has shape (4, 5), and must have shape (3, 5)"),
        ({"b2": np.zeros((1, 4))}, "b2 has shape (1, 4), and must have shape (1, 5)"),
        (
            {"data_train": np.zeros((7, 5))},
            "data_train has shape (7, 5), and must have shape (7, 4)",
        ),
        ({"data_train": np.zeros((7, 2, 2))}, "reshape(data_train, (n, -1))"),
        (
            {"data_train": np.zeros((0, 4)), "labels_train": np.zeros(0, int)},
            "data_train has no rows",
        ),
        ({"w1": np.zeros((4, 3), np.float32)}, "dtype float32 and float64, and must share one"),
        (
            {"labels_train": np.zeros(6, int)},
            "labels_train has shape (6,), and must have shape (7,)",
        ),
        ({"labels_train": np.zeros((7, 1), int)}, "labels_train has shape (7, 1)"),
        ({"labels_train": np.zeros(7)}, "labels_train has dtype float64, and must hold integers"),
        ({"labels_train": np.full(7, -1)}, "labels_train holds -1, and classes count from 0"),
        (
            {"labels_train": np.full(7, 5)},
            "labels_train holds 5, but w2 of shape (3, 5) has the classes 0 to 4: give w2 and b2 6",
        ),
        ({"num_epoch": -1}, "num_epoch is -1, and must be an integer of at least 0"),
        ({"num_epoch": 1.5}, "num_epoch is 1.5, and must be an integer"),
    ],
)
def test_an_error_names_the_fix(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(**changes)


def test_more_errors():
    weights, data, labels = lab_data()
    integers = [weight.astype(int) for weight in weights]
    with pytest.raises(ValueError, match=r"dtype int64, and must share one real floating dtype"):
        lab.test_mlp(*integers, data, labels)
    with pytest.raises(ValueError, match=r"targets has shape \(7,\).* use one_hot\(labels\)"):
        lab.learn_once_mse(*weights, data, labels, 0.1)
    for d_h in (0, 1.5):
        with pytest.raises(ValueError, match=f"d_h is {d_h}, and must be an integer of at least 1"):
            lab.run_mlp_training(data, labels, data, labels, d_h, 0.1, 1)
    with pytest.raises(ValueError, match=r"labels has shape \(0,\)"):
        lab.one_hot(np.zeros(0, int))


def test_run_checks_both_sets_before_the_first_epoch(monkeypatch):
    _, data, labels = lab_data()
    monkeypatch.setattr(_runs, "train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ValueError, match="data_test has shape"):
        lab.run_mlp_training(data, labels, data[:, :3], labels, 3, 0.1, 1)
