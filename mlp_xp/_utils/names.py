"""Suggest the valid name that is nearest to an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

# Other libraries' names for our parameters and their values, in lower case.
_ELSEWHERE = {
    theirs: ours
    for ours, names in {
        "absolute_error": "l1 mae",
        "activation": "act nonlinearity",
        "alpha": "l2 weight_decay",
        "augmentation": "augment transforms mixup",
        "batch_size": "bs minibatch_size",
        "bf16": "bfloat16",
        "ema_decay": "ema",
        "float16": "fp16 half",
        "float32": "fp32",
        "float64": "double",
        "gaussian": "normal",
        "hidden_layer_sizes": "layers units hidden hidden_dim hidden_dims hidden_units n_hidden "
        "n_units n_neurons neurons num_layers n_layers width depth layer_sizes",
        "input_scaling": "scaler scaling standardize",
        "learning_rate": "scheduler lr_scheduler lr_schedule",
        "learning_rate_init": "lr",
        "log_loss": "binary_crossentropy categorical_crossentropy cross_entropy crossentropy nll "
        "sparse_categorical_crossentropy",
        "logistic": "sigmoid",
        "loss": "criterion objective",
        "max_grad_norm": "clipnorm grad_clip gradient_clip_val gradient_clip clip_grad_norm",
        "max_iter": "epochs max_epochs n_epochs num_epochs",
        "max_time": "time_limit timeout time_budget",
        "n_iter_no_change": "patience early_stopping_rounds",
        "n_members": "ensemble_size n_ensembles",
        "normalization": "norm",
        "precision": "dtype amp mixed_precision",
        "quantile": "pinball",
        "random_state": "seed",
        "residual": "skip skip_connections",
        "scoring": "metric metrics eval_metric",
        "silu": "swish",
        "solver": "optimizer",
        "squared_error": "mse",
        "standardize": "zscore",
        "validation_fraction": "validation_split train_split",
    }.items()
    for theirs in names.split()
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
