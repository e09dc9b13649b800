"""The samples of a fit, split into training and held-out samples and placed on the device."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp.estimators.checks.batches import in_batch
from mlp_xp.estimators.checks.validation import Sample, check_weights
from mlp_xp.estimators.settings.config import REFINEMENT
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.network import derived_blocks
from mlp_xp.training.data.batches import StreamedBatches
from mlp_xp.training.data.placement import Data, multiplies_sparse, put_data
from mlp_xp.training.data.rows import Batches, Triple
from mlp_xp.training.data.streams import Stream, StreamedRows
from mlp_xp.training.step.step_settings import own_parts
from mlp_xp.training.trainer import Trainer

_PROBED = 8  # The number of samples with which the gradients of a user's loss are checked.
_FEW = 10_000  # The maximum number of samples whose split is cached.


class HeldOutError(ValueError):
    """The error for samples of which none can be held out; ``label`` is the class with only one."""

    label: Any = None


def split_sample(
    sample: Sample, targets: Targets, fraction: float, seed: int, random_state: Any
) -> tuple[Sample, Sample]:
    """Split off held-out samples; the split depends only on the number of samples, y and the seed.

    If `random_state` is a generator, advance it as scikit-learn's split does.
    """
    if isinstance(sample.X, Stream):
        return _split_stream(sample, sample.X, fraction, seed)
    if isinstance(sample.X, Batches):
        raise ValueError(
            "early_stopping=True cannot hold out samples if X has batches: pass X_val and y_val, "
            "or X_val with batches."
        )
    n_samples = sample.X.shape[0]
    strata = targets.strata(sample.y, fraction)
    groups = None if strata is None else (strata.tobytes(), strata.dtype.str, strata.ndim)
    split = _split if n_samples <= _FEW else _split.__wrapped__
    try:
        fit, held = split(n_samples, fraction, seed, groups)
    except ValueError as error:
        label, cure = None, "change it"
        if "too few members" in str(error):
            found, counts = np.unique(sample.y, return_counts=True)
            label = found[np.argmin(counts)]
            cure = f"add samples of class {label}"
        refused = HeldOutError(
            f"{str(error).rstrip('.')}. early_stopping=True holds out "
            f"validation_fraction={fraction} of {n_samples} samples: {cure}, or pass X_val and "
            "y_val."
        )
        refused.label = label
        raise refused from error
    if len(held) < 2:
        raise HeldOutError(
            "The validation set is too small. Increase 'validation_fraction' or the size of "
            "your dataset."
        )
    parts = sample.take(fit), sample.take(held)
    for part, what in zip(parts, ("to fit on", "held out"), strict=True):
        check_weights(part.weights, len(part.y), name=f"sample_weight of the samples {what}")
    if not isinstance(random_state, Integral):
        from sklearn.model_selection import train_test_split  # Import late, since it is slow.

        generator, rows = check_random_state(random_state), np.arange(n_samples)
        strata = strata if targets.kind == "binary" else None
        train_test_split(rows, test_size=fraction, random_state=generator, stratify=strata)
    return parts


def _split_stream(sample: Sample, X: Stream, fraction: float, seed: int) -> tuple[Sample, Sample]:
    """Split off the rows of a stream whose numbers have a small hash, and read them."""
    fit, held = X.hold_out(fraction, seed)
    if len(held) < 2 or not len(fit):
        raise HeldOutError(
            f"early_stopping=True holds out validation_fraction={fraction} of {len(sample.y)} "
            "samples, which are too few: pass X_val and y_val, or more samples."
        )
    return sample.take(fit), sample.take(held)._replace(X=X.take(held))


def refuse_without_held_out(params: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that need held-out samples."""
    for name, value in (("calibration", "temperature"), ("scoring", REFINEMENT)):
        # Check the type first: comparing an array would compare each element.
        if isinstance(params.get(name), str) and params[name] == value:
            raise ValueError(
                f"{name}={value!r} requires held-out samples: type early_stopping=True (which "
                "solver 'lbfgs' ignores), or fit(X, y, X_val=..., y_val=...)."
            )


