"""The samples of a fit: checked, held out from it, and placed where it computes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp.estimators.checks.processes import describe_samples
from mlp_xp.estimators.checks.validation import check_weights, check_x, check_y
from mlp_xp.estimators.targets import Targets
from mlp_xp.training.data.placement import Data, multiplies_sparse, place
from mlp_xp.training.data.rows import some_rows
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.trainer import Trainer

__all__ = ["Sample", "check_held_out", "check_sample", "place_sample", "split_sample"]

_FEW = 10_000  # Samples whose split is kept.


class Sample(NamedTuple):
    """Checked data: inputs where they are, or `Rows` of them; targets and weights on the host.

    Where each process gives its own rows, inputs are a `Shard`, with all targets.
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
    processes: SingleProcess,
) -> Sample:
    """Return the checked sample of all processes; ``suffix`` ends its names in errors."""
    if processes.is_sharded:
        from mlp_xp.estimators.checks.sharded import join_samples  # Most fits have one process.

        given = X, y, sample_weight
        return Sample(*join_samples(processes, model, *given, reset=reset, suffix=suffix))
    try:
        X = check_x(model, X, reset=reset)
    except ValueError as error:
        if not suffix:
            raise
        cause = str(error.__cause__ or error).rstrip(".")  # Not the advice on text in X.
        raise ValueError(
            f"X{suffix}: {cause}. A Pipeline transforms X alone: type sklearn.set_config("
            f"enable_metadata_routing=True), Pipeline(..., transform_input=['X{suffix}']) and "
            f"{type(model).__name__}().set_fit_request(X_val=True, y_val=True) in it, or give "
            f"what the steps before the network make of X{suffix}."
        ) from error
    n_samples = X.shape[0]
    y = check_y(model, y, n_samples, f"y{suffix}")
    weights = check_weights(sample_weight, n_samples, name=f"sample_weight{suffix}")
    describe = functools.partial(describe_samples, X, y, weights, suffix)
    processes.agree(describe, lambda: ", or its own rows, with Distributed(data='sharded')")
    return Sample(X, y, weights)


def check_held_out(
    model: Any, X: Any, y: Any, weights: Any, processes: SingleProcess
) -> Sample | None:
    """Return the checked held-out samples, or None where none are given."""
    if X is None and y is None:
        if weights is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val.")
        return None
    if X is None or y is None:
        missing = "X_val" if X is None else "y_val"
        raise ValueError(f"X_val and y_val belong together, and {missing} is None.")
    return check_sample(model, X, y, weights, reset=False, suffix="_val", processes=processes)


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


# Only few samples, since the models of a search often have the same.
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


def place_sample(
    trainer: Trainer, sample: Sample, targets: Targets, placement: Any, batch_size: Any
) -> Data:
    """Return the training data: on the device, or to be streamed to it batch by batch."""
    encoded = targets.encode(sample.y, trainer.dtype)
    _check_pullbacks(trainer, encoded)
    backend, rules = trainer.backend, trainer.rules
    stays_sparse = multiplies_sparse(backend, rules.network, trainer.scaling, rules.augmentation)
    data = place(
        backend, sample.X, encoded, trainer.dtype, placement, multiplies_sparse=stays_sparse
    )
    if batch_size != "auto" and batch_size > data.n_samples:
        warn_caller(
            f"Got `batch_size` {batch_size} larger than the sample size {data.n_samples}. It "
            "is going to be clipped."
        )
    return data


def _check_pullbacks(trainer: Trainer, targets: np.ndarray) -> None:
    """Compare what a user wrote with a finite difference, once, on a few samples."""
    backend, network, loss = trainer.backend, trainer.rules.network, trainer.rules.loss
    settings = (
        network.activation if isinstance(network.activation, tuple) else (network.activation,)
    )
    own = [function for function in settings if callable(function)]
    if trainer.n_steps or not (own or loss.is_own):
        return
    # Most fits have nothing to check.
    from mlp_xp.nn.gradient_check import check_activation, check_loss

    dtype = "float64" if backend.has_float64 else "float32"
    generator = np.random.default_rng(trainer.seed)
    rows = slice(0, 8)
    with backend.scope():
        for function in own:
            x = backend.put(generator.standard_normal((8, 4)), dtype)
            name = getattr(function, "__name__", repr(function))
            check_activation(function, x, xp=backend.xp, name=name)
        if loss.is_own:
            is_real = targets.dtype.kind == "f"
            y = backend.put(targets[rows], dtype if is_real else None)
            logits = generator.standard_normal((y.shape[0], network.sizes[-1]))
            check_loss(loss, backend.put(logits, dtype), y, xp=backend.xp)
