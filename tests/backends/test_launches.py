"""Steps on CuPy's stand-in: how often they launch something, and that they wait for nothing."""

import math
import re
from dataclasses import replace

import pytest
from gradient import fourth_power
from launches import OUTPUTS, PAGE, launches_of, table, waits_of, written
from rules import RULES

from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.nn import losses
from mlp_xp.nn.hidden import Branch, Project
from mlp_xp.nn.layers import ACTIVATIONS, affine
from mlp_xp.optimizers import Muon

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy")]

IMAGE = (3, 2, 2)
AUGMENTATION = Flip(IMAGE), Shift(IMAGE, 1), Cutout(IMAGE, 1), ColorJitter(IMAGE), Mixup()
LOSSES = [losses.SoftmaxCrossEntropy(0.1), losses.SoftmaxFocal(), losses.BinaryCrossEntropy(0.1)]
LOSSES += [losses.BinaryFocal(), losses.SquaredError(), losses.AbsoluteError(), losses.Huber()]
LOSSES += [losses.Quantile(0.3), losses.Quantile((0.3, 0.7)), losses.Gaussian(), losses.Poisson()]
LOSSES += [losses.Through(losses.AbsoluteError(), "softplus"), losses.Custom(fourth_power)]
LOSSES += [losses.Through(losses.Quantile((0.3, 0.7)), "tanh")]
HAVE_ACCURACY = losses.SoftmaxCrossEntropy, losses.SoftmaxFocal, losses.BinaryCrossEntropy
SETTINGS = [{"normalization": "batch"}, {"normalization": "layer"}, {"dropout": 0.1}]
SETTINGS += [{"residual": True}, {"input_dropout": 0.1}, {"weights": True}, {"average": True}]
SETTINGS += [{"max_grad_norm": 1.0}, {"accuracy": True}]
LAYERS = {
    "plain": {},
    "everything": {
        **{"activation": ("gelu", "elu"), "normalization": "batch", "residual": True},
        **{"dropout": 0.2, "input_dropout": 0.1, "weights": True, "average": True},
        **{"max_grad_norm": 0.1, "augmentation": AUGMENTATION},
    },
    "a branch, normalized": {
        **{"activation": "silu", "normalization": "layer"},
        "widths": (12, Branch((Project(6), Project(12))), 8, OUTPUTS),
    },
}


@pytest.mark.parametrize("accuracy", [False, True])
def test_a_step_launches_no_more_kernels_than_documented(backend, accuracy):
    assert launches_of(backend, accuracy=accuracy) <= 20
    by_cublas = replace(backend.kernels, dense=affine)
    assert launches_of(backend, kernels=by_cublas, accuracy=accuracy) <= 26


def test_documented_launch_counts_match_the_code_and_have_decreased(backend):
    assert written() == table(backend)
    for row in re.findall(r"\| (\d+) \| (\d+) \|", written()):
        assert int(row[1]) < int(row[0]), row


def softsign(x, *, xp):
    """Return an activation whose gradient is derived."""
    return x / (1.0 + xp.abs(x))


def log_cosh(z, t, *, xp):
    """Return a loss whose gradient is derived."""
    distance = xp.abs(z - t)
    return xp.sum(distance + xp.log1p(xp.exp(-2.0 * distance)) - math.log(2.0), axis=-1)


def test_custom_formulas_need_no_more_launches_than_built_in_ones(backend):
    own = {"activation": softsign, "loss": losses.Custom(log_cosh)}
    built_in = {"activation": "gelu", "loss": losses.SquaredError()}
    assert launches_of(backend, **own) <= launches_of(backend, **built_in)


def test_every_setting_takes_at_most_24_launches(backend):
    for activation in ACTIVATIONS:
        assert launches_of(backend, activation=activation) <= 24, activation
    several = [losses.Quantile((0.1, 0.3, 0.6, 0.9)), losses.EachMember(losses.SquaredError(), 2)]
    for loss in [*LOSSES, *several]:
        assert launches_of(backend, loss=loss) <= 24, loss
    for name, rule in RULES.items():
        assert launches_of(backend, rule=rule) <= 24, name
    for settings in SETTINGS:
        assert launches_of(backend, **settings) <= 24, settings


@pytest.mark.parametrize("widest", [7, 8])
def test_muon_takes_few_launches_up_to_the_width_on_the_page(backend, widest, monkeypatch):
    from mlp_xp.backends._cupy.kernels import orthogonal

    assert f"at most {orthogonal.WIDEST:,} wide" in PAGE.read_text()
    monkeypatch.setattr(orthogonal, "WIDEST", widest)
    n_launches = launches_of(backend, rule=Muon())  # One matrix is 12 x 8, the other 8 x 8.
    assert (n_launches <= 24) == (widest >= 8)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_no_step_waits_for_the_device(backend, rule, layers):
    for loss in LOSSES:
        accuracy = isinstance(loss, HAVE_ACCURACY)
        settings = {"rule": RULES[rule], "loss": loss, "accuracy": accuracy} | LAYERS[layers]
        assert waits_of(backend, **settings) == {}, loss


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_activation_waits_for_the_device(backend, activation):
    assert waits_of(backend, activation=activation) == {}
