"""The check of a user's gradient: right ones pass, wrong ones are named."""

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from loss_cases import KINDS, LOSSES, case

from mlp_xp.nn.gradient_check import check_activation, check_loss
from mlp_xp.nn.layers import ACTIVATIONS, relu
from mlp_xp.nn.losses import OUTPUTS, Custom


def squared(outputs, targets, *, xp):
    error = outputs - targets
    return 0.5 * xp.sum(error * error, axis=-1), lambda dlosses: error * dlosses[..., None]


@pytest.mark.libraries("numpy", "array_api_strict", "cupy")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_losses_and_activations_pass(backend, dtype):
    x = np.asarray([[-2.0, -0.5, 0.4], [0.7, 1.5, 3.0]], dtype=dtype)
    with backend.scope():
        for name, loss in LOSSES.items():
            for is_hard in KINDS[name]:
                logits, targets, _ = map(backend.put, case(name, dtype, is_hard=is_hard))
                check_loss(loss, logits, targets, xp=backend.xp)
        logits, targets, _ = map(backend.put, case("squared", dtype))
        check_loss(squared, logits, targets, xp=backend.xp)
        for name, activation in {**ACTIVATIONS, **OUTPUTS}.items():
            check_activation(activation, backend.put(x), xp=backend.xp, name=name)


def forgets_what_it_is_given(outputs, targets, *, xp):
    losses, _ = squared(outputs, targets, xp=xp)
    return losses, lambda dlosses: outputs - targets


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
    (changed(pullback=lambda g, xp: 5.0 * g), "my_loss must match .* is 5 times .* by 0.2"),
    (changed(pullback=lambda g, xp: -g), "is -1 times the derivative everywhere; .* by -1"),
    (changed(lambda v, xp: xp.mean(v)), r"value .* shape \(5,\) \(one number per sample\).* \(\)"),
    (forgets_what_it_is_given, "must return the derivative of the value, multiplied by its arg"),
    (changed(pullback=lambda g, xp: xp.tanh(g)), "of loss my_loss must match .* it must ret"),
    (lambda o, t: None, r"<lambda> must accept \(outputs, targets, \*, xp\), .* unexpected .*'xp'"),
    (lambda o, t, *, xp: xp.sum(o), r"must return \(losses, pullback\), got .*; end it with"),
    (lambda o, t, *, xp: (1, 2, 3), r"must return \(losses, pullback\), got a tuple of 3"),
    (lambda o, t, *, xp: (o[:, 0], o), r"the pullback .* must be a callable \(dlosses\), got"),
    (lambda o, t, *, xp: (o[:, 0], lambda: o), r"must accept \(dlosses\), got an error: too many"),
    (changed(lambda v, xp: 1.0), "value of loss my_loss must be an array .*sample.*got float"),
    (changed(lambda v, xp: v * xp.nan), "value of loss my_loss is not finite; look for"),
    (changed(lambda v, xp: xp.astype(v, xp.float32)), "value .* dtype of the input, .*float64"),
    (changed(pullback=lambda g, xp: None), "pullback of loss my_loss must be an array .*NoneType"),
    (changed(pullback=lambda g, xp: g[:, :1]), r"have the shape \(5, 3\) .*, got \(5, 1\)"),
    (changed(pullback=lambda g, xp: xp.astype(g, xp.float32)), "pullback .* dtype of the input"),
    (changed(pullback=lambda g, xp: g / 0.0), "the pullback of loss my_loss is not finite"),
]  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_wrong_losses_are_told_what_to_do(backend, wrapped):
    with backend.scope(), np.errstate(divide="ignore", invalid="ignore"):
        logits, targets, _ = map(backend.put, case("squared"))
        for loss, message in WRONG_LOSSES:
            with pytest.raises(ValueError, match=message):
                check_loss(Custom(loss) if wrapped else loss, logits, targets, xp=backend.xp)


def writes_dy(x, *, xp):
    def pullback(dy):
        dy *= 2.0 * x
        return dy

    return x * x, pullback


def test_what_writes_is_found():
    logits, targets, _ = case("squared")
    with pytest.raises(ValueError, match="loss writes writes to its outputs, which must"):
        check_loss(writes, logits, targets, xp=np_xp)
    with pytest.raises(ValueError, match="loss writes_dlosses writes to its dlosses, which must"):
        check_loss(writes_dlosses, logits, targets, xp=np_xp)
    with pytest.raises(ValueError, match="pullback of activation writes_dy writes to its dy"):
        check_activation(writes_dy, np.asarray([0.5, 2.0]), xp=np_xp)


def test_float32_finds_what_is_not_tiny(backend):
    with backend.scope():
        logits, targets, _ = map(backend.put, case("squared", "float32"))
        for slip in (0.9, 1.1):
            wrong = changed(pullback=lambda g, xp, slip=slip: g * slip)
            with pytest.raises(ValueError, match=f"the pullback is {slip} times the derivative"):
                check_loss(wrong, logits, targets, xp=backend.xp)


WRONG_ACTIVATIONS = [
    (lambda x, *, xp: (x * x, lambda dy: x * dy), "square must match .* 0.5 times .* returns by 2"),
    (lambda x, *, xp: (x * x, lambda dy: 2.0 * x), "must return the derivative of the"),
    (lambda x: x, r"activation square must accept \(x, \*, xp\), got an error: got an unexp"),
    (lambda x, *, xp: x * x, r"activation square must return \(y, pullback\), got .*; end it with"),
    (lambda x, *, xp: (xp.sum(x), lambda dy: dy), r"the output of .* shape \(4,\) .*, got \(\)"),
    (lambda x, *, xp: (x / 0.0, lambda dy: dy), "the output of activation square is not finite"),
    (lambda x, *, xp: (x * x, lambda: x), r"activation square must accept \(dy\), got an error"),
    (lambda x, *, xp: (x * x, lambda dy: dy[:2]), r"the pullback of .* shape \(4,\) .*\(2,\)"),
    (4, "activation square must be a callable .*got int"),
]  # fmt: skip


def test_wrong_activations_are_told_what_to_do(backend):
    with backend.scope(), np.errstate(divide="ignore"):
        x = backend.put(np.asarray([-1.0, 0.5, 2.0, 3.0]))
        for activation, message in WRONG_ACTIVATIONS:
            with pytest.raises(ValueError, match=message):
                check_activation(activation, x, xp=backend.xp, name="square")


def test_a_kink_is_named_as_a_possible_reason():
    with pytest.raises(ValueError, match=r"the pullback of activation relu .*at a kink"):
        check_activation(relu, np.asarray([0.0, 2.0, -1.0]), xp=np_xp)
