"""The lab: its steps against plain formulas, on every backend, at extremes, and its errors."""

import math
import re
from unittest.mock import Mock

import array_api_compat
import numpy as np
import pytest

from mlp_xp import lab
from mlp_xp.backends import to_numpy
from mlp_xp.backends._numpy.backend import NumpyBackend
from mlp_xp.lab import _runs
from mlp_xp.nn import network

STEPS = {"mse": lab.learn_once_mse, "cross_entropy": lab.learn_once_cross_entropy}


def lab_data(n=7, d_in=4, d_h=3, d_out=5, seed=0):
    """Return random weights, data and labels in float64, all read-only."""
    generator = np.random.default_rng(seed)
    shapes = (d_in, d_h), (1, d_h), (d_h, d_out), (1, d_out)
    arrays = [generator.standard_normal(shape) for shape in shapes]
    arrays += [generator.standard_normal((n, d_in)), generator.integers(d_out, size=n)]
    for array in arrays:
        array.setflags(write=False)
    return tuple(arrays[:4]), *arrays[4:]


def logits(weights, data):
    w1, b1, w2, b2 = weights
    return 1 / (1 + np.exp(-(data @ w1 + b1))) @ w2 + b2


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def descended(name, weights, data, targets):
    """Return the loss whose gradient a step follows."""
    z2 = logits(weights, data)
    if name == "mse":
        return np.mean((1 / (1 + np.exp(-z2)) - targets) ** 2)
    return -np.mean(np.log(softmax(z2)[np.arange(len(targets)), targets]))


def reported(name, weights, data, targets):
    """Return the loss that a step reports; for cross-entropy, it includes all one-hot entries."""
    if name == "mse":
        return descended(name, weights, data, targets)
    p, y = softmax(logits(weights, data)), np.eye(weights[2].shape[1])[targets]
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


def assert_all_close(actual, expected, rtol=1e-12, atol=1e-12):
    """Compare arrays; sums of some tens of float64 terms differ by far less."""
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol)


def step_case(name, n=7):
    weights, data, labels = lab_data(n)
    return weights, data, np.random.default_rng(1).random((n, 5)) if name == "mse" else labels


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("name", STEPS)
def test_lab_step_matches_finite_differences(name, n):
    weights, data, targets = step_case(name, n)
    *new, loss = STEPS[name](*weights, data, targets, 0.5)
    assert loss == pytest.approx(reported(name, weights, data, targets), rel=1e-12)
    generator, h = np.random.default_rng(2), 1e-5
    for number, (old, array) in enumerate(zip(weights, new, strict=True)):
        direction = generator.standard_normal(old.shape)
        ends = [[*weights[:number], old + s * direction, *weights[number + 1 :]] for s in (h, -h)]
        up, down = (descended(name, end, data, targets) for end in ends)
        # The central difference is off by h^2 times the third derivative, which is of order 1.
        found = np.sum((old - array) / 0.5 * direction)
        np.testing.assert_allclose((up - down) / (2 * h), found, rtol=1e-7, atol=1e-8)


def use_all(weights, data, labels, targets, rate=0.1):
    """Return what each function that moves weights returns: four weights and a loss or losses."""
    *new, accuracies, losses = lab.train_mlp(*weights, data, labels, rate, 3)
    one, two = lab.learn_once_mse, lab.learn_once_cross_entropy
    many = [*new, accuracies], [*new, losses]
    return one(*weights, data, targets, rate), two(*weights, data, labels, rate), *many


def test_no_autograd_graph_is_recorded(torch):
    weights, data, labels = lab_data()
    free = [torch.tensor(weight, requires_grad=True) for weight in weights]
    x, targets = (torch.tensor(a, requires_grad=True) for a in (data, np.eye(5)[labels]))
    for given in (free, [weight.detach() for weight in free]):
        for *new, _ in use_all(given, x, torch.tensor(labels), targets):
            assert not any(weight.requires_grad for weight in new)


