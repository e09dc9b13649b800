"""Losses beyond their gradients: weights, limits, outputs, names, and the checks of pullbacks."""

from __future__ import annotations

import math
import re

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from helpers import tolerance
from sklearn.neural_network import _base as sklearn_base

from mlp_xp.nn.gradient_check import check_activation, check_loss
from mlp_xp.nn.layers import ACTIVATIONS, relu
from mlp_xp.nn.losses import (
    CLASSIFICATION_LOSSES,
    OUTPUTS,
    REGRESSION_LOSSES,
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Custom,
    Huber,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
    mean_loss,
)

pytestmark = pytest.mark.maths

MULTICLASS = [SoftmaxCrossEntropy(0.1), SoftmaxFocal()]
BINARY = [BinaryCrossEntropy(0.1), BinaryFocal()]
REAL = [SquaredError(), AbsoluteError(), Huber(0.7), Quantile(0.8), Poisson()]
THROUGH = [Through(SquaredError(), output) for output in OUTPUTS]


def squared(outputs, targets, *, xp):
    error = outputs - targets
    return 0.5 * xp.sum(error * error, axis=-1), lambda dlosses: error * dlosses[..., None]


def cross_entropy_of(p, targets, *, xp):
    losses = -xp.sum(targets * xp.log(p), axis=-1)
    return losses, lambda dlosses: -targets / p * dlosses[..., None]


CUSTOM = [Custom(squared), Custom(squared, "softplus"), Custom(squared, "softmax")]
ALL = [*MULTICLASS, *BINARY, *REAL, *THROUGH, *CUSTOM]


def named(loss) -> str:
    return re.sub(r"<function (\w+) at \w+>", r"\1", repr(loss))


def case(loss, dtype="float64", n=5, outputs=3):
    """Return logits, targets that suit the loss, and weights."""
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((n, outputs))
    if isinstance(loss, SoftmaxCrossEntropy | SoftmaxFocal):
        targets = rng.dirichlet(np.ones(outputs), n)
    elif isinstance(loss, Poisson):
        targets = rng.poisson(1.0, (n, outputs))
    else:
        targets = rng.random((n, outputs))
    weights = np.asarray([1, 3, 0, 2, 1])[:n]
    return tuple(array.astype(dtype) for array in (logits, targets, weights))


def evaluate(backend, loss, logits, targets, weights=None):
    """Return average and gradient, on the host."""
    with backend.scope():
        arrays = [None if a is None else backend.put(a) for a in (logits, targets, weights)]
        value, pullback = mean_loss(loss, *arrays, xp=backend.xp)
        return backend.get(value), backend.get(pullback())


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


# --- outputs -------------------------------------------------------------------------------------


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


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_losses_are_values(loss):
    again = type(loss)(*(getattr(loss, name) for name in loss.__dataclass_fields__))
    assert (again, hash(again)) == (loss, hash(loss))


