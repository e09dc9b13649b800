"""The formulas call only functions that the Array API standard and CuPy have.

array-api-strict has only the functions of the standard, and the imitation of CuPy only CuPy's
functions. Each loss, update rule and layer trains and predicts on both.
"""

from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
from gradient import cross_entropy_of, fourth_power
from rules import RULES
from trainers import N, byte_data, make_trainer

from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.nn import losses
from mlp_xp.nn.hidden import Normalization
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import OPTIMIZERS
from mlp_xp.training import lbfgs
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.inference.inference import predict

PLAIN = Network((5, 5))
BATCHES_OF = 29  # Two batches per epoch; the second is padded.


def has_accuracy(loss):
    classifiers = losses.BinaryCrossEntropy | losses.BinaryFocal | losses.SoftmaxCrossEntropy
    is_class = isinstance(loss, losses.Custom) and loss.output in ("softmax", "logistic")
    return is_class or isinstance(loss, classifiers | losses.SoftmaxFocal)


def cases(labels):
    """Return each loss with suitable targets and the number of outputs."""
    soft = np.eye(4)[labels]
    kinds = losses.REGRESSION_LOSSES.values()
    errors = [kind() for kind in kinds if issubclass(kind, losses.ErrorLoss)]
    smoothed = losses.SoftmaxCrossEntropy(label_smoothing=0.1)
    classes = [losses.SoftmaxCrossEntropy(), smoothed, losses.SoftmaxFocal()]
    ones = [losses.BinaryCrossEntropy(), losses.BinaryCrossEntropy(label_smoothing=0.1)]
    ones += [losses.BinaryFocal(), losses.Poisson(), *errors]
    ones += [losses.Gaussian(), losses.Quantile((0.2, 0.7))]
    ones += [losses.Through(loss, output) for loss in errors for output in losses.OUTPUTS]
    ones += [losses.Custom(fourth_power, output) for output in losses.OUTPUTS]
    # A custom loss of probabilities needs one-hot targets.
    whole = [*classes, losses.Custom(cross_entropy_of, "softmax")]
    hard = [(loss, labels, 4) for loss in classes] + [(loss, soft, 4) for loss in whole]
    return hard + [(loss, soft[:, :1], loss.outputs_per_target) for loss in ones]


def use(backend, network, case=None, **rules):
    x, labels = byte_data("uint8")
    loss, y, outputs = case or (losses.SoftmaxCrossEntropy(), labels, 4)
    network = replace(network, widths=(x.shape[1], *network.widths, outputs))
    rules |= {"loss": loss, "with_accuracy": has_accuracy(loss)}
    trainer = make_trainer(backend, dtype="float32", x=x, network=network, **rules)
    train(trainer, x, y if y.ndim == 1 else y.astype("float32"))
    options = {"batch_stats": trainer.state.batch_stats, "dtype": "float32"}
    for depth in (None, 1):
        given = network, loss, trainer.learned, x, trainer.scaling
        predict(backend, *given, depth=depth, **options)


def train(trainer, x, y):
    for placement in ("resident", "streamed"):
        data = put_data(trainer.backend, x, y, "float32", placement)
        trainer.run_epoch(data, plan_epoch(N, BATCHES_OF, seed=0, pad=True), n_epochs=1)


def use_networks(backend):
    for activation in ACTIVATIONS:
        use(backend, replace(PLAIN, activation=activation))
    for normalization, residual, dropout in product(
        (None, *get_args(Normalization)), (False, True), (0.0, 0.5)
    ):
        use(backend, Network((5, 5), "relu", normalization, dropout, dropout, residual))


def use_losses(backend):
    for case in cases(byte_data("uint8")[1]):
        use(backend, PLAIN, case)


def use_rules(backend):
    for rule in [*RULES.values(), *(kind() for kind in OPTIMIZERS.values())]:
        use(backend, PLAIN, optimizer=rule)
        use(backend, PLAIN, optimizer=rule, alpha=0.0, max_grad_norm=0.1, ema_decay=0.9)


def use_augmentation(backend):
    shape = (1, 3, 4)
    x, labels = np.ones((N, 12), dtype=np.uint8), byte_data("uint8")[1]
    geometric = Flip(shape), Shift(shape, 1, "zero")
    chosen = (*geometric, Cutout(shape, 1), ColorJitter(shape), Mixup())
    network = Network((12, 5, 4))
    trainer = make_trainer(backend, dtype="float32", x=x, network=network, augmentation=chosen)
    train(trainer, x, labels)
    loss, params = losses.SoftmaxCrossEntropy(), trainer.learned
    predict(backend, network, loss, params, x, trainer.scaling, tta=geometric, dtype="float32")


def use_lbfgs(backend):
    x, labels = byte_data("uint8")
    network = Network((x.shape[1], 5, 4), normalization="layer", residual=True)
    trainer = make_trainer(backend, dtype="float32", x=x, network=network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbfgs, "BLOCK", BATCHES_OF)
        data, options = put_data(backend, x, labels, "float32"), {"max_iter": 2, "max_fun": 10}
        options |= {"tol": 0.0, "after_iteration": lambda params, loss: True}
        lbfgs.minimize(trainer, data, np.ones(N), **options)


@pytest.mark.libraries("array_api_strict", "cupy")
@pytest.mark.parametrize("part", [use_networks, use_losses, use_rules, use_augmentation, use_lbfgs])
def test_package_calls_only_functions_in_the_array_api_and_cupy(backend, part):
    part(backend)