def test_lab_training_preserves_weight_shape_and_dtype():
    weights, data, labels = lab_data()
    *weights, data, targets = (a.astype("float32") for a in (*weights, data, np.eye(5)[labels]))
    # A NumPy float64 must not promote.
    for *new, loss in use_all(weights, data, labels, targets, np.float64(0.1)):
        assert [array.shape for array in new] == [weight.shape for weight in weights]
        assert {array.dtype for array in new} == {np.dtype(np.float32)}
        assert isinstance(loss, float | list)


def test_number_of_classes_comes_from_w2_and_uint8_inputs_are_accepted():
    weights, data, labels = lab_data(d_out=300)
    labels = labels % 256
    pixels = np.abs(40 * data).astype(np.uint8)
    expected = lab.learn_once_cross_entropy(*weights, pixels.astype(float), labels, 0.1)
    new = lab.learn_once_cross_entropy(*weights, pixels, labels.astype(np.uint8), 0.1)
    assert_all_close(new, expected)


def test_keyword_arguments_can_be_in_any_order():
    new = lab.learn_once_cross_entropy(learning_rate=0.1, labels_train=LABELS, data=DATA, **NAMED)
    assert_all_close(new, lab.learn_once_cross_entropy(*WEIGHTS, DATA, LABELS, 0.1), 0, 0)
    with pytest.raises(TypeError, match=r"test_mlp\(\) missing 6 required .* 'w1'"):
        lab.test_mlp()


def test_train_mlp_matches_a_plain_loop_with_accuracy_after_each_step(monkeypatch):
    forward_pass = Mock(wraps=network.chain)
    monkeypatch.setattr(network, "chain", forward_pass)
    weights, data, labels = lab_data(n=40)
    *new, accuracies, losses = lab.train_mlp(*weights, data, labels, 0.5, 6)
    assert forward_pass.call_count == 7  # One more for the accuracy of the last epoch.
    expected, before = [], []
    for _ in range(6):
        before.append(reported("cross_entropy", weights, data, labels))
        *weights, _ = lab.learn_once_cross_entropy(*weights, data, labels, 0.5)
        expected.append(np.mean(logits(weights, data).argmax(axis=1) == labels))
    assert_all_close(new, weights)
    assert accuracies == expected
    assert len(set(accuracies)) > 1  # Otherwise stopping an epoch too early or too late would pass.
    assert losses == pytest.approx(before, rel=1e-12)
    assert lab.test_mlp(*new, data, labels) == accuracies[-1]
    *same, accuracies, losses = lab.train_mlp(*new, data, labels, 0.1, 0)
    assert_all_close(same, new, 0, 0)
    assert accuracies == losses == []


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_results_do_not_depend_on_the_block_size(monkeypatch, dtype):
    weights, data, labels = lab_data(n=11)
    data = np.abs(10 * data).astype(dtype)
    whole = lab.train_mlp(*weights, data, labels, 0.1, 3)
    accuracy = lab.test_mlp(*weights, data, labels)
    for rows in (1, 3, 10):
        monkeypatch.setattr(NumpyBackend, "block_bytes", lambda self, rows=rows: rows * 4 * 8)
        assert_all_close(lab.train_mlp(*weights, data, labels, 0.1, 3), whole)
        assert lab.test_mlp(*weights, data, labels) == accuracy


def test_training_learns_and_is_reproducible_with_a_seed():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=90)
    pixels = (generator.integers(60, size=(90, 6)) + 60 * labels[:, None]).astype(np.uint8)
    split = pixels[:60] / np.float32(255), labels[:60], pixels[60:] / np.float32(255), labels[60:]
    accuracies, test_accuracy, losses = lab.run_mlp_training(*split, 8, 2.0, 100)
    assert len(accuracies) == len(losses) == 100
    assert losses[-1] < losses[0]
    assert test_accuracy > 0.9
    first = lab.run_mlp_training(*split, 8, 2.0, 5)
    assert (first[0], first[2]) == (accuracies[:5], losses[:5])
    assert lab.run_mlp_training(*split, 8, 2.0, 5, seed=1)[2] != losses[:5]
    seen = []

    def after_epoch(*numbers):
        seen.append(numbers)
        return len(seen) == 3

    accuracies, _, losses = lab.run_mlp_training(*split, 8, 2.0, 5, after_epoch=after_epoch)
    assert seen == list(zip((1, 2, 3), first[0], first[2], strict=False))
    assert (accuracies, losses) == (first[0][:3], first[2][:3])


