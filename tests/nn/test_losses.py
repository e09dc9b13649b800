"""Losses beyond their gradients: formulas, weights, stacks, limits, predictions and settings."""

import math
import re
from dataclasses import fields

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from gradient import fourth_power
from helpers import make_backend, tolerance
from loss_cases import KINDS, LOSSES, PLAIN_ACTIVATIONS, case, evaluate, in_columns, plain_losses
from sklearn.neural_network import _base as sklearn_base

from mlp_xp.nn import losses
from mlp_xp.nn.losses import Custom, Huber, Quantile, Through, mean_loss

names = pytest.mark.parametrize("name", LOSSES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
SURELY_INFINITE = "absolute_exp", "custom", "custom_softmax"  # At the extremes.


@names
def test_losses_match_their_formulas_and_weights_act_as_repetitions(backend, name):
    loss = LOSSES[name]
    for is_hard in KINDS[name]:
        logits, targets, weights = case(name, is_hard=is_hard)
        with backend.scope():
            each, _ = loss(backend.put(logits), backend.put(targets), xp=backend.xp)
            each = backend.get(each)
        expected = plain_losses(loss, logits, in_columns(targets), np_xp)
        np.testing.assert_allclose(each, expected, rtol=1e-12, atol=1e-14)
        value, gradient = evaluate(backend, loss, logits, targets, weights)
        assert value == pytest.approx(np.average(each, weights=weights), rel=1e-14)
        rows = np.repeat(np.arange(5), weights.astype(int))
        value, repeated = evaluate(backend, loss, logits[rows], targets[rows])
        assert value == pytest.approx(np.mean(each[rows]), rel=1e-14)
        together = np.zeros_like(gradient)
        np.add.at(together, rows, repeated)
        np.testing.assert_allclose(gradient, together, rtol=1e-13, atol=1e-15)
        for result in evaluate(backend, loss, logits, targets, 0 * weights):
            assert not result.any()


@dtypes
@names
def test_losses_preserve_dtype_and_shape_and_do_not_modify_inputs(backend, name, dtype):
    arrays = case(name, dtype)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = backend.name == "torch"  # Torch warns of read-only memory.
    for weights in (None, arrays[2]):
        value, gradient = evaluate(backend, LOSSES[name], arrays[0], arrays[1], weights)
        assert (value.shape, value.dtype) == ((), dtype)
        assert (gradient.shape, gradient.dtype) == (arrays[0].shape, dtype)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("shared", [False, True])
@names
def test_losses_of_stacked_models_match_separate_models(backend, name, shared):
    """Each model has its own outputs; models have their own targets and weights, or share them."""
    loss, rng = LOSSES[name], np.random.default_rng(7)
    logits, targets, weights = case(name, is_hard=KINDS[name][-1])
    logits = rng.standard_normal((3, *logits.shape))
    targets, weights = (np.stack([rng.permutation(a) for _ in "abc"]) for a in (targets, weights))
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


@pytest.mark.matrix
@names
def test_losses_match_under_jax_jit(name):
    jax = pytest.importorskip("jax")
    backend, loss, arrays = make_backend("jax:cpu"), LOSSES[name], case(name)

    def both(*arrays):
        value, pullback = mean_loss(loss, *arrays, xp=backend.xp)
        return value, pullback(), loss.activate(arrays[0], xp=backend.xp)

    with backend.scope():
        value, gradient, _ = jax.jit(both)(*map(backend.put, arrays))
    expected, slow = evaluate(make_backend("numpy"), loss, *arrays)
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(backend.get(gradient), slow, atol=1e-12)


@dtypes
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["softmax", "binary"])
def test_probabilities_are_clipped_only_in_the_loss_value_as_in_scikit_learn(
    backend, name, weighted, dtype
):
    loss, (logits, _, weights) = LOSSES[name], case(name, dtype)
    logits *= 1000
    logits[0, :] = 0.0
    targets = np.eye(3, dtype=dtype)[[0, 1, 2, 0, 1]]
    used = weights if weighted else None
    with backend.scope():
        p = backend.get(loss.activate(backend.put(logits), xp=backend.xp))
    value, gradient = evaluate(backend, loss, logits, targets, used)
    peer = "log_loss" if name == "softmax" else "binary_log_loss"
    expected = sklearn_base.LOSS_FUNCTIONS[peer](targets, p, used)
    assert value == pytest.approx(expected, rel=tolerance(dtype, 5))
    assert value < 3 * -np.log(np.finfo(dtype).eps)
    share = (np.ones(5) if used is None else used) / (5 if used is None else used.sum())
    np.testing.assert_allclose(gradient, (p - targets) * share[:, None], atol=tolerance(dtype))
    value, _ = evaluate(backend, loss, logits * np.nan, targets)
    assert np.isnan(value)


