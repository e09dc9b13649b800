"""Losses of activated outputs, and those of a user."""

from __future__ import annotations

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from helpers import tolerance
from loss_cases import (
    CUSTOM,
    REAL,
    THROUGH,
    case,
    cross_entropy_of,
    evaluate,
    named,
    squared,
)

from mlp_xp.nn.losses import (
    OUTPUTS,
    Custom,
    Huber,
    SoftmaxCrossEntropy,
    SquaredError,
    Through,
)


@pytest.mark.parametrize("output", OUTPUTS)
def test_through_is_the_loss_of_the_output(backend, output):
    logits, targets, weights = case(SquaredError())
    outputs, back = OUTPUTS[output](logits, xp=np_xp)
    value, gradient = evaluate(backend, Through(Huber(), output), logits, targets, weights)
    expected, slope = evaluate(backend, Huber(), outputs, targets, weights)
    assert value == pytest.approx(expected, rel=tolerance("float64", 15))
    np.testing.assert_allclose(gradient, back(slope), atol=tolerance("float64"))
    with backend.scope():
        given = backend.get(Through(Huber(), output).activate(backend.put(logits), xp=backend.xp))
    np.testing.assert_allclose(given, outputs, rtol=tolerance("float64"))


def test_a_custom_softmax_is_the_cross_entropy(backend):
    logits, targets, weights = case(SoftmaxCrossEntropy())
    custom = Custom(cross_entropy_of, "softmax")
    value, gradient = evaluate(backend, custom, logits, targets, weights)
    expected, slow = evaluate(backend, SoftmaxCrossEntropy(), logits, targets, weights)
    assert value == pytest.approx(expected, rel=tolerance("float64", 15))
    np.testing.assert_allclose(gradient, slow, atol=tolerance("float64", 3))
    with backend.scope():
        p = backend.get(custom.activate(backend.put(logits), xp=backend.xp))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=tolerance("float64", 3))


def test_a_custom_loss_is_the_one_it_copies(backend):
    logits, targets, weights = case(SquaredError())
    for output in OUTPUTS:
        ours = evaluate(backend, Through(SquaredError(), output), logits, targets, weights)
        theirs = evaluate(backend, Custom(squared, output), logits, targets, weights)
        assert ours[0] == pytest.approx(theirs[0], rel=tolerance("float64", 15))
        np.testing.assert_allclose(ours[1], theirs[1], atol=tolerance("float64"))


@pytest.mark.parametrize(
    ("output", "targets", "expected"),
    [
        ("softmax", [0, 0, 1], [1, 0, 1]),
        ("softmax", [[1, 0], [1, 0], [0, 1]], [1, 0, 1]),
        ("identity", [0, 0, 1], [1, 0, 1]),
        ("logistic", [0, 0, 1], [1, 0, 1]),
        ("logistic", [[1, 0], [1, 1], [0, 0]], [1, 0, 0]),
    ],
)
def test_correct_predictions_of_a_custom_loss(backend, output, targets, expected):
    logits = np.asarray([[2.0, -1.0], [-1.0, 2.0], [0.5, 3.0]])
    kind = np.int32 if np.ndim(targets) == 1 else np.float64
    with backend.scope():
        correct = Custom(squared, output).is_correct(
            backend.put(logits), backend.put(np.asarray(targets, dtype=kind)), xp=backend.xp
        )
        assert backend.get(correct).tolist() == expected


def test_correct_predictions_of_one_logistic_output():
    logits = np.asarray([[1.0], [-1.0]])
    is_correct = Custom(squared, "logistic").is_correct
    assert is_correct(logits, np.asarray([1, 0]), xp=np_xp).tolist() == [1, 1]
    assert is_correct(logits, np.asarray([[1.0], [0.0]]), xp=np_xp).tolist() == [1, 1]


@pytest.mark.parametrize("loss", [*REAL, *THROUGH, *CUSTOM[:2]], ids=named)
def test_real_values_are_neither_right_nor_wrong(loss):
    name = "A Custom loss" if isinstance(loss, Custom) else getattr(loss, "loss", loss)
    name = name if isinstance(name, str) else type(name).__name__
    with pytest.raises(TypeError, match=f"{name} .*has no accuracy; use"):
        loss.is_correct(np.zeros((2, 1)), np.zeros((2, 1)), xp=np_xp)
