"""Steps on CuPy's stand-in: how often they launch something, and that they wait for nothing."""

import pytest
from gradient import fourth_power
from launches import OUTPUTS, STEPS, launches_of, table, waits_of, written
from rules import RULES

from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.nn.hidden import Branch, Project
from mlp_xp.nn.layers import ACTIVATIONS, affine
from mlp_xp.nn.losses import (
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
)

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy")]

IMAGE = (3, 2, 2)
AUGMENTATION = Flip(IMAGE), Shift(IMAGE, 1), Cutout(IMAGE, 1), ColorJitter(IMAGE), Mixup()
LOSSES = [
    SoftmaxCrossEntropy(0.1),
    SoftmaxFocal(),
    BinaryCrossEntropy(0.1),
    BinaryFocal(),
    SquaredError(),
    AbsoluteError(),
    Huber(),
    Quantile(0.3),
    Quantile((0.3, 0.7)),
    Gaussian(),
    Poisson(),
    Through(AbsoluteError(), "softplus"),
    Through(Quantile((0.3, 0.7)), "tanh"),
    Custom(fourth_power),
]
LAYERS = {
    "plain": {},
    "everything": {
        "activation": ("gelu", "elu"),
        "normalization": "batch",
        "dropout": 0.2,
        "input_dropout": 0.1,
        "residual": True,
        "weights": True,
        "average": True,
        "max_grad_norm": 0.1,
        "augmentation": AUGMENTATION,
    },
    "a branch, normalized": {
        "widths": (12, Branch((Project(6), Project(12))), 8, OUTPUTS),
        "activation": "silu",
        "normalization": "layer",
    },
}


@pytest.mark.parametrize("accuracy", [False, True])
def test_a_step_launches_as_little_as_promised(backend, accuracy):
    assert launches_of(backend, accuracy=accuracy) <= 20
    by_cublas = backend.kernels._replace(dense=affine)
    assert launches_of(backend, kernels=by_cublas, accuracy=accuracy) <= 26


def test_the_table_of_launches_is_that_of_the_code(backend):
    assert written() == table(backend)


def test_no_step_launches_more_than_before(backend):
    for name, (settings, before) in STEPS.items():
        assert launches_of(backend, **settings) < before, name


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_no_step_waits_for_the_device(backend, rule, layers):
    for loss in LOSSES:
        accuracy = isinstance(loss, SoftmaxCrossEntropy | SoftmaxFocal | BinaryCrossEntropy)
        settings = {"rule": RULES[rule], "loss": loss, "accuracy": accuracy} | LAYERS[layers]
        assert waits_of(backend, **settings) == {}, loss


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_activation_waits_for_the_device(backend, activation):
    assert waits_of(backend, activation=activation) == {}
