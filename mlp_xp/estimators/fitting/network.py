"""Create or continue the network of a fit, and create its trainer."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from mlp_xp._utils.random import seeded
from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend, get_backend, to_numpy
from mlp_xp.estimators.checks.validation import Sample
from mlp_xp.estimators.fitted.device_cache import are_same, put_leaves
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.estimators.settings.config import TrainingConfig, resolve_dtype, resolve_layers
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.entries import entries
from mlp_xp.nn.layers import Embedding
from mlp_xp.nn.network import Network, Params, adapt_params, init_batch_stats, init_params
from mlp_xp.training.data.input_scaling import find_scaling
from mlp_xp.training.data.rows import Shard, take_rows
from mlp_xp.training.data.streams import Stream
from mlp_xp.training.loop.records import ResumeState
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.trainer import Trainer

if TYPE_CHECKING:
    from mlp_xp.estimators.tables.columns import TableColumns

# The maximum number of rows used to adapt initial weights.
_MOST_ROWS = 4096
_NOISE = 64.0  # Values differ by rounding only if they differ by fewer epsilons times their terms.
# Network settings that may change when training continues.
_OF_A_STEP = "activation", "dropout", "input_dropout"


class Training(NamedTuple):
    """A trainer kept for the next fit, and the weights and batch statistics last published from it.

    With early stopping, ``best`` has the weights and batch statistics that had the best validation
    score. If ``is_at_plateau``, the last `n_iter_no_change` epochs brought no improvement.
    """

    trainer: Trainer
    published: Any
    best: Any = None
    is_at_plateau: bool = False

    def progress(self) -> ResumeState:
        """Return the training state that a later fit needs besides the weights, in host memory."""
        best = map_leaves(lambda leaf: np.array(to_numpy(leaf)), self.best or ())
        return self.trainer.progress()._replace(best=best)


def new_state(
    config: TrainingConfig,
    targets: Targets,
    backend: Backend,
    sample: Sample,
    random_state: Any,
    processes: SingleProcess,
    columns: TableColumns | None = None,
) -> FittedState:
    """Return the state before training: the network, its initial weights and the input scaling."""
    X, dtype = sample.X, resolve_dtype(config, backend, sample.X)
    network = config.rules.network
    # The same seed gives the same initial weights as in scikit-learn.
    is_seed = isinstance(random_state, Integral)
    if is_seed:
        generator = seeded(int(random_state))
    else:
        is_theirs = random_state is None and not processes.is_first  # Keep their own `np.random`.
        generator = np.random.RandomState() if is_theirs else check_random_state(random_state)
        if not processes.is_single:
            generator.set_state(processes.first(generator.get_state(legacy=False)))
    start = init_params(network, generator), init_batch_stats(network)
    untrained = [] if columns is None else columns.untrained_codes
    for entry in entries(start[0]) if untrained else ():
        # Zero the rows that are never trained; 0 is the mean of the initial distribution.
        if isinstance(entry, Embedding):
            table: Any = entry.table
            table[..., untrained, :] = 0.0
    params, batch_stats = map_leaves(lambda leaf: leaf.astype(dtype), start)
    # Draw from a copy, so that the generator's state is the same as after a scikit-learn fit.
    seed = int(random_state if is_seed else copy.deepcopy(generator).randint(2**31 - 1))
    state = FittedState(
        network,
        config.rules.loss,
        config.output,
        targets,
        n_features=X.shape[1],
        input_scaling=config.input_scaling,
        dtype=dtype,
        seed=seed,
        params=params,
        batch_stats=batch_stats,
        is_checked=True,
        columns=columns,
    )
    X = X.x if isinstance(X, Stream) else X  # Some rows are enough.
    if state.step_scaling is not None:
        x, exchange = (X.mine, processes.exchange) if isinstance(X, Shard) else (X, None)
        scaling = find_scaling(state.step_scaling, backend, x, dtype, exchange)
        state = replace(state, scaling=scaling)
    if not network.adapts:
        return state
    params = _adapt_to_data(state, start[0], X, generator, processes)
    return replace(state, params=map_leaves(lambda leaf: leaf.astype(dtype), params))


def _adapt_to_data(
    state: FittedState,
    params: Params,
    X: Any,
    generator: np.random.RandomState,
    processes: SingleProcess,
) -> Params:
    """Return initial weights adapted to a subset of the samples."""
    if isinstance(X, Shard):
        x = np.concatenate(processes.exchange(_some_rows(X.mine, _MOST_ROWS // processes.size)))
    else:
        x = _some_rows(X, _MOST_ROWS)
    if state.scaling is not None:
        shift, scale, *rotation = (to_numpy(leaf).astype(np.float64) for leaf in state.scaling)
        x = (x - shift) * scale
        x = _without_noise(x, rotation[0], state.dtype) if rotation else x
    # All processes use the first process's weights, since different CPUs may round differently.
    adapt: Any = partial(adapt_params, xp=get_backend("numpy").xp)
    return processes.first_of(partial(adapt, state.network, params, x, generator.uniform))


def _without_noise(x: np.ndarray, rotation: np.ndarray, dtype: str) -> np.ndarray:
    """Return ``x @ rotation``, with equal values where a column's values differ by rounding only.

    Layers that divide a column at its values would otherwise divide it between such values, and
    each backend would round a sample to another side.
    """
    rotated = x @ rotation
    noise = _NOISE * np.finfo(dtype).eps * np.mean(np.abs(x) @ np.abs(rotation), axis=0)
    order = np.argsort(rotated, axis=0, kind="stable")
    ordered = np.take_along_axis(rotated, order, axis=0)
    is_first = np.diff(ordered, axis=0, prepend=-np.inf) > noise
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(x))[:, None], 0), axis=0)
    np.put_along_axis(rotated, order, np.take_along_axis(ordered, first, axis=0), axis=0)
    return rotated


def _some_rows(X: Any, most: int) -> np.ndarray:
    """Return evenly spaced rows of X in float64."""
    rows = np.linspace(0, X.shape[0] - 1, min(X.shape[0], most)).astype(np.int64)
    return to_numpy(take_rows(X, rows)).astype(np.float64)


def continue_state(
    state: FittedState, config: TrainingConfig, params: dict[str, Any]
) -> FittedState:
    """Return the state with new settings; raise ValueError if the settings need a new network."""
    kept = state.network.widths[1:-1]
    if resolve_layers(params["hidden_layer_sizes"]) != kept:
        warn_caller(
            f"hidden_layer_sizes is now {params['hidden_layer_sizes']!r}, but the fit "
            f"continues with the network of {list(kept)}, as in scikit-learn: fit with "
            "warm_start=False to start a new one."
        )
    network = config.rules.network
    names = [field.name for field in reversed(fields(Network)) if field.name not in _OF_A_STEP]
    pairs = {name: (getattr(state.network, name), getattr(network, name)) for name in names}
    if config.dtype is not None:
        pairs["precision"] = state.dtype, config.dtype
    pairs["input_scaling"] = state.input_scaling, config.input_scaling
    pairs["target_scaling"] = state.target_scaling, config.target_scaling
    learned = {} if state.columns is None else state.columns.settings
    pairs |= {name: (old, np.asarray(params[name]).tolist()) for name, old in learned.items()}
    if state.activating_loss is state.loss:
        pairs["out_activation_"] = state.output, config.output
    for name, (old, new) in pairs.items():
        if old != new:
            raise ValueError(
                f"The network to continue with has {name}={old!r}, but the settings now say "
                f"{new!r}: fit with warm_start=False to start a new one."
            )
    if state.activating_loss is not state.loss:
        raise ValueError(
            f"out_activation_ was changed to {state.output!r}, but the network was trained for "
            f"{state.loss!r}: restore it to continue training, or fit with output_activation=... "
            "and warm_start=False."
        )
    new = network, config.rules.loss, config.output
    if (state.network, state.loss, state.output) == new:
        return state
    return replace(state, network=network, loss=config.rules.loss, output=config.output)


def trainer_for(
    state: FittedState,
    config: TrainingConfig,
    backend: Backend,
    last: Training | None,
    processes: SingleProcess,
    trainer_type: type[Trainer] = Trainer,
) -> Trainer:
    """Return the last fit's trainer, with its compiled step, or a new trainer in the same state."""
    rules, weights = config.rules, (state.params, state.batch_stats)
    if last is not None and last.trainer.backend == backend and last.trainer.rules == rules:
        trainer = last.trainer
        # If the estimator has the trainer's arrays, do not copy them, unless the compiled step
        # donates the state's memory.
        is_own = _have_same_arrays(weights, (trainer.learned, trainer.state.batch_stats))
        # Training continues from the raw weights, not from the moving average that users see.
        is_average = rules.ema_decay is not None and _have_same_arrays(weights, last.published)
        if not is_average and (not is_own or backend.donates):
            trainer.set_learned(*weights)
        return trainer
    new = trainer_type(
        backend,
        rules,
        params=state.params,
        batch_stats=state.batch_stats,
        dtype=state.dtype,
        scaling=put_leaves(backend, state.scaling, state.dtype),
        seed=state.seed,
        processes=processes,
    )
    progress = state.progress if last is None else last.trainer.progress()
    if progress is not None:
        new.resume(progress)
    return new


def _have_same_arrays(tree: Any, other: Any) -> bool:
    """Whether two trees consist of the same array objects."""
    return are_same(leaves(tree), leaves(other))
