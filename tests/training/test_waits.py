"""The host waits for the device once an epoch, when it reads loss and accuracy."""

import itertools

import numpy as np
import pytest
from helpers import small
from scipy import sparse

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.losses import REGRESSION_LOSSES
from mlp_xp.optimizers import OPTIMIZERS
from mlp_xp.training.divergence.guard import Guard
from mlp_xp.training.trainer import Trainer

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("cupy")]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 12)).astype(np.float32)
LABELS = np.arange(90) % 3


@pytest.fixture
def check(on, monkeypatch):
    """Return the function that fits, and checks that the host waits once in each epoch."""
    launch = pytest.importorskip("cupy._launch", reason="only the stand-in counts what waits")
    seen, run_epoch = [], Trainer.run_epoch

    def counted(*args, **kwargs):
        launch.waits.clear()
        record = run_epoch(*args, **kwargs)
        seen.append(dict(launch.waits))
        return record

    monkeypatch.setattr(Trainer, "run_epoch", counted)
    # Every tenth of a second the loss is looked at, and now and then the state is copied.
    monkeypatch.setattr(Guard, "look", lambda *args, **kwargs: None)
    monkeypatch.setattr(Guard, "_is_copy_due", lambda *args: False)

    def fit(estimator, x, y, **settings):
        seen.clear()
        settings = {"hidden_layer_sizes": (8, 8), "max_iter": 3} | on | settings
        small(estimator, **settings).fit(x, y)
        assert seen == [{"get": 1}] * 3

    return fit


class Accuracy:
    wants_accuracy = True

    def on_epoch_end(self, model, record):
        assert 0 <= record.accuracy <= 1


CLASSIFIERS = {
    **{solver: {"solver": solver} for solver in sorted(OPTIMIZERS)},
    "no momentum": {"solver": "sgd", "momentum": 0.0, "learning_rate": "cosine"},
    "dropout": {"dropout": 0.2, "input_dropout": 0.1, "class_weight": {0: 1.0, 1: 2.0, 2: 3.0}},
    "layer norm": {"normalization": "layer", "residual": True, "max_grad_norm": 1.0},
    "batch norm": {"normalization": "batch", "ema_decay": 0.9, "callbacks": [Accuracy()]},
    "focal": {"loss": "focal", "input_scaling": "standardize"},
    "branch": {"hidden_layer_sizes": [8, Branch((16, Project(8)))], "label_smoothing": 0.1},
    "blocks": {"hidden_layer_sizes": [Blocks((3, 4), (1,)), 8]},
    **{a: {"activation": a} for a in ("gelu", "silu", "elu", "tanh", "softplus", "leaky_relu")},
}


@pytest.mark.parametrize("placement", ["resident", "streamed"])
@pytest.mark.parametrize("settings", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_an_epoch_synchronizes_once(check, settings, placement):
    check(MLPClassifier, X, LABELS, placement=placement, **settings)


def test_an_epoch_on_other_data_synchronizes_once(check, backend):
    for loss in REGRESSION_LOSSES:
        for y in (X[:, :2] ** 2, X[:, 0] ** 2):
            check(MLPRegressor, X, y, loss=loss)
    pixels = RNG.integers(256, size=(90, 12)).astype(np.uint8)
    check(MLPClassifier, np.asfortranarray(pixels), LABELS, input_scaling="zca")
    check(MLPClassifier, backend.put(X.T.copy()).T, LABELS)
    rows = sparse.csr_array(np.where(X > 0.5, X, 0))
    for hidden, precision in itertools.product([(), (8, 8)], ["auto", "bf16"]):
        check(MLPClassifier, rows, LABELS, hidden_layer_sizes=hidden, precision=precision)