def test_training_accepts_integers_and_counts_classes_in_both_sets():
    data, train, test = np.arange(8, dtype=np.uint8).reshape(4, 2), [0, 1, 0, 1], [2, 2, 2, 2]
    found = lab.run_mlp_training(data, np.array(train), data, np.array(test), 3, 0.1, 2)
    assert (len(found[0]), found[1], len(found[2])) == (2, 0.0, 2)


def test_lab_results_are_the_same_on_every_backend(backend):
    def put(array):
        return backend.put(np.array(array))

    weights, data, labels = lab_data(n=12)
    targets, pixels = np.eye(5)[labels], np.abs(40 * data).astype(np.uint8)
    given = [put(weight) for weight in weights]
    x, y = put(data), put(labels)

    for inputs in (data, pixels):
        found = use_all(given, put(inputs), y, put(targets))
        for actual, expected in zip(found, use_all(weights, inputs, labels, targets), strict=True):
            for array, like in zip(actual[:4], given, strict=True):
                assert (type(array), array.dtype) == (type(like), like.dtype)
                assert array_api_compat.device(array) == array_api_compat.device(like)
            assert_all_close(map(to_numpy, actual[:4]), expected[:4])
            assert_all_close(actual[4:], expected[4:])
    assert lab.test_mlp(*given, x, y) == lab.test_mlp(*weights, data, labels)
    *actual, losses = lab.run_mlp_training(x, y, x, y, 3, 0.5, 3, seed=1)
    *expected, same = lab.run_mlp_training(data, labels, data, labels, 3, 0.5, 3, seed=1)
    assert actual == expected
    assert losses == pytest.approx(same, rel=1e-12)


def test_one_hot_encodes_labels_of_any_shape(backend):
    for labels, expected in (
        (2, [0, 0, 1]),
        ([1, 0], [[0, 1], [1, 0]]),
        ([[0, 1], [2, 0]], [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 0, 0]]]),
        ([0, 0], [[1], [1]]),
    ):
        given = backend.xp.asarray(labels, device=backend.device)
        hot = lab.one_hot(given)
        np.testing.assert_array_equal(to_numpy(hot), expected)
        assert array_api_compat.device(hot) == array_api_compat.device(given)
        # The default dtype of the library, outside of the scope too.
        assert hot.dtype == backend.xp.ones(1, device=backend.device).dtype
    assert lab.one_hot(np.array([255], np.uint8)).shape == (1, 256)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lab_step_is_exact_at_extreme_logits(dtype):
    # Warnings are errors: no overflow, no logarithm of zero. Weights of zero leave the bias alone.
    w1, b1, w2 = (np.zeros(shape, dtype) for shape in ((2, 3), (1, 3), (3, 3)))
    b2 = np.array([[-1e4, 1e4, 0.0]], dtype)
    data = np.ones((1, 2), dtype)
    for label, expected in ((0, 2e4 + 1e4), (1, 0.0), (2, 1e4 + 1e4)):
        # -log p of the label is its distance to the largest, 1e4; for the largest, 1 - p is
        # exp(-1e4), as the second largest is 1e4 away.
        dlogits = np.array([[0.0, 1.0, 0.0]]) - np.eye(3)[[label]]
        *new, loss = lab.learn_once_cross_entropy(w1, b1, w2, b2, data, np.array([label]), 1.0)
        assert loss == pytest.approx(expected / 3, rel=1e-6)
        assert_all_close(new, (w1, b1, w2 - 0.5 * dlogits, b2 - dlogits), rtol=1e-6, atol=1e-6)
    targets = np.array([[0.0, 0.0, 0.5]], dtype)
    *new, loss = lab.learn_once_mse(w1, b1, w2, b2, np.full((1, 2), 1e4, dtype), targets, 1.0)
    assert loss == pytest.approx(1 / 3)
    assert_all_close(new, (w1, b1, w2, b2), atol=1e-30)


