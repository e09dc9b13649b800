"""Small trainings for the tests of captured steps, and the numbers that they end with."""

import numpy as np
from rules import RULES
from trainers import make_trainer

from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.nn import losses
from mlp_xp.nn.hidden import Blocks, Branch
from mlp_xp.nn.network import Network
from mlp_xp.optimizers.schedules import Constant
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import put_data

N, FEATURES, CLASSES, BATCH = 57, 12, 4, 10


class Problem:
    """Train a small network; ``settings`` are fields of `Rules`."""

    def __init__(self, network=None, *, x=None, y=None, n=N, weights=None, **settings):
        rng = np.random.default_rng(5)
        self.network = network or Network((FEATURES, 9, 7, CLASSES), "tanh")
        self.x = rng.standard_normal((n, self.network.widths[0])) if x is None else x
        self.y = rng.integers(0, CLASSES, n).astype(np.int32) if y is None else y
        self.weights = None if weights is None else rng.random(n) + weights
        self.dtype = settings.setdefault("dtype", "float64")
        self.scaling = settings.pop("scaling", None)
        self.settings = {"schedule": Constant()} | settings

    def trainer(self, backend):
        trainer = make_trainer(backend, network=self.network, **self.settings)
        if self.scaling is not None:
            parts = (backend.put(part, self.dtype) for part in self.scaling)
            trainer.scaling = type(self.scaling)(*parts)
        return trainer

    def plan(self, epoch=0, n=None):
        n = len(self.y) if n is None else n
        return plan_epoch(n, BATCH, seed=7, epoch=epoch, weights=self.weights)

    def train(self, trainer, n_epochs=3, data=None, step_by_step=False, budget=None):
        data = data or put_data(trainer.backend, self.x, self.y, self.dtype)
        options = {"n_epochs": n_epochs, "step_by_step": step_by_step, "budget": budget}
        return [trainer.run_epoch(data, self.plan(epoch), **options) for epoch in range(n_epochs)]

    def eagerly(self, backend, monkeypatch, **settings):
        """Return what steps that run one by one, on their own, compute."""
        with monkeypatch.context() as patch:
            patch.setattr(type(backend), "loop", lambda self, body: None)
            trainer = self.trainer(backend)
            records = self.train(trainer, **settings)
        return numbers(trainer, records)

    def check(self, backend, monkeypatch, **options):
        """Return a trainer whose steps compute what they do one by one, on their own."""
        expected = self.eagerly(backend, monkeypatch, **options)
        trainer = self.trainer(backend)
        assert_same(numbers(trainer, self.train(trainer, **options)), expected)
        return trainer


def numbers(trainer, records):
    state = [trainer.backend.get(leaf) for leaf in leaves(trainer.state)]
    return [*state, np.asarray([record.loss for record in records])]


def assert_same(found, expected):
    for array, other in zip(found, expected, strict=True):
        assert array.dtype == other.dtype
        assert array.tobytes() == other.tobytes()


def network_of(*hidden, **settings):
    return Network((FEATURES, *hidden, CLASSES), **settings)


SHAPE, PIXELS = (3, 4, 5), 60
EVERYTHING = Flip(SHAPE, alternate=True), Shift(SHAPE, 2, "zero"), Cutout(SHAPE, 2)
EVERYTHING += ColorJitter(SHAPE), Mixup(0.7)
PICTURES = np.random.default_rng(5).integers(1, 256, (N, PIXELS), dtype=np.uint8)
TURN = np.random.default_rng(0).random((FEATURES, FEATURES))
TARGETS = np.random.default_rng(0).random((N, 4))
LABELS = np.random.default_rng(0).integers(0, 2, (N, 10)).astype(np.int32)
DROPOUT = {"dropout": (0.2, 0.0, 0.4), "input_dropout": 0.3, "residual": True}
CASES = {
    **{f"rule {name}": {"optimizer": rule} for name, rule in RULES.items()},
    **{
        name: {"network": network_of(9, 7, activation=name), "dtype": "float32"}
        for name in ("relu", "logistic", "gelu", "silu")
    },
    "no hidden layer": {"network": network_of()},
    "layer normalization": {"network": network_of(9, 7, normalization="layer")},
    "batch normalization": {"network": network_of(9, 7, normalization="batch")},
    "dropout": {"network": network_of(9, 7, dropout=0.5, input_dropout=0.3)},
    "residual": {"network": network_of(9, 9, residual=True)},
    "blocks": {"network": network_of(Blocks((3, 4), (1,), width=2), Branch((5, 6)))},
    "focal": {"loss": losses.SoftmaxFocal()},
    "label smoothing": {"loss": losses.SoftmaxCrossEntropy(0.1)},
    "squared error": {"loss": losses.SquaredError(), "y": TARGETS},
    "absolute error": {"loss": losses.AbsoluteError(), "y": TARGETS},
    "huber": {"loss": losses.Huber(), "y": TARGETS},
    "poisson": {"loss": losses.Poisson(), "y": TARGETS},
    "binary": {"loss": losses.BinaryCrossEntropy(), "y": TARGETS.round()},
    "ten targets": {
        **{"network": Network((FEATURES, 9, 20)), "y": LABELS},
        "loss": losses.EachTarget(losses.SoftmaxCrossEntropy(), (2,) * 10),
    },
    "weights": {"weights": 0.0},
    "average": {"ema_decay": 0.9},
    "clipping": {"max_grad_norm": 0.1},
    "accuracy": {"with_accuracy": True},
    "no penalty": {"alpha": 0.0},
    "pictures": {
        **{"network": Network((PIXELS, 9, CLASSES), "tanh"), "dtype": "float32"},
        **{"x": PICTURES, "augmentation": EVERYTHING},
        "scaling": Scaling(np.full(PIXELS, 128.0), np.full(PIXELS, 1 / 64)),
    },
    "whitening": {"scaling": Whitening(np.ones(FEATURES), np.ones(FEATURES), TURN)},
    "all together": {
        "network": network_of(9, 9, 7, activation="silu", normalization="batch", **DROPOUT),
        **{"weights": 0.1, "ema_decay": 0.9, "max_grad_norm": 0.5},
        **{"with_accuracy": True, "dtype": "float32"},
    },
}
