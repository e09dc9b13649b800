"""Suggest the valid name that is nearest to an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

# Other libraries' names for parameters and their values, in lower case.
_ELSEWHERE = {
    "bfloat16": "bf16",
    "binary_crossentropy": "log_loss",
    "categorical_crossentropy": "log_loss",
    "clipnorm": "max_grad_norm",
    "cross_entropy": "log_loss",
    "crossentropy": "log_loss",
    "double": "float64",
    "epochs": "max_iter",
    "fp16": "float16",
    "fp32": "float32",
    "half": "float16",
    "l1": "absolute_error",
    "l2": "alpha",
    "layers": "hidden_layer_sizes",
    "lr": "learning_rate_init",
    "mae": "absolute_error",
    "max_epochs": "max_iter",
    "metrics": "scoring",
    "mse": "squared_error",
    "n_epochs": "max_iter",
    "nll": "log_loss",
    "normal": "gaussian",
    "optimizer": "solver",
    "patience": "n_iter_no_change",
    "pinball": "quantile",
    "seed": "random_state",
    "sigmoid": "logistic",
    "sparse_categorical_crossentropy": "log_loss",
    "swish": "silu",
    "validation_split": "validation_fraction",
    "weight_decay": "alpha",
    "zscore": "standardize",
}
# Device names that users may pass as a backend by mistake.
_BACKENDS = {"cuda": "auto", "gpu": "auto"}


def did_you_mean(given: Any, names: Iterable[str]) -> str:
    """Return "did you mean ...?" with the valid name nearest to an unknown name, or "".

    Examples
    --------
    >>> from mlp_xp._utils.names import did_you_mean
    >>> did_you_mean("Lino", ["adam", "lion"])
    "did you mean 'lion'?"
    >>> did_you_mean("sigmoid", ["logistic", "tanh"])
    "did you mean 'logistic'?"
    >>> did_you_mean("lamb", ["sgd"])
    ''
    """
    found = nearest(given, names)
    return f"did you mean {found!r}?" if found else ""


def nearest(given: Any, names: Iterable[str]) -> str:
    """Return the valid name that is probably meant, or ""."""
    # Ignore leading dashes, since every option has them.
    lower = {name.lower().lstrip("-"): name for name in names}
    wanted = str(given).lower().lstrip("-")
    elsewhere = _ELSEWHERE | _BACKENDS if "numpy" in lower else _ELSEWHERE
    near = [elsewhere.get(wanted, ""), *get_close_matches(wanted, lower, 1)]
    return next((lower[name] for name in near if name in lower), "")


def error_end(given: Any, names: Iterable[str]) -> str:
    """Return the end of an error message: ": did you mean ...?", or a period."""
    meant = did_you_mean(given, names)
    return f": {meant}" if meant else "."