def test_the_loss_of_a_nearly_certain_class_is_exact():
    # 1 - p of the largest is 2 exp(-40), below the rounding of p; the label is another class.
    w1, b1, w2 = (np.zeros(shape) for shape in ((1, 1), (1, 1), (1, 3)))
    b2 = np.array([[40.0, 0.0, 0.0]])
    *_, loss = lab.learn_once_cross_entropy(w1, b1, w2, b2, np.ones((1, 1)), np.array([1]), 1.0)
    assert loss == pytest.approx((40.0 + 40.0 - math.log(2)) / 3, rel=1e-14)
    weights, data, labels = lab_data(d_out=1)  # A single class has none.
    *new, loss = lab.learn_once_cross_entropy(*weights, data, labels, 1.0)
    assert loss == 0.0
    assert_all_close(new, weights)


WEIGHTS, DATA, LABELS = lab_data()
NAMED = dict(zip(("w1", "b1", "w2", "b2"), WEIGHTS, strict=True))
B1_FITS_NOT = "`b1` must have shape (1, 3) to fit w1 (4, 3) and w2 (3, 5), got (7, 3)"
WRONG = [
    ({"b1": np.zeros(3)}, "`b1` must have two axes, got shape (3,). A bias is a row: b1[None"),
    ({"b1": np.zeros((7, 3))}, B1_FITS_NOT),
    ({"w2": np.zeros((4, 5))}, "`w2` must have shape (3, 5) to fit"),
    ({"b2": np.zeros((1, 4))}, "`b2` must have shape (1, 5) to fit"),
    ({"data_train": np.zeros((7, 5))}, "`data_train` must have shape (7, 4) to fit"),
    ({"data_train": np.zeros((7, 2, 2))}, "reshape(data_train, (n, -1))"),
    ({"data_train": np.zeros((0, 4)), "labels_train": np.zeros(0, int)}, "data_train has no rows"),
    (
        {"w1": np.zeros((4, 3), "f4")},
        "must have the same real floating dtype, got float32 and float64",
    ),
    ({name: w.astype(int) for name, w in NAMED.items()}, "same real floating dtype, got int64"),
    ({"labels_train": np.zeros(6, int)}, "`labels_train` must have shape (7,), got (6,)"),
    ({"labels_train": np.zeros((7, 1), int)}, "`labels_train` must have shape (7,), got (7, 1)"),
    ({"labels_train": np.zeros(7)}, "`labels_train` must contain integers, got dtype float64"),
    ({"labels_train": np.full(7, -1)}, "`labels_train` must be at least 0, got -1: renumber"),
    ({"labels_train": np.full(7, 5)}, "must be at most 4, since w2 has shape (3, 5), got 5: give"),
    ({"num_epoch": -1}, "`num_epoch` must be an integer of at least 0, got -1"),
    ({"num_epoch": 1.5}, "`num_epoch` must be an integer of at least 0, got 1.5"),
]


RIGHT = {"data_train": DATA, "labels_train": LABELS, "learning_rate": 0.1, "num_epoch": 1} | NAMED


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_train_mlp_errors_name_the_fix(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        lab.train_mlp(**(RIGHT | changes))


def test_lab_errors_name_the_fix(monkeypatch):
    lab.train_mlp(**RIGHT)
    with pytest.raises(ValueError, match=r"`targets` must .* got \(7,\).* use one_hot\(labels\)"):
        lab.learn_once_mse(*WEIGHTS, DATA, LABELS, 0.1)
    for d_h in (0, 1.5):
        with pytest.raises(ValueError, match=f"`d_h` must be an integer of .* got {d_h}"):
            lab.run_mlp_training(DATA, LABELS, DATA, LABELS, d_h, 0.1, 1)
    with pytest.raises(ValueError, match=r"`labels` must not be empty, got shape \(0,\)"):
        lab.one_hot(np.zeros(0, int))
    # Both sets are checked before the first epoch.
    monkeypatch.setattr(_runs, "train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ValueError, match="`data_test` must have shape"):
        lab.run_mlp_training(DATA, LABELS, DATA[:, :3], LABELS, 3, 0.1, 1)