# The split of small data is cached, since the models of a search often use the same split.
@functools.lru_cache(maxsize=64)
def _split(
    n_samples: int, fraction: float, seed: int, groups: tuple[bytes, str, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the training samples and of the held-out samples.

    ``groups`` are the groups to stratify by, as bytes, dtype and number of axes.
    """
    from sklearn.model_selection import train_test_split  # Import late, since it is slow.

    strata = None
    if groups is not None:
        values, dtype, n_axes = groups
        strata = np.frombuffer(values, dtype).reshape((n_samples, 1)[:n_axes])
    rows = np.arange(n_samples)
    fit, held = train_test_split(rows, test_size=fraction, random_state=seed, stratify=strata)
    return fit, held


def put_sample(
    trainer: Trainer, sample: Sample, targets: Targets, params: Mapping[str, Any], batch_size: Any
) -> Data:
    """Return the training data, either on the device or to be streamed there batch by batch."""
    if isinstance(sample.X, Batches):
        _check_pullbacks(trainer, targets.encode(sample.y[:_PROBED], trainer.dtype))
        return _place_batches(trainer, sample, targets, params.get("class_weight"))
    encoded = targets.encode(sample.y, trainer.dtype)
    _check_pullbacks(trainer, encoded)
    backend, rules, dtype = trainer.backend, trainer.rules, trainer.dtype
    stays_sparse = multiplies_sparse(backend, rules.network, trainer.scaling, rules.augmentation)
    data: Data
    if isinstance(sample.X, Stream):
        data = StreamedRows(backend, sample.X, encoded, dtype)
    else:
        placed = params["placement"]
        data = put_data(backend, sample.X, encoded, dtype, placed, multiplies_sparse=stays_sparse)
    if batch_size != "auto" and batch_size > data.n_samples:
        warn_caller(
            f"Got `batch_size` {batch_size} larger than the sample size {data.n_samples}. It "
            "is going to be clipped."
        )
    return data


def _place_batches(
    trainer: Trainer, sample: Sample, targets: Targets, class_weight: Any
) -> StreamedBatches:
    """Return the training data if X has batches; class weights are computed from all samples."""
    balance = targets.weigh(sample.y, None, class_weight)
    labels, first = np.unique(sample.y, return_index=True)
    if balance is not None and sample.y.ndim > 1:
        raise ValueError(
            "`class_weight` must be None if X has batches and y has several columns: yield the "
            "weights of each batch as its third part, (X, y, sample_weight)."
        )

    def read() -> Iterator[Triple]:
        for number, (x, y, weights) in enumerate(sample.X.read()):
            with in_batch(number):
                encoded = targets.encode(y, trainer.dtype)
            if balance is not None:
                class_weights = balance[first][np.searchsorted(labels, y)]
                weights = class_weights if weights is None else weights * class_weights
            yield x, encoded, weights

    has_weights = sample.weights is not None
    return StreamedBatches(trainer.backend, sample.X, read, trainer.dtype, has_weights=has_weights)


def _check_pullbacks(trainer: Trainer, targets: np.ndarray) -> None:
    """Check the gradients of the user's functions once, by finite differences on a few samples."""
    backend, network, loss = trainer.backend, trainer.rules.network, trainer.rules.loss
    functions = list(own_parts(network.activation))
    blocks = [*derived_blocks(network, trainer.learned)]
    if trainer.n_steps or not (functions or loss.is_own or blocks):
        return
    # Import only if needed.
    from mlp_xp.nn.gradient_check import check_activation, check_block, check_loss

    dtype = "float64" if backend.has_float64 else "float32"
    generator = np.random.default_rng(trainer.seed)
    rows = slice(0, _PROBED)
    with backend.scope():
        for function in functions:
            x = backend.put(generator.standard_normal((8, 4)), dtype)
            name = getattr(function, "__name__", repr(function))
            try:
                check_activation(function, x, xp=backend.xp, name=name)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{str(error).rstrip('.')}.{_builtin(function)}") from error
        for block, params, width in blocks:
            x = backend.put(generator.standard_normal((8, width)), trainer.dtype)
            keys = backend.put(np.zeros(network.n_keys, np.int32))
            with np.errstate(all="ignore"):  # The formula may suit only the data.
                check_block(block, params, x, keys, xp=backend.xp)
        if loss.is_own:
            is_real = targets.dtype.kind == "f"
            y = backend.put(targets[rows], dtype if is_real else None)
            logits = generator.standard_normal((y.shape[0], network.sizes[-1]))
            check_loss(loss, backend.put(logits, dtype), y, xp=backend.xp)


def _builtin(function: Any) -> str:
    """Return what to type for the built-in activation with a function's or module's name, or ""."""
    from mlp_xp._utils.names import nearest  # Import only for errors.

    name = nearest(getattr(function, "__name__", type(function).__name__), ACTIVATIONS)
    return f" For the built-in activation, type activation={name!r}." if name else ""
