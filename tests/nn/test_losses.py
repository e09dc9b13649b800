"""Losses beyond their gradients: weights, limits, outputs, names, and the checks of pullbacks."""

from __future__ import annotations

import math
import re
from dataclasses import fields

import numpy as np
import pytest
from helpers import tolerance
from loss_cases import (
    ALL,
    BINARY,
    CUSTOM,
    MULTICLASS,
    THROUGH,
    case,
    evaluate,
    named,
    squared,
)
from sklearn.neural_network import _base as sklearn_base

from mlp_xp.nn.losses import (
    CLASSIFICATION_LOSSES,
    REGRESSION_LOSSES,
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Custom,
    Gaussian,
    Huber,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
    mean_loss,
)


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_weights_are_repetitions(backend, loss):
    logits, targets, weights = case(loss)
    value, gradient = evaluate(backend, loss, logits, targets, weights)
    rows = np.repeat(np.arange(5), weights.astype(int))
    expected, repeated = evaluate(backend, loss, logits[rows], targets[rows])
    assert value == pytest.approx(expected, rel=tolerance("float64", 7))
    together = np.zeros_like(gradient)
    np.add.at(together, rows, repeated)
    np.testing.assert_allclose(gradient, together, atol=tolerance("float64", 7))


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_weights_that_are_all_0_give_0(backend, loss):
    logits, targets, weights = case(loss)
    value, gradient = evaluate(backend, loss, logits, targets, 0 * weights)
    assert value == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_an_average_is_that_of_the_samples(backend, loss):
    logits, targets, weights = case(loss)
    value, gradient = evaluate(backend, loss, logits, targets, weights)
    with backend.scope():
        losses, pullback = loss(backend.put(logits), backend.put(targets), xp=backend.xp)
        slopes = backend.get(pullback(backend.put(weights / weights.sum())))
        losses = backend.get(losses)
    assert losses.shape == (5,)
    assert value == pytest.approx(np.average(losses, weights=weights), rel=tolerance("float64", 15))
    np.testing.assert_allclose(gradient, slopes, atol=tolerance("float64"))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("loss", "labels"),
    [*((loss, False) for loss in ALL), *((loss, True) for loss in MULTICLASS)],
    ids=named,
)
def test_a_stack_is_its_models_one_by_one(backend, loss, shared, labels):
    """Each model has its own outputs; targets and weights are its own, or those of all."""
    cases = [case(loss) for _ in range(3)]
    rng = np.random.default_rng(7)
    logits = rng.standard_normal((3, *cases[0][0].shape))
    targets = np.stack([rng.permutation(case[1]) for case in cases])
    weights = np.stack([rng.permutation(case[2]) for case in cases])
    if labels:
        targets = np.argmax(targets, axis=-1).astype(np.int32)
    if shared:
        targets, weights = targets[0], weights[0]
    for used in (None, weights):
        value, gradient = evaluate(backend, loss, logits, targets, used)
        assert (value.shape, gradient.shape) == ((3,), logits.shape)
        for i in range(3):
            own = [a if a is None or shared else a[i] for a in (targets, used)]
            expected, slow = evaluate(backend, loss, logits[i], *own)
            assert value[i] == pytest.approx(expected, rel=tolerance("float64", 15))
            np.testing.assert_allclose(gradient[i], slow, atol=tolerance("float64"))


@pytest.mark.parametrize("loss", [*MULTICLASS, *BINARY, CUSTOM[2]], ids=named)
def test_correct_predictions_of_a_stack(backend, loss):
    rng = np.random.default_rng(7)
    logits, targets = rng.standard_normal((3, 9, 2)), rng.integers(0, 2, (3, 9, 2)).astype(float)
    with backend.scope():
        put, xp = backend.put, backend.xp
        found = backend.get(loss.is_correct(put(logits), put(targets), xp=xp))
        each = [
            loss.is_correct(put(z), put(t), xp=xp) for z, t in zip(logits, targets, strict=True)
        ]
        assert found.tolist() == [backend.get(one).tolist() for one in each]
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("loss", ALL, ids=named)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_shape_stay_and_nothing_is_written(backend, loss, dtype):
    arrays = case(loss, dtype)
    for array in arrays:
        array.flags.writeable = backend.name == "torch"  # torch warns of read-only memory.
    before = [array.copy() for array in arrays]
    for weights in (None, arrays[2]):
        value, gradient = evaluate(backend, loss, arrays[0], arrays[1], weights)
        assert (value.shape, str(value.dtype)) == ((), dtype)
        assert (gradient.shape, str(gradient.dtype)) == (arrays[0].shape, dtype)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_under_jit(loss):
    jax = pytest.importorskip("jax")
    from mlp_xp.backends import get_backend

    backend = get_backend("jax", "cpu")
    arrays = case(loss)

    def both(logits, targets, weights):
        value, pullback = mean_loss(loss, logits, targets, weights, xp=backend.xp)
        return value, pullback(), loss.activate(logits, xp=backend.xp)

    with backend.scope():
        value, gradient, _ = jax.jit(both)(*map(backend.put, arrays))
    expected, slow = evaluate(get_backend("numpy"), loss, *arrays)
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(backend.get(gradient), slow, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), BinaryCrossEntropy()], ids=named)
def test_probabilities_are_clipped_as_scikit_learns_in_the_value_alone(
    backend, loss, weighted, dtype
):
    logits, _, weights = case(loss, dtype)
    logits *= 1000
    logits[0, :] = 0.0
    targets = np.eye(3, dtype=dtype)[[0, 1, 2, 0, 1]]
    used = weights if weighted else None
    name = "log_loss" if isinstance(loss, SoftmaxCrossEntropy) else "binary_log_loss"
    with backend.scope():
        p = backend.get(loss.activate(backend.put(logits), xp=backend.xp))
    value, gradient = evaluate(backend, loss, logits, targets, used)
    expected = sklearn_base.LOSS_FUNCTIONS[name](targets, p, used)
    assert value == pytest.approx(expected, rel=tolerance(dtype, 5))
    assert value < 3 * -np.log(np.finfo(dtype).eps)
    share = (np.ones(5) if used is None else used) / (5 if used is None else used.sum())
    np.testing.assert_allclose(gradient, (p - targets) * share[:, None], atol=tolerance(dtype))
    value, _ = evaluate(backend, loss, logits * np.nan, targets)
    assert np.isnan(value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0, 5.0])
