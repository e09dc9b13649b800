"""The samples of a fit, checked, and those held out from it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.distributed import Alone
from mlp_xp.estimators.agreement import agree_on_samples, join_samples
from mlp_xp.estimators.targets import Targets
from mlp_xp.estimators.validation import check_weights, check_x, check_y
from mlp_xp.training.rows import some_rows

__all__ = ["Sample", "check_held_out", "check_sample", "split_sample"]

_FEW = 10_000  # Samples whose split is kept.


class Sample(NamedTuple):
    """Checked data: inputs where they are, or `Rows` of them; targets and weights on the host.

    Where each rank gives its own rows, inputs are a `Shard`, with the targets of all ranks.
    """

    X: Any
    y: np.ndarray
    weights: np.ndarray | None

    def take(self, rows: np.ndarray) -> Sample:
        """Return some of the samples."""
        weights = None if self.weights is None else self.weights[rows]
        return Sample(some_rows(self.X, rows), self.y[rows], weights)


def check_sample(
    model: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    reset: bool,
    suffix: str = "",
    ranks: Alone,
) -> Sample:
    """Return the checked sample of all ranks; ``suffix`` is that of its names in errors."""
    if ranks.is_sharded:
        joined = join_samples(ranks, model, X, y, sample_weight, reset=reset, suffix=suffix)
        return Sample(*joined)
    X = check_x(model, X, reset=reset)
    n_samples = X.shape[0]
    y = check_y(model, y, n_samples, f"y{suffix}")
    weights = check_weights(sample_weight, n_samples, name=f"sample_weight{suffix}")
    agree_on_samples(ranks, X, y, weights, suffix)
    return Sample(X, y, weights)


def check_held_out(model: Any, X: Any, y: Any, weights: Any, ranks: Alone) -> Sample | None:
    """Return the checked held-out samples, or None where none are given."""
    if X is None and y is None:
        if weights is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val.")
        return None
    if X is None or y is None:
        missing = "X_val" if X is None else "y_val"
        raise ValueError(f"X_val and y_val belong together, and {missing} is None.")
    try:
        return check_sample(model, X, y, weights, reset=False, suffix="_val", ranks=ranks)
    except ValueError as error:
        if "features" not in str(error) and "takes numbers in X" not in str(error):
            raise
        cause = str(error.__cause__ or error).rstrip(".")
        raise ValueError(
            f"X_val: {cause}. A Pipeline transforms X alone: type sklearn.set_config("
            "enable_metadata_routing=True), Pipeline(..., transform_input=['X_val']) and "
            f"{type(model).__name__}().set_fit_request(X_val=True, y_val=True) in it, or give "
            "what the steps before the network make of X_val."
        ) from error


def split_sample(
    sample: Sample, targets: Targets, fraction: float, seed: int
) -> tuple[Sample, Sample]:
    """Split off held-out samples, the same at each call on the same number of them."""
    n_samples = sample.X.shape[0]
    strata = targets.strata(sample.y, fraction)
    groups = None if strata is None else (strata.tobytes(), strata.dtype.str, strata.ndim)
    split = _split if n_samples <= _FEW else _split.__wrapped__
    try:
        fit, held = split(n_samples, fraction, seed, groups)
    except ValueError as error:
        raise ValueError(
            f"{str(error).rstrip('.')}. early_stopping=True holds out validation_fraction="
            f"{fraction} of {n_samples} samples: change it, or give X_val and y_val."
        ) from error
    if len(held) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of "
            "your dataset."
        )
    parts = sample.take(fit), sample.take(held)
    for part, what in zip(parts, ("to fit on", "held out"), strict=True):
        check_weights(part.weights, len(part.y), name=f"sample_weight of the samples {what}")
    return parts


# Of few samples, since the models of a search often have the same.
@functools.lru_cache(maxsize=64)
def _split(
    n_samples: int, fraction: float, seed: int, groups: tuple[bytes, str, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the samples to fit on and of those held out.

    ``groups`` are the groups to stratify by: their bytes, dtype, and number of axes.
    """
    from sklearn.model_selection import train_test_split  # With much that few fits need.

    strata = None
    if groups is not None:
        values, dtype, n_axes = groups
        strata = np.frombuffer(values, dtype).reshape((n_samples, 1)[:n_axes])
    rows = np.arange(n_samples)
    fit, held = train_test_split(rows, test_size=fraction, random_state=seed, stratify=strata)
    return fit, held
