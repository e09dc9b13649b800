"""Suggest the valid name that is closest to an unknown name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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
_ALIKE = 0.9  # The minimum similarity ratio of two similar names.
_LISTED = 20  # The maximum number of names in a message.
# Device names that users may pass as a backend by mistake.
_BACKENDS = {"cuda": "auto", "gpu": "auto"}


def did_you_mean(given: Any, names: Iterable[str]) -> str:
    """Return "did you mean ...?" with the valid name closest to an unknown name, or "".

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
    """Return the valid name that was probably intended, or ""."""
    # Ignore leading dashes, which every option has.
    lower = {name.lower().lstrip("-"): name for name in names}
    wanted = str(given).lower().lstrip("-")
    elsewhere = _ELSEWHERE | _BACKENDS if "numpy" in lower else _ELSEWHERE
    near = [elsewhere.get(wanted, ""), *_close(wanted, lower, 0.6)]
    return next((lower[name] for name in near if name in lower), "")


def alike(given: str, names: Iterable[str]) -> str:
    """Return the name that differs only in case, punctuation or one letter, or "".

    Column names may be similar by chance, so short names and digits must match exactly.

    Examples
    --------
    >>> from mlp_xp._utils.names import alike
    >>> alike("Unit price", ["unit_price", "price"])
    'unit_price'
    >>> alike("income_2023", ["income_2024"])
    ''
    """
    bare = {_bare(name): name for name in names}
    found = _close(_bare(given), bare, _ALIKE)
    digits = [re.sub(r"\D", "", name) for name in (given, *found)]
    return bare[found[0]] if found and len({*digits}) == 1 else ""


def _close(given: str, names: Iterable[str], least: float) -> list[str]:
    """Return the closest name if its similarity ratio is high enough, else ""."""
    from difflib import get_close_matches  # Import only for errors, since it is slow.

    return get_close_matches(given, list(names), 1, least)


def _bare(name: str) -> str:
    """Return a name without case and punctuation."""
    return re.sub(r"[\W_]", "", name).lower() or name


def list_names(names: Sequence[str], quote: Callable[[str], str] = repr) -> str:
    """Format the first names and the number of omitted names for a message."""
    more = [f"{len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return ", ".join([*map(quote, names[:_LISTED]), *more])


def error_end(given: Any, names: Iterable[str]) -> str:
    """Return the end of an error message: ": did you mean ...?", or a period."""
    meant = did_you_mean(given, names)
    return f": {meant}" if meant else "."