@dtypes
@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0, 5.0])
def test_focal_losses_are_correct_for_huge_logits(backend, gamma, dtype):
    logits = np.asarray([[1e4, -1e4], [-1e4, 1e4], [40.0, -40.0]], dtype=dtype)
    right, wrong = np.asarray([[1, 0], [0, 1], [1, 0]]), np.asarray([[0, 1], [1, 0], [0, 1]])
    for loss in (losses.SoftmaxFocal(gamma), losses.BinaryFocal(gamma)):
        with np.errstate(all="raise", under="ignore"):
            value, gradient = evaluate(backend, loss, logits, right.astype(dtype))
            # The predictions are certain and correct.
            assert 0 <= value < 1e-12
            assert np.abs(gradient).max() < 1e-12
            value, gradient = evaluate(backend, loss, logits, wrong.astype(dtype))
        # The logarithm of the probability is minus the difference of two logits, or one logit.
        assert value == pytest.approx((4e4 + 80) / 3, rel=tolerance(dtype))
        # A probability near 0 or 1: the slope is 1, and the same for both losses.
        np.testing.assert_allclose(gradient, (right - wrong) / 3, atol=tolerance(dtype) + 1e-12)


@dtypes
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in SURELY_INFINITE])
def test_losses_are_finite_at_extreme_logits(backend, name, dtype):
    loss = LOSSES[name]
    logits = np.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], dtype=dtype)
    logits = np.tile(logits, loss.outputs_per_target)
    targets = np.asarray([[0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=dtype)
    with np.errstate(all="raise", under="ignore"), backend.scope():
        value, gradient = evaluate(backend, loss, logits, targets)
        outputs = backend.get(loss.activate(backend.put(logits), xp=backend.xp))
    assert all(np.isfinite(array).all() for array in (value, gradient, outputs))
    if name == "softmax":
        # p of the first row's target is clipped to eps, of the others it is 1/2 and 1/3.
        expected = (-np.log(np.finfo(dtype).eps) + np.log(2) + np.log(3)) / 3
        assert value == pytest.approx(expected, rel=tolerance(dtype))
    if name == "poisson":  # The rates are 0.
        value, gradient = evaluate(backend, loss, -np.abs(logits[:2, :2]), targets[:2, :2])
        assert value == pytest.approx(1e4 - 1, rel=tolerance(dtype))
        np.testing.assert_array_equal(gradient, [[0.0, -0.5], [0.0, -0.5]])


def test_median_loss_gradient_is_half_the_absolute_error_gradient_at_zero(backend):
    logits, targets, _ = case("absolute")
    logits[0, 0] = targets[0, 0]
    _, gradient = evaluate(backend, Quantile(0.5), logits, targets)
    _, slow = evaluate(backend, LOSSES["absolute"], logits, targets)
    np.testing.assert_array_equal(gradient, slow / 2)


@pytest.mark.parametrize("output", [*losses.OUTPUTS, "softmax"])
def test_predictions_are_the_activated_outputs(backend, output):
    logits, _, _ = case("squared")
    expected = PLAIN_ACTIVATIONS[output](logits, np_xp)
    other = LOSSES["softmax"] if output == "softmax" else Through(Huber(), output)
    for loss in (Custom(fourth_power, output), other):
        with backend.scope():
            found = backend.get(loss.activate(backend.put(logits), xp=backend.xp))
        np.testing.assert_allclose(found, expected, rtol=1e-14)


CUSTOM = {output: Custom(fourth_power, output) for output in ("softmax", "logistic", "identity")}
CLASSES = {name: LOSSES[name] for name in ("softmax", "softmax_focal", "binary", "binary_focal")}


@pytest.mark.parametrize("loss", (CLASSES | CUSTOM).values(), ids=CLASSES | CUSTOM)
def test_correct_predictions_are_counted(backend, loss):
    """Test stacks of models; classes are given as labels or as columns."""
    rng = np.random.default_rng(7)
    logits, labels = rng.standard_normal((3, 9, 2)), rng.integers(0, 2, (3, 9)).astype(np.int32)
    several = rng.integers(0, 2, (3, 9, 2)).astype(float)
    is_one_class = np.argmax(logits, axis=2) == labels
    in_each = np.all((logits > 0) == (several > 0.5), axis=2)
    if loss.output == "logistic":
        given = [(several, in_each)]
        given += [(labels, is_one_class)] if isinstance(loss, Custom) else []
    else:
        given = [(labels, is_one_class)]
        given += [(np.eye(2)[labels], is_one_class)] if loss.output == "softmax" else []
    with backend.scope():
        for targets, expected in given:
            put = map(backend.put, (logits, targets))
            found = backend.get(loss.is_correct(*put, xp=backend.xp))
            np.testing.assert_array_equal(found, expected)
            assert 0 < found.mean() < 1


@pytest.mark.parametrize("targets", [np.asarray([1, 0]), np.asarray([[1.0], [0.0]])])
def test_correct_predictions_are_counted_for_one_logistic_output(targets):
    found = CUSTOM["logistic"].is_correct(np.asarray([[1.0], [-1.0]]), targets, xp=np_xp)
    assert found.tolist() == [1, 1]


REAL = {name: loss for name, loss in LOSSES.items() if loss.output != "softmax"}
REAL = {name: loss for name, loss in REAL.items() if not name.startswith("binary")}
REAL |= {"identity": CUSTOM["identity"]}


@pytest.mark.parametrize("name", REAL)
def test_regression_losses_have_no_accuracy(name):
    loss = REAL[name]
    kind = type(getattr(loss, "loss", loss)).__name__
    with pytest.raises(TypeError, match=f"{kind} .*has no accuracy; use"):
        loss.is_correct(np.zeros((2, 1)), np.zeros((2, 1)), xp=np_xp)


def test_equal_losses_compare_and_hash_equal():
    for loss in LOSSES.values():
        again = type(loss)(*(getattr(loss, field.name) for field in fields(loss)))
        assert (again, hash(again)) == (loss, hash(loss))
    assert Quantile(np.asarray([0.1, 0.9])) == Quantile((0.1, 0.9))


WRONG_SETTINGS = [
    (lambda: losses.BinaryCrossEntropy(1.0), "`label_smoothing` must be .* 1, got 1.0"),
    (lambda: losses.SoftmaxCrossEntropy(-0.1), "`label_smoothing` must be .* got -0.1"),
    (lambda: losses.SoftmaxFocal(-1.0), "`gamma` must be at least 0 and finite, got -1.0"),
    (lambda: losses.BinaryFocal(math.nan), "`gamma` must be at least 0 and finite, got nan"),
    (lambda: Huber(0.0), "`delta` must be above 0 and finite, got 0.0.*SquaredError"),
    (lambda: Quantile(1.0), "`quantile` must be above 0 and below 1, .* got 1.0"),
    (lambda: Quantile((0.5, 0.1)), r"numbers in increasing order, got \(0.5, 0.1\)"),
    (lambda: Quantile(()), r"numbers in increasing order, got \(\)"),
    (lambda: Through(Huber(), "softmax"), "`output` must be one of .* got 'softmax'"),
    (lambda: Custom(fourth_power, "swish"), r"`output` must be .*'softmax'\], got 'swish'"),
    (lambda: Custom(3), "`function` must be a callable, function.outputs, .* got 3"),
    (lambda: Custom(type("F", (), {"__call__": fourth_power, "__hash__": None})()), "be hashable"),
    (lambda: Through("huber", "exp"), r"loss of Through must be .*, got 'huber'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_SETTINGS)
def test_invalid_loss_settings_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["softmax", "poisson", "gaussian", "squared_relu", "custom"])
def test_loss_with_a_fixed_output_rejects_an_output_activation(name):
    loss = LOSSES[name]
    with pytest.raises(ValueError, match=re.escape(repr(loss)) + ", which has its own outp"):
        Through(loss, "identity")