def test_focal_losses_of_huge_logits(backend, gamma, dtype):
    logits = np.asarray([[1e4, -1e4], [-1e4, 1e4], [40.0, -40.0]], dtype=dtype)
    right, wrong = np.asarray([[1, 0], [0, 1], [1, 0]]), np.asarray([[0, 1], [1, 0], [0, 1]])
    for loss, outputs in ((SoftmaxFocal(gamma), 1), (BinaryFocal(gamma), 2)):
        with np.errstate(all="raise", under="ignore"):
            value, gradient = evaluate(backend, loss, logits, right.astype(dtype))
            # No classes are more certain, and right.
            assert 0 <= value < 1e-12
            assert np.abs(gradient).max() < 1e-12
            value, gradient = evaluate(backend, loss, logits, wrong.astype(dtype))
        # The logarithm of the probability is minus the difference of two logits, or one logit.
        expected = (4e4 + 80) / 3
        assert value == pytest.approx(expected, rel=tolerance(dtype))
        # A probability near 0 or 1: the slope is 1, and the same for both losses.
        np.testing.assert_allclose(
            gradient, (right - wrong) / 3, atol=tolerance(dtype) + 1e-12, err_msg=str(outputs)
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_of_gamma_0_is_cross_entropy(backend, weighted):
    for focal, entropy in (
        (SoftmaxFocal(0.0), SoftmaxCrossEntropy()),
        (BinaryFocal(0.0), BinaryCrossEntropy()),
    ):
        logits, targets, weights = case(focal)
        used = weights if weighted else None
        value, gradient = evaluate(backend, focal, 5 * logits, targets, used)
        expected, slow = evaluate(backend, entropy, 5 * logits, targets, used)
        assert value == pytest.approx(expected, rel=tolerance("float64", 15))
        np.testing.assert_allclose(gradient, slow, atol=tolerance("float64", 3))


def test_focal_counts_easy_samples_less(backend):
    logits, labels = np.asarray([[2.0, 0.0], [0.0, 2.0]]), np.asarray([0, 0], dtype=np.int32)
    p = 1 / (1 + math.exp(-2))
    value, _ = evaluate(backend, SoftmaxFocal(3.0), logits, labels)
    expected = -((1 - p) ** 3 * math.log(p) + p**3 * math.log(1 - p)) / 2
    assert value == pytest.approx(expected, rel=tolerance("float64", 2))
    # Two classes are one logistic output, of the difference of the logits.
    binary, _ = evaluate(
        backend, BinaryFocal(3.0), logits[:, :1] - logits[:, 1:], np.asarray([[1.0], [1.0]])
    )
    assert binary == pytest.approx(expected, rel=tolerance("float64", 2))


def test_smoothing_mixes_the_targets(backend):
    logits, targets, weights = case(BinaryCrossEntropy())
    smoothed = evaluate(backend, BinaryCrossEntropy(0.2), logits, targets, weights)
    mixed = evaluate(backend, BinaryCrossEntropy(), logits, 0.8 * targets + 0.1, weights)
    assert smoothed[0] == pytest.approx(mixed[0], rel=tolerance("float64", 15))
    np.testing.assert_allclose(smoothed[1], mixed[1], atol=tolerance("float64"))


def test_huber_lies_between_squared_and_absolute(backend):
    logits, targets, weights = case(Huber())
    for loss, other, factor in (
        (Huber(1e3), SquaredError(), 1.0),
        (Huber(1e-9), AbsoluteError(), 1e9),
    ):
        value, gradient = evaluate(backend, loss, logits, targets, weights)
        expected, slow = evaluate(backend, other, logits, targets, weights)
        assert factor * value == pytest.approx(expected, rel=1e-8)
        np.testing.assert_allclose(factor * gradient, slow, rtol=1e-12)


def test_the_median_is_half_the_absolute_error(backend):
    logits, targets, weights = case(Quantile())
    logits[0, 0] = targets[0, 0]  # At the kink, too.
    value, gradient = evaluate(backend, Quantile(0.5), logits, targets, weights)
    expected, slow = evaluate(backend, AbsoluteError(), logits, targets, weights)
    assert value == pytest.approx(expected / 2, rel=tolerance("float64", 15))
    np.testing.assert_allclose(gradient, slow / 2, atol=0)


def test_a_quantile_costs_as_much_as_it_should(backend):
    """At the q-th quantile of the targets the slopes cancel."""
    targets = np.arange(1.0, 11.0)[:, None]
    _, gradient = evaluate(backend, Quantile(0.8), np.full((10, 1), 8.5), targets)
    assert abs(gradient.sum()) < tolerance("float64", 10)


@pytest.mark.parametrize("weighted", [False, True])
def test_poisson_is_scikit_learns(backend, weighted):
    logits, targets, weights = case(Poisson())
    assert (targets == 0).any()
    used = weights if weighted else None
    expected = sklearn_base.LOSS_FUNCTIONS["poisson"](targets, np.exp(logits), used)
    value, _ = evaluate(backend, Poisson(), logits, targets, used)
    assert value == pytest.approx(expected, rel=tolerance("float64", 15))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_poisson_never_overflows(backend, dtype):
    logits = np.full((4, 30), 1e4, dtype=dtype)
    logits[1:3, :] *= -1
    targets = np.zeros((4, 30), dtype=dtype)
    targets[2:, :] = 1.0
    with np.errstate(all="raise", under="ignore"):
        value, gradient = evaluate(backend, Poisson(), logits, targets)
        with backend.scope():
            rates = backend.get(Poisson().activate(backend.put(logits), xp=backend.xp))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.isfinite(rates).all()
    low, slopes = evaluate(backend, Poisson(), logits[1:3, :], targets[1:3, :])
    assert low == pytest.approx(30 * (1e4 - 1) / 2, rel=tolerance(dtype, 30))
    assert slopes[:, 0].tolist() == [0.0, -0.5]


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_losses_are_values(loss):
    again = type(loss)(*(getattr(loss, field.name) for field in fields(loss)))
    assert (again, hash(again)) == (loss, hash(loss))


def test_quantiles_may_be_an_array():
    assert Quantile(np.asarray([0.1, 0.9])) == Quantile((0.1, 0.9))


def test_names_are_classes():
    assert {name: kind.__name__ for name, kind in REGRESSION_LOSSES.items()} == {
        "squared_error": "SquaredError",
        "absolute_error": "AbsoluteError",
        "huber": "Huber",
        "quantile": "Quantile",
        "poisson": "Poisson",
        "gaussian": "Gaussian",
    }
    assert {
        "log_loss": (SoftmaxCrossEntropy, BinaryCrossEntropy),
        "focal": (SoftmaxFocal, BinaryFocal),
    } == CLASSIFICATION_LOSSES
    kinds = [*REGRESSION_LOSSES.values(), *sum(CLASSIFICATION_LOSSES.values(), ())]
    assert all(callable(kind().activate) for kind in kinds)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryCrossEntropy(1.0), "label_smoothing is 1.0, and must be at least 0 and"),
        (lambda: SoftmaxCrossEntropy(-0.1), "label_smoothing is -0.1, and must be at least 0"),
        (lambda: SoftmaxFocal(-1.0), "gamma is -1.0, and must be at least 0 and finite"),
        (lambda: BinaryFocal(math.nan), "gamma is nan, and must be at least 0 and finite"),
        (lambda: Huber(0.0), "delta is 0.0, and must be above 0 and finite.*SquaredError"),
        (lambda: Quantile(1.0), "quantile is 1.0, and must be above 0 and below 1"),
        (lambda: Quantile((0.5, 0.1)), r"quantile is \(0.5, 0.1\), .* numbers that increase"),
        (lambda: Quantile(()), r"quantile is \(\), .* numbers that increase"),
        (lambda: Through(Gaussian(), "exp"), r"Gaussian\(\), which brings its own outputs"),
        (lambda: Through(SquaredError(), "softmax"), "output is 'softmax', and must be one of .*"),
        (lambda: Custom(squared, "swish"), r"output is 'swish', and must be one of .*'softmax'\]"),
        (lambda: Custom(3), "function is 3, and must be a callable, function.outputs, targets"),
        (lambda: Custom(type("F", (), {"__call__": squared, "__hash__": None})()), "not hashable"),
        (lambda: Through("huber", "exp"), r"Through takes a loss of real .*; 'huber' is none"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("loss", [*MULTICLASS, *BINARY, Poisson(), *THROUGH, *CUSTOM], ids=named)
def test_through_refuses_losses_with_outputs_of_their_own(loss):
    message = (
        r"Huber\(\) or Quantile\(\); " + re.escape(repr(loss)) + ", which brings its own outputs"
    )
    with pytest.raises(ValueError, match=message):
        Through(loss, "identity")
