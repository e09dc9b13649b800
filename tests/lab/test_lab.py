"""The lab: a worked example, gradients, namespaces, extremes, and the traps of the classroom."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlp_xp import lab
from mlp_xp.lab import _sweep

# One sample, worked through with the classroom's formulas.
WEIGHTS = (
    np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
    np.array([[0.1, 0.2]]),
    np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.4, 0.5, 0.6, 0.7, 0.8]]),
    np.array([[0.1, 0.2, 0.3, 0.4, 0.5]]),
)
DATA = np.array([[0.1, 0.2, 0.3]])
TARGETS = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
LABELS = np.array([4])
AFTER_MSE = (
    [
        [0.09989478244195849, 0.19977902739897516],
        [0.29978956488391695, 0.3995580547979503],
        [0.49968434732587547, 0.5993370821969254],
    ],
    [[0.09894782441958483, 0.19779027398975144]],
    [
        [
            0.0972195813338095,
            0.1976249194120299,
            0.2980541714637416,
            0.3984819914769096,
            0.49888570833833107,
        ],
        [
            0.39703517034607605,
            0.49746739243147114,
            0.5979251145822385,
            0.6983813097146502,
            0.7988118030562057,
        ],
    ],
    [
        [
            0.09520058299669354,
            0.195900256930103,
            0.29664120994582704,
            0.39737969104959786,
            0.498076566521191,
        ]
    ],
)
AFTER_CROSS_ENTROPY = (
    [
        [0.10038250412109642, 0.20037061936029177],
        [0.3007650082421928, 0.40074123872058354],
        [0.5011475123632892, 0.6011118580808753],
    ],
    [[0.10382504121096411, 0.20370619360291758]],
    [
        [
            0.09288184161475352,
            0.19113282504789825,
            0.2889540542123722,
            0.3862399333494269,
            0.5407913457755492,
        ],
        [
            0.39240973047745314,
            0.4905447105631243,
            0.5882214329715798,
            0.6853272983160177,
            0.8434968276718251,
        ],
    ],
    [
        [
            0.08771299775756874,
            0.18469393449486557,
            0.28093305131511803,
            0.37624807420104345,
            0.5704119422314042,
        ]
    ],
)
AFTER_10_EPOCHS = (
    [
        [0.10559399478702851, 0.20556883145915505],
        [0.3111879895740571, 0.4111376629183101],
        [0.5167819843610855, 0.6167064943774652],
    ],
    [[0.15593994787028517, 0.25568831459155056]],
    [
        [
            0.040605699936604824,
            0.12727817366275124,
            0.21130070972942058,
            0.2922942097082191,
            0.8285212069630045,
        ],
        [
            0.33673045617725317,
            0.42253275318779937,
            0.5055117859672328,
            0.5852635128069026,
            1.149961491860812,
        ],
    ],
    [
        [
            -0.0015142935441922328,
            0.07569683690272197,
            0.14837176049825096,
            0.21585912194399579,
            1.0615865741992234,
        ]
    ],
)
LOSSES_10_EPOCHS = [
    0.3995503152313028,
    0.370304507665119,
    0.3430239052404266,
    0.3177233655285203,
    0.29438067144782865,
    0.27294019391607993,
    0.2533188553727387,
    0.23541321311936966,
    0.21910661267972364,
    0.20427565371466755,
]

# The worked example is to be met to 1e-12; sums of some tens of float64 terms are far below that.
close = {"rtol": 1e-12, "atol": 1e-12}


def problem(n=7, d_in=4, d_h=3, d_out=5, seed=0):
    """Random weights, data and labels in float64, all read-only: nothing may be written to."""
    generator = np.random.default_rng(seed)
    shapes = (d_in, d_h), (1, d_h), (d_h, d_out), (1, d_out)
    arrays = [*(generator.standard_normal(shape) for shape in shapes)]
    arrays += [generator.standard_normal((n, d_in)), generator.integers(d_out, size=n)]
    for array in arrays:
        array.setflags(write=False)
    *weights, data, labels = arrays
    return tuple(weights), data, labels


def forward(weights, data):
    """Plainly: the hidden outputs and the logits."""
    w1, b1, w2, b2 = weights
    a1 = 1 / (1 + np.exp(-(data @ w1 + b1)))
    return a1, a1 @ w2 + b2


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gradients(learn, weights, data, targets):
    """What a step takes away at a learning rate of 1."""
    *new, _ = learn(*weights, data, targets, 1.0)
    return [old - array for old, array in zip(weights, new, strict=True)]


def plain_step(weights, data, labels, learning_rate):
    """The step written plainly, one sample at a time."""
    sums = [np.zeros_like(weight) for weight in weights]
    for x, label in zip(data, labels, strict=True):
        a1, z2 = forward(weights, x[None])
        dz2 = softmax(z2) - np.eye(z2.shape[1])[[label]]
        dz1 = dz2 @ weights[2].T * a1 * (1 - a1)
        for total, grad in zip(sums, (x[:, None] @ dz1, dz1, a1.T @ dz2, dz2), strict=True):
            total += grad
    return tuple(w - learning_rate * g / len(data) for w, g in zip(weights, sums, strict=True))


def assert_all_close(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, **(tolerance or close))


# The worked example


def test_worked_example_mse():
    *weights, loss = lab.learn_once_mse(*WEIGHTS, DATA, TARGETS, 0.1)
    assert_all_close(weights, AFTER_MSE)
    assert loss == pytest.approx(0.16224291603921978, rel=1e-12)


def test_worked_example_cross_entropy():
    *weights, loss = lab.learn_once_cross_entropy(*WEIGHTS, DATA, LABELS, 0.1)
    assert_all_close(weights, AFTER_CROSS_ENTROPY)
    assert loss == pytest.approx(0.3995503152313028, rel=1e-12)


def test_worked_example_10_epochs():
    *weights, accuracies, losses = lab.train_mlp(*WEIGHTS, DATA, LABELS, 0.1, 10)
    assert_all_close(weights, AFTER_10_EPOCHS)
    assert losses == pytest.approx(LOSSES_10_EPOCHS, rel=1e-12)
    assert accuracies == [1.0] * 10


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
    weights, data, labels = problem(n)
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
    weights, data, labels = problem()
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
    weights, data, labels = problem()
    p = softmax(forward(weights, data)[1])
    y = np.eye(5)[labels]
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    *_, loss = lab.learn_once_cross_entropy(*weights, data, labels, 0.1)
    assert loss == pytest.approx(expected, rel=1e-12)


# Traps of the classroom version


@pytest.mark.parametrize("n", [1, 7])
def test_weights_keep_shape_and_dtype(n):
    weights, data, labels = problem(n)
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
    weights, data, labels = problem()
    learn = getattr(lab, f"learn_once_{name}")
    targets = np.eye(5)[labels] if name == "mse" else labels
    once = learn(*weights, data, targets, 0.1)
    twice = learn(*weights, np.concat([data, data]), np.concat([targets, targets]), 0.1)
    assert_all_close(once, twice)


def test_classes_come_from_w2():
    weights, data, labels = problem()
    labels = labels % 2  # of 5 classes
    new = lab.learn_once_cross_entropy(*weights, data, labels, 0.1)
    assert_all_close(new[:4], plain_step(weights, data, labels, 0.1))


def test_train_equals_plain_loop_with_accuracy_after_each_step():
    weights, data, labels = problem(n=40)
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


def test_accuracy_costs_one_way_forward_in_all(monkeypatch):
    calls = []

    def counting(*args, **kwargs):
        calls.append(1)
        return forward_once(*args, **kwargs)

    forward_once = _sweep.forward
    monkeypatch.setattr(_sweep, "forward", counting)
    weights, data, labels = problem()
    lab.train_mlp(*weights, data, labels, 0.1, 5)
    assert len(calls) == 6


def test_no_epoch_changes_nothing():
    weights, data, labels = problem()
    *new, accuracies, losses = lab.train_mlp(*weights, data, labels, 0.1, 0)
    assert_all_close(new, weights)
    assert accuracies == losses == []


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_result_does_not_depend_on_blocks(monkeypatch, dtype):
    weights, data, labels = problem(n=11)
    data = np.abs(10 * data).astype(dtype)
    whole = lab.train_mlp(*weights, data, labels, 0.1, 3)
    accuracy = lab.test_mlp(*weights, data, labels)
    for rows in (1, 3, 10):
        monkeypatch.setattr(_sweep, "_BLOCK_BYTES", rows * 4 * 8)
        blocks = lab.train_mlp(*weights, data, labels, 0.1, 3)
        assert_all_close(blocks[:4], whole[:4])
        assert blocks[4] == whole[4]
        assert blocks[5] == pytest.approx(whole[5], rel=1e-12)
        assert lab.test_mlp(*weights, data, labels) == accuracy


def test_integer_data_and_narrow_labels():
    weights, data, labels = problem(d_out=300)
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


def test_loss_keeps_its_digits_when_nearly_certain():
    # 1 - p of the largest is 2 exp(-40), below the rounding of p; the label is another class.
    w1, b1, w2 = (np.zeros(shape) for shape in ((1, 1), (1, 1), (1, 3)))
    b2 = np.array([[40.0, 0.0, 0.0]])
    *_, loss = lab.learn_once_cross_entropy(w1, b1, w2, b2, np.ones((1, 1)), np.array([1]), 1.0)
    assert loss == pytest.approx((40.0 + 40.0 - math.log(2)) / 3, rel=1e-14)


def test_one_class_is_certain():
    weights, data, labels = problem(d_out=1)
    *new, loss = lab.learn_once_cross_entropy(*weights, data, labels, 1.0)
    assert loss == 0.0
    assert_all_close(new, weights)