def test_names_are_classes():
    assert {name: kind.__name__ for name, kind in REGRESSION_LOSSES.items()} == {
        "squared_error": "SquaredError",
        "absolute_error": "AbsoluteError",
        "huber": "Huber",
        "quantile": "Quantile",
        "poisson": "Poisson",
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


# --- the checks of pullbacks ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [*ALL, squared, Custom(cross_entropy_of, "softmax")], ids=named)
def test_right_losses_pass(backend, loss, dtype):
    with backend.scope():
        logits, targets, _ = map(backend.put, case(loss, dtype))
        check_loss(loss, logits, targets, xp=backend.xp)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_activations_pass(backend, dtype):
    x = np.asarray([[-2.0, -0.5, 0.4], [0.7, 1.5, 3.0]], dtype=dtype)
    with backend.scope():
        for name, activation in {**ACTIVATIONS, **OUTPUTS}.items():
            check_activation(activation, backend.put(x), xp=backend.xp, name=name)


def reversed_sign(outputs, targets, *, xp):
    losses, pullback = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: -pullback(dlosses)


def averaged(outputs, targets, *, xp):
    losses, pullback = squared(outputs, targets, xp=xp)
    return xp.mean(losses), pullback


def forgets_what_it_is_given(outputs, targets, *, xp):
    losses, _ = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: outputs - targets


def wrong_formula(outputs, targets, *, xp):
    losses, _ = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: xp.tanh(outputs - targets) * dlosses[..., None]


def writes(outputs, targets, *, xp):
    losses, pullback = squared(outputs + 0.0, targets, xp=xp)
    outputs[:, :] = 0.0
    return losses, pullback


def writes_dlosses(outputs, targets, *, xp):
    losses, pullback = squared(outputs, targets, xp=xp)

    def write(dlosses):
        dlosses *= 2.0
        return pullback(dlosses)

    return losses, write


def changed(value=lambda v, xp: v, pullback=lambda g, xp: g):
    """Return the squared error with something wrong in what it returns."""

    def my_loss(outputs, targets, *, xp):
        losses, back = squared(outputs, targets, xp=xp)
        return value(losses, xp), lambda dlosses: pullback(back(dlosses), xp)

    return my_loss


WRONG_LOSSES = [
    (changed(pullback=lambda g, xp: 5.0 * g), "pullback of loss my_loss gives .* along a direction "
     "and the finite difference .* apart: the pullback is 5 times the derivative .* by 0.2"),
    (reversed_sign, "the pullback is -1 times the derivative everywhere; .* by -1"),
    (averaged, r"value of loss averaged must have the shape \(5,\) \(one number a sample\).* \(\)"),
    (forgets_what_it_is_given, "must be the derivative of the value that is returned with it, mul"),
    (wrong_formula, "the pullback of loss wrong_formula gives .*it must be the derivative"),
    (lambda outputs, targets, weights, *, xp: None,
     r"loss <lambda> must take \(outputs, targets, \*, xp\), and does not: missing a required"),
    (lambda outputs, targets: None, "and does not: got an unexpected keyword .*'xp'"),
    (lambda o, t, *, xp: xp.sum(o), r"must return \(losses, pullback\), got .*; end it e.g."),
    (lambda o, t, *, xp: (1, 2, 3), r"must return \(losses, pullback\), got a tuple of 3"),
    (lambda o, t, *, xp: (xp.sum(o, axis=-1), xp.ones_like(o)),
     r"the pullback of loss <lambda> must be a callable \(dlosses\), got"),
    (lambda o, t, *, xp: (xp.sum(o, axis=-1), lambda: o),
     r"must take \(dlosses\), and does not: too many"),
    (changed(lambda v, xp: 1.0), "value of loss my_loss must be an array .*sample.*got float"),
    (changed(lambda v, xp: v[None, :]), r"value of loss my_loss must have .* \(5,\).*\(1, 5\)"),
    (changed(lambda v, xp: v * xp.nan), "value of loss my_loss is not finite; look for"),
    (changed(lambda v, xp: xp.astype(v, xp.float32)), "value .* dtype of the input, .*float64"),
    (changed(pullback=lambda g, xp: None), "pullback of loss my_loss must be an array .*NoneType"),
    (changed(pullback=lambda g, xp: g[:, :1]), r"have the shape \(5, 3\) .*, got \(5, 1\)"),
    (changed(pullback=lambda g, xp: xp.astype(g, xp.float32)), "pullback .* dtype of the input"),
    (changed(pullback=lambda g, xp: g / 0.0), "the pullback of loss my_loss is not finite"),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "message"), WRONG_LOSSES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_wrong_losses_are_told_what_to_do(backend, loss, message, wrapped):
    with backend.scope(), np.errstate(divide="ignore", invalid="ignore"):
        logits, targets, _ = map(backend.put, case(SquaredError()))
        with pytest.raises(ValueError, match=message):
            check_loss(Custom(loss) if wrapped else loss, logits, targets, xp=backend.xp)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (writes, "loss writes writes to its outputs, which others use"),
        (writes_dlosses, "loss writes_dlosses writes to its dlosses, which others use"),
    ],
)
def test_a_loss_that_writes_is_found(loss, message):
    logits, targets, _ = case(SquaredError())
    with pytest.raises(ValueError, match=message):
        check_loss(loss, logits, targets, xp=np_xp)


def test_float32_finds_what_is_not_tiny(backend):
    with backend.scope():
        logits, targets, _ = map(backend.put, case(SquaredError(), "float32"))
        for slip in (0.9, 1.1):
            wrong = changed(pullback=lambda g, xp, slip=slip: g * slip)
            with pytest.raises(ValueError, match=f"the pullback is {slip} times the derivative"):
                check_loss(wrong, logits, targets, xp=backend.xp)


def writes_dy(x, *, xp):
    def pullback(dy):
        dy *= 2.0 * x
        return dy

    return x * x, pullback


WRONG_ACTIVATIONS = [
    (lambda x, *, xp: (x * x, lambda dy: x * dy), "the pullback of activation square gives .* "
     "the pullback is 0.5 times the derivative everywhere; multiply what it returns by 2"),
    (lambda x, *, xp: (x * x, lambda dy: 2.0 * x), "must be the derivative of the value"),
    (lambda x: x, r"activation square must take \(x, \*, xp\), and does not: got an unexpected"),
    (lambda x, *, xp: x * x, r"activation square must return \(y, pullback\), got .*; end it e.g."),
    (lambda x, *, xp: (xp.sum(x), lambda dy: dy), r"the output of .* shape \(4,\) .*, got \(\)"),
    (lambda x, *, xp: (x / 0.0, lambda dy: dy), "the output of activation square is not finite"),
    (lambda x, *, xp: (x * x, lambda: x), r"activation square must take \(dy\), and does not"),
    (lambda x, *, xp: (x * x, lambda dy: dy[:2]), r"the pullback of .* shape \(4,\) .*\(2,\)"),
    (4, "activation square must be a callable .*got int"),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "message"), WRONG_ACTIVATIONS)
def test_wrong_activations_are_told_what_to_do(backend, activation, message):
    with backend.scope(), np.errstate(divide="ignore"):
        x = backend.put(np.asarray([-1.0, 0.5, 2.0, 3.0]))
        with pytest.raises(ValueError, match=message):
            check_activation(activation, x, xp=backend.xp, name="square")


def test_an_activation_that_writes_is_found():
    with pytest.raises(ValueError, match="pullback of activation writes_dy writes to its dy"):
        check_activation(writes_dy, np.asarray([0.5, 2.0]), xp=np_xp)


def test_a_kink_is_named_as_a_possible_reason():
    with pytest.raises(ValueError, match=r"the pullback of activation relu .*away from kinks"):
        check_activation(relu, np.asarray([0.0, 2.0, -1.0]), xp=np_xp)
