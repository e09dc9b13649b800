"""The rows of the study of settings: networks, parameters of estimators, and limits of times."""

from typing import Any, NamedTuple

from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import Custom, Quantile
from mlp_xp.optimizers import Muon

EVERYTHING, DEFAULT = "everything", "default"
NORMS = 1.5  # How much longer than the other settings norms and everything may take.


class Workload(NamedTuple):
    """A network with its batch; ``most`` is the limit of a setting's time / the default's."""

    widths: tuple[int, ...]
    batch_size: int
    steps: int  # Per epoch.
    most: float
    warm_up: int  # The number of epochs after which machine code is used for certain.

    @property
    def is_regression(self) -> bool:
        return self.widths[-1] == 1


WORKLOADS = {
    "tiny": Workload((64, 100, 10), 32, 57, 1.6, 100),
    "table": Workload((40, 256, 256, 1), 256, 32, 1.4, 5),
    "medium": Workload((3072, 512, 512, 10), 128, 16, 1.35, 2),
}


# --- formulas as a user writes them, without and with a pullback ---------------------------------


def snake(x: Any, *, xp: Any) -> Any:
    return x + xp.sin(x) ** 2


def snake_pulled(x: Any, *, xp: Any) -> Any:
    sine = xp.sin(x)
    return x + sine**2, lambda dy: dy * (1.0 + 2.0 * sine * xp.cos(x))


def own_tanh(x: Any, *, xp: Any) -> Any:
    return xp.tanh(x)


def own_tanh_pulled(x: Any, *, xp: Any) -> Any:
    y = xp.tanh(x)
    return y, lambda dy: dy * (1.0 - y * y)


def log_cosh(outputs: Any, targets: Any, *, xp: Any) -> Any:
    size = xp.abs(outputs - targets)
    return xp.sum(size + xp.log1p(xp.exp(-2.0 * size)) - 0.6931472, axis=-1)


def log_cosh_pulled(outputs: Any, targets: Any, *, xp: Any) -> Any:
    slope = xp.tanh(outputs - targets)
    return log_cosh(outputs, targets, xp=xp), lambda dloss: slope * dloss[:, None]


def cubic(p: Any, labels: Any, *, xp: Any) -> Any:
    wrong = 1.0 - xp.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    return wrong**3


def cubic_pulled(p: Any, labels: Any, *, xp: Any) -> Any:
    wrong = 1.0 - xp.take_along_axis(p, labels[:, None], axis=1)[:, 0]

    def pullback(dloss: Any) -> Any:
        is_class = labels[:, None] == xp.arange(p.shape[1], dtype=labels.dtype)
        return xp.where(is_class, (-3.0 * wrong**2 * dloss)[:, None], 0.0)

    return wrong**3, pullback


# --- the rows ------------------------------------------------------------------------------------

# By name: parameters of the estimator.
Rows = dict[str, dict[str, Any]]
_COMMON: Rows = {
    DEFAULT: {},
    **{name: {"activation": name} for name in ACTIVATIONS if name != "relu"},
    "parametric": {"parametric_activation": True},
    "own activation": {"activation": snake_pulled},
    "own activation, derived": {"activation": snake},
    "own tanh": {"activation": own_tanh_pulled},
    "own tanh, derived": {"activation": own_tanh},
    "SGD": {"solver": "sgd"},
    "SGD without momentum": {"solver": "sgd", "momentum": 0.0},
    "AdamW": {"solver": "adamw"},
    "RMSprop": {"solver": "rmsprop"},
    "Lion": {"solver": "lion"},
    "beta-lasso": {"solver": "beta_lasso"},
    "Muon": {"solver": Muon(ns_steps=5, ns_polynomial="jordan")},
    "L2 penalty": {"alpha": 1e-4},
    "layer norm": {"normalization": "layer"},
    "batch norm": {"normalization": "batch"},
    "residual": {"residual": True},
    "dropout": {"dropout": 0.2},
    "input dropout": {"input_dropout": 0.2},
    "EMA": {"ema_decay": 0.999},
    "clip": {"max_grad_norm": 1.0},
    EVERYTHING: {
        **{"activation": "gelu", "normalization": "layer", "dropout": 0.2, "solver": "adamw"},
        **{"ema_decay": 0.999, "max_grad_norm": 1.0},
    },
}
_CLASSES: Rows = {
    "focal": {"loss": "focal"},
    "binary log loss": {},
    "binary focal": {"loss": "focal"},
    "own loss": {"loss": Custom(cubic_pulled, "softmax")},
    "own loss, derived": {"loss": Custom(cubic, "softmax")},
}
_NUMBERS: Rows = {
    **{name: {"loss": name} for name in ("absolute_error", "huber", "quantile", "poisson")},
    "three quantiles": {"loss": Quantile((0.05, 0.5, 0.95))},
    "gaussian": {"loss": "gaussian"},
    "own loss": {"loss": Custom(log_cosh_pulled)},
    "own loss, derived": {"loss": Custom(log_cosh)},
}
QUICK = (DEFAULT, "tanh", "Lion", "layer norm", "dropout", "EMA", "clip", EVERYTHING)
# The row that another is compared with, and the largest ratio of their times.
PAIRS = {
    "own activation, derived": ("own activation", 1.05),
    "own loss, derived": ("own loss", 1.05),
    "own tanh": ("tanh", 1.1),
    "own tanh, derived": ("tanh", 1.1),
}


def rows_of(workload: Workload) -> Rows:
    """Return the rows of a workload, without those that it has no use for."""
    rows = _COMMON | (_NUMBERS if workload.is_regression else _CLASSES)
    if len(workload.widths) < 4:
        del rows["residual"]  # No hidden layer is as wide as its input.
    if max(workload.widths) > 1000:
        del rows["Muon"]  # A step takes a tenth of a second.
    return rows


def settings_of(workload: Workload, name: str) -> dict[str, Any]:
    """Return the parameters of a row's estimator that both sides know."""
    loss = "squared_error" if workload.is_regression else "log_loss"
    return {"loss": loss, "batch_size": workload.batch_size} | rows_of(workload)[name]


def most(workload: Workload, name: str) -> float | None:
    """Return the limit of a row's time divided by the default's, or None if it has none."""
    if name in (DEFAULT, "Muon"):
        return None
    return workload.most * (NORMS if name in ("layer norm", "batch norm", EVERYTHING) else 1.0)
