"""The lab: gradients, shapes and dtypes, and extreme values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from plain_lab import assert_all_close, forward, gradients, lab_data, plain_step, softmax

from mlp_xp import lab
from mlp_xp.backends._numpy.backend import NumpyBackend
from mlp_xp.lab import _training

# Gradients


def mse(weights, data, targets):
    a2 = 1 / (1 + np.exp(-forward(weights, data)[1]))
    return np.mean((a2 - targets) ** 2)


def cross_entropy(weights, data, labels):
    p = softmax(forward(weights, data)[1])
    return -np.mean(np.log(p[np.arange(len(labels)), labels]))


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_gradients_agree_with_finite_differences(name, n):
    weights, data, labels = lab_data(n)
    targets = np.random.default_rng(1).random((n, 5)) if name == "mse" else labels
    learn, loss = {
        "mse": (lab.learn_once_mse, mse),
        "cross_entropy": (lab.learn_once_cross_entropy, cross_entropy),
    }[name]
    grads = gradients(learn, weights, data, targets)
    generator = np.random.default_rng(2)
    h = 1e-5
    for number, grad in enumerate(grads):
        direction = generator.standard_normal(grad.shape)
        moved = [
            loss(
                [*weights[:number], weights[number] + s * direction, *weights[number + 1 :]],
                data,
                targets,
            )
            for s in (h, -h)
        ]
        # The central difference is off by h^2 times the third derivative, which is of order 1.
        np.testing.assert_allclose(
            (moved[0] - moved[1]) / (2 * h), np.sum(grad * direction), rtol=1e-7, atol=1e-8
        )


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_gradients_agree_with_torch_autograd(name):
    torch = pytest.importorskip("torch")
    weights, data, labels = lab_data()
    params = [torch.tensor(weight, requires_grad=True) for weight in weights]
    w1, b1, w2, b2 = params
    z2 = torch.sigmoid(torch.tensor(data) @ w1 + b1) @ w2 + b2
    if name == "mse":
        targets = np.random.default_rng(1).random((7, 5))
        torch.nn.functional.mse_loss(torch.sigmoid(z2), torch.tensor(targets)).backward()
        grads = gradients(lab.learn_once_mse, weights, data, targets)
    else:
        torch.nn.functional.cross_entropy(z2, torch.tensor(labels)).backward()
        grads = gradients(lab.learn_once_cross_entropy, weights, data, labels)
    assert_all_close(grads, [param.grad.numpy() for param in params])


def test_reported_loss_is_the_binary_cross_entropy_of_the_one_hot_entries():
    weights, data, labels = lab_data()
    p = softmax(forward(weights, data)[1])
    y = np.eye(5)[labels]
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    *_, loss = lab.learn_once_cross_entropy(*weights, data, labels, 0.1)
    assert loss == pytest.approx(expected, rel=1e-12)


# Shapes, dtypes and batches


@pytest.mark.parametrize("n", [1, 7])
def test_weights_keep_shape_and_dtype(n):
    weights, data, labels = lab_data(n)
    weights = [weight.astype(np.float32) for weight in weights]
    data = data.astype(np.float32)
    targets = np.eye(5, dtype=np.float32)[labels]
    # A NumPy float64 must not promote.
    rate = np.float64(0.1)
    for *new, loss in (
        lab.learn_once_mse(*weights, data, targets, rate),
        lab.learn_once_cross_entropy(*weights, data, labels, rate),
        lab.train_mlp(*weights, data, labels, rate, 2)[:5],
    ):
        assert [array.shape for array in new] == [weight.shape for weight in weights]
        assert {array.dtype for array in new} == {np.dtype(np.float32)}
        assert isinstance(loss, float | list)


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_duplicating_the_batch_changes_nothing(name):
    weights, data, labels = lab_data()
    learn = getattr(lab, f"learn_once_{name}")
    targets = np.eye(5)[labels] if name == "mse" else labels
    once = learn(*weights, data, targets, 0.1)
    twice = learn(*weights, np.concat([data, data]), np.concat([targets, targets]), 0.1)
    assert_all_close(once, twice)


def test_classes_come_from_w2():
    weights, data, labels = lab_data()
    labels = labels % 2  # of 5 classes
    new = lab.learn_once_cross_entropy(*weights, data, labels, 0.1)
    assert_all_close(new[:4], plain_step(weights, data, labels, 0.1))


def test_train_equals_plain_loop_with_accuracy_after_each_step():
    weights, data, labels = lab_data(n=40)
    *new, accuracies, losses = lab.train_mlp(*weights, data, labels, 0.5, 6)
    expected, before = [], []
    for _ in range(6):
        before.append(lab.learn_once_cross_entropy(*weights, data, labels, 0.5)[4])
        weights = plain_step(weights, data, labels, 0.5)
        expected.append(np.mean(forward(weights, data)[1].argmax(axis=1) == labels))
    assert_all_close(new, weights)
    assert accuracies == expected
    assert len(set(accuracies)) > 1  # or else an epoch too early or too late would pass
    assert losses == pytest.approx(before, rel=1e-12)
    assert lab.test_mlp(*new, data, labels) == accuracies[-1]


def test_accuracy_takes_one_more_forward_pass_in_all(monkeypatch):
    calls = []

    def counting(*args, **kwargs):
        calls.append(1)
        return forward_once(*args, **kwargs)

    forward_once = _training.forward
    monkeypatch.setattr(_training, "forward", counting)
    weights, data, labels = lab_data()
    lab.train_mlp(*weights, data, labels, 0.1, 5)
    assert len(calls) == 6


def test_no_epoch_changes_nothing():
    weights, data, labels = lab_data()
    *new, accuracies, losses = lab.train_mlp(*weights, data, labels, 0.1, 0)
    assert_all_close(new, weights)
    assert accuracies == losses == []


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_result_does_not_depend_on_blocks(monkeypatch, dtype):
    weights, data, labels = lab_data(n=11)
    data = np.abs(10 * data).astype(dtype)
    whole = lab.train_mlp(*weights, data, labels, 0.1, 3)
    accuracy = lab.test_mlp(*weights, data, labels)
    for rows in (1, 3, 10):
        monkeypatch.setattr(NumpyBackend, "block_bytes", lambda self, rows=rows: rows * 4 * 8)
        blocks = lab.train_mlp(*weights, data, labels, 0.1, 3)
        assert_all_close(blocks[:4], whole[:4])
        assert blocks[4] == whole[4]
        assert blocks[5] == pytest.approx(whole[5], rel=1e-12)
        assert lab.test_mlp(*weights, data, labels) == accuracy


def test_integer_data_and_narrow_labels():
    weights, data, labels = lab_data(d_out=300)
    pixels = np.abs(40 * data).astype(np.uint8)
    expected = lab.learn_once_cross_entropy(*weights, pixels.astype(float), labels % 256, 0.1)
    new = lab.learn_once_cross_entropy(*weights, pixels, (labels % 256).astype(np.uint8), 0.1)
    assert_all_close(new, expected)


# Extremes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_at_extreme_logits(dtype):
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
        assert_all_close(new[:3], (w1, b1, w2 - 0.5 * dlogits), atol=1e-6)
        assert_all_close([new[3]], [b2 - dlogits], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mse_at_extreme_logits(dtype):
    w1, b1, w2 = (np.zeros(shape, dtype) for shape in ((2, 3), (1, 3), (3, 2)))
    b2 = np.array([[-1e4, 1e4]], dtype)
    *new, loss = lab.learn_once_mse(
        w1, b1, w2, b2, np.full((1, 2), 1e4, dtype), np.array([[0.0, 0.0]], dtype), 1.0
    )
    assert loss == 0.5
    assert_all_close(new, (w1, b1, w2, b2), atol=1e-30)


def test_the_loss_of_a_nearly_certain_class_is_exact():
    # 1 - p of the largest is 2 exp(-40), below the rounding of p; the label is another class.
    w1, b1, w2 = (np.zeros(shape) for shape in ((1, 1), (1, 1), (1, 3)))
    b2 = np.array([[40.0, 0.0, 0.0]])
    *_, loss = lab.learn_once_cross_entropy(w1, b1, w2, b2, np.ones((1, 1)), np.array([1]), 1.0)
    assert loss == pytest.approx((40.0 + 40.0 - math.log(2)) / 3, rel=1e-14)


def test_a_single_class_has_no_loss():
    weights, data, labels = lab_data(d_out=1)
    *new, loss = lab.learn_once_cross_entropy(*weights, data, labels, 1.0)
    assert loss == 0.0
    assert_all_close(new, weights)
