"""The configurations that a tuned ensemble tries: known good ones, then random ones.

Each changes parameters of the estimator that is tuned, by default the recipe ``table``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_regressor

from mlp_xp.nn.blocks import PBLD, PLE, keeps_order
from mlp_xp.optimizers import AdamW

# The number of networks in a TabM; more cost more time than they gain on two cores.
_N_MEMBERS = 8
# The known good configurations. "wide" is best where the recipe overfits.
_KNOWN: dict[str, dict[str, Any]] = {
    "base": {},
    "wide": {
        "hidden_layer_sizes": (256, 256),
        "activation": "mish",
        "learning_rate_init": 0.0093,
        "solver": AdamW(weight_decay=0.7, beta_2=0.95),
        "batch_size": 100,
        "dropout": 0.0,
    },
    "TabM": {
        "n_members": _N_MEMBERS,
        "numeric_embedding": PLE(pieces=16, outputs=8),
        "solver": AdamW(weight_decay=0.1, beta_2=0.95),
        "learning_rate_init": 0.002,
        "ema_decay": None,
    },
    "less decay": {"solver": AdamW(weight_decay=0.1, beta_2=0.95), "ema_decay": None},
}


class Configuration(NamedTuple):
    """The parameters to set on the estimator, with a name for tables and progress bars."""

    number: int
    name: str
    params: dict[str, Any]


def configurations(estimator: Any, seed: int) -> Iterator[Configuration]:
    """Yield the configurations to try for an estimator, without end.

    Configuration n depends on n and on the seed only, not on how many are drawn.
    """
    suit = _monotone if estimator.monotonic_cst is not None else dict
    known = {
        name: suit(params) for name, params in _KNOWN.items() if name == "base" or _suits(estimator)
    }
    if is_regressor(estimator) and "less decay" in known:  # As in the recipe table-best.
        known["less decay"] |= {"dropout": 0.05, "max_iter": 2 * estimator.max_iter}
    for number, (name, params) in enumerate(known.items()):
        yield Configuration(number, name, params)
    number = len(known)
    while True:
        name, draw = ("random TabM", _draw_tabm) if number % 3 == 2 else ("random MLP", _draw_mlp)
        if not _suits(estimator):
            name, draw = "random", _draw_any
        params = draw(np.random.default_rng([seed, number]), estimator)
        if getattr(estimator, "loss", None) != "log_loss":
            params.pop("label_smoothing", None)
        yield Configuration(number, name, suit(params))
        number += 1


def _monotone(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that can keep predictions monotone; others stay as they are."""
    return {name: value for name, value in params.items() if keeps_order(name, value)}


def _suits(estimator: Any) -> bool:
    """Whether the spaces for tables suit an estimator: it is trained in batches, on a table."""
    return estimator.solver != "lbfgs" and estimator.numeric_embedding is not None


def _draw_mlp(generator: np.random.Generator, estimator: Any) -> dict[str, Any]:
    """Draw from RealMLP's space, in units of the recipe ``table`` and cut for processors.

    Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees
    on tabular data" (2024), arXiv:2407.04491; Erickson et al., "TabArena" (2025), arXiv:2506.16791.
    """
    is_periodic = generator.uniform() < 0.3
    periodic = PBLD(sigma=_log(generator, 0.01, 10.0))
    linear = PLE(_choose(generator, 8, 16, 32, 64), _choose(generator, 8, 16, 24))
    decay, beta_2 = _log(generator, 0.01, 1.0), 1.0 - _log(generator, 0.005, 0.05)
    return {
        "hidden_layer_sizes": (_choose(generator, 128, 256, 384),) * _choose(generator, 2, 3),
        "activation": _choose(generator, "relu", "mish"),
        "numeric_embedding": periodic if is_periodic else linear,
        "embedding_dim": _choose(generator, 4, 8, 16),
        "dropout": round(generator.uniform(0.0, 0.5), 3) * _choose(generator, 0, 1, 1),
        "learning_rate_init": _log(generator, 0.001, 0.02),
        "solver": AdamW(weight_decay=decay, beta_2=beta_2),
        "batch_size": _choose(generator, 100, 200),
        "max_iter": math.ceil(estimator.max_iter * _choose(generator, 0.75, 1.0, 1.5)),
        "ema_decay": _choose(generator, None, 0.99),
        "label_smoothing": _log(generator, 0.005, 0.1) * _choose(generator, 0, 0, 1),
    }


def _draw_tabm(generator: np.random.Generator, estimator: Any) -> dict[str, Any]:
    """Draw from TabM's space, cut for processors.

    Gorishniy, Kotelnikov, Babenko, "TabM: advancing tabular deep learning with parameter-efficient
    ensembling" (2024), arXiv:2410.24210.
    """
    return {
        "n_members": _N_MEMBERS,
        "hidden_layer_sizes": (_choose(generator, 96, 128, 192, 256),) * _choose(generator, 2, 3),
        "numeric_embedding": PLE(_choose(generator, 8, 16, 32, 64), _choose(generator, 8, 12, 16)),
        "dropout": round(generator.uniform(0.0, 0.5), 3) * _choose(generator, 0, 1),
        "learning_rate_init": _log(generator, 0.0005, 0.005),
        "solver": AdamW(weight_decay=_log(generator, 0.001, 0.3) * _choose(generator, 0, 1)),
        "ema_decay": None,
    }


def _draw_any(generator: np.random.Generator, estimator: Any) -> dict[str, Any]:
    """Draw settings that suit every estimator, near its own."""
    if estimator.solver == "lbfgs":
        return {"alpha": _log(generator, 1e-5, 1.0)}
    factor = _log(generator, 0.2, 5.0)
    return {
        "learning_rate_init": estimator.learning_rate_init * factor,
        "alpha": _log(generator, 1e-6, 1e-1),
        "dropout": round(generator.uniform(0.0, 0.5), 3) * _choose(generator, 0, 1),
    }


def _log(generator: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform, rounded to three digits."""
    return float(f"{math.exp(generator.uniform(math.log(low), math.log(high))):.3g}")


def _choose(generator: np.random.Generator, *options: Any) -> Any:
    return options[int(generator.integers(len(options)))]
