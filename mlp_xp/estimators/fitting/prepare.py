"""The preparation of a fit: samples, a network to train, its trainer, and the loop."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state

from mlp_xp._utils.random import seeded
from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend, to_numpy
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.estimators.checks.processes import advise_numba, describe_backend, describe_params
from mlp_xp.estimators.fitted.sklearn_overrides import check_overrides
from mlp_xp.estimators.fitted.state import FittedState, fitted_state, publish
from mlp_xp.estimators.fitting.baseline import Baseline
from mlp_xp.estimators.fitting.generators import draw_split, peek_seed
from mlp_xp.estimators.fitting.samples import (
    Sample,
    check_held_out,
    check_sample,
    place_sample,
    split_sample,
)
from mlp_xp.estimators.settings.config import (
    REFINEMENT,
    TrainingConfig,
    check_params,
    resolve_config,
    resolve_dtype,
    resolve_layers,
    training_backend,
)
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.network import Network, init_batch_stats, init_params
from mlp_xp.training.data.input_scaling import find_scaling
from mlp_xp.training.data.rows import Shard
from mlp_xp.training.loop.fit_loop import FitLoop
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.records import ResumeState
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.trainer import Trainer

if TYPE_CHECKING:  # Imported late, since few fits are resumed.
    from mlp_xp.estimators.tables.columns import TableColumns
    from mlp_xp.training.checkpoints.snapshot import Snapshot

__all__ = [
    "Training",
    "continue_state",
    "new_state",
    "prepare_fit",
    "trainer_for",
]


class Training(NamedTuple):
    """A trainer, kept for the next fit, and the weights and statistics last published from it.

    ``best`` has the best score's, during a fit in which the score decides;
    ``is_at_plateau`` is whether nothing has improved for too long.
    """

    trainer: Trainer
    published: Any
    best: Any = None
    is_at_plateau: bool = False

    def progress(self) -> ResumeState:
        """Return what a later fit needs besides the weights, in host memory."""
        best = map_leaves(lambda leaf: np.array(to_numpy(leaf)), self.best or ())
        return self.trainer.progress()._replace(best=best)


def prepare_fit(
    model: Any,
    given: tuple[Any, Any, Any],
    held_out: tuple[Any, Any, Any],
    *,
    continues: bool,
    classes: Any = None,
    resume: Any = None,
    trainer_type: type[Trainer] = Trainer,
    processes: SingleProcess,
) -> tuple[FitLoop, Baseline]:
    """Check everything, copy it to the device, and publish the untrained network.

    ``given`` and ``held_out`` are X, y and sample_weight, the second None where no samples are
    given. ``continues`` trains the network that exists; ``resume`` is the folder with checkpoints
    of this fit. All processes prepare the same fit. The loop has not started.
    """
    check_overrides(model)
    params = {**model._params(), **processes.overrides}
    check_params(params)
    layers = resolve_layers(params["hidden_layer_sizes"])
    facts = partial(_facts, model, given, held_out, resume, continues)
    processes.agree(lambda: describe_params(params, facts()))
    snapshot: Snapshot | None = None
    if resume is not None:
        from mlp_xp.estimators.fitting.resuming import newest_snapshot

        snapshot = processes.first_of(partial(newest_snapshot, resume, params))
    continues = continues and snapshot is None
    state = fitted_state(model) if continues and {"_state", "coefs_"} & vars(model).keys() else None
    whole = sample = check_sample(model, *given, reset=state is None, processes=processes)
    validation = check_held_out(model, *held_out, processes)
    if state is None:
        targets = model._targets_type.learn(
            sample.y,
            classes=classes,
            output_activation=params["output_activation"],
            is_sparse=sparse.issparse(given[1]),
        )
        columns = vars(model).get("columns_")
        inputs = None if columns is None else columns.block
        n_features, history = sample.X.shape[1], History()
        config = resolve_config(params, n_features, targets, layers, inputs)
    else:
        targets, history = state.targets, History.read(vars(model))
        targets.check_known(sample.y, params["output_activation"], warm_start=model.warm_start)
        kept = state.network.widths[1:-1]
        config = resolve_config(params, state.n_features, targets, kept, state.network.inputs)
        if config.rules.loss != state.loss:
            history.best_loss = None  # From another loss, which is not compared with this one.
    targets.check_loss(sample.y, config.rules.loss)
    if validation is not None:
        targets.check_loss(validation.y, config.rules.loss, "y_val")
    backend = processes.spread(training_backend(params, sample.X))
    processes.agree(lambda: describe_backend(backend), advise_numba)
    if state is None:
        generator = params["random_state"]
        if not isinstance(generator, Integral):
            generator = processes.first_of(partial(check_random_state, generator))
        state = new_state(config, targets, backend, sample, generator, processes, columns)
        model._training = None
        if snapshot is not None:
            from mlp_xp.estimators.fitting.resuming import with_snapshot

            state = with_snapshot(state, snapshot)
        is_new = True
    else:
        is_new = False
        if layers != kept:
            warn_caller(
                f"hidden_layer_sizes is now {params['hidden_layer_sizes']!r}, but the fit "
                f"continues with the network of {list(kept)}, as in scikit-learn: fit with "
                "warm_start=False to start a new one."
            )
        state = continue_state(state, config, params)
    if config.loop.stops_by_score and validation is None:
        fraction = params["validation_fraction"]
        sample, validation = split_sample(sample, targets, fraction, state.seed)
        draw_split(params["random_state"], whole.y, fraction, targets)
    if validation is None:
        _refuse_without_held_out(params)
    if is_new:
        state = state.learning_from(sample.y, sample.weights, config.target_scaling)
    state = state.clipping(sample.y, clips=bool(params.get("clip_predictions")))
    targets = state.targets
    if state is not vars(model).get("_state"):
        publish(model, state, history)  # Scorers and callbacks see the network.
    training: Training | None = model._training
    weights = targets.weigh(sample.y, sample.weights, params.get("class_weight"))
    sample = sample._replace(weights=weights)
    trainer = trainer_for(state, config, backend, training, processes, trainer_type)
    callbacks = params["callbacks"] or ()
    wants = processes.first(any(getattr(call, "wants_accuracy", False) for call in callbacks))
    trainer.want_accuracy(targets.classes is not None and wants)
    data = place_sample(trainer, sample, targets, params["placement"], params["batch_size"])
    model._training = Training(trainer, ())
    measured = None
    if validation is not None:
        from mlp_xp.estimators.fitting.validation_set import (
            HeldOut,  # Many fits have no held-out samples.
        )

        measured = HeldOut(model, params, trainer, targets, validation, sample.X, data)
    if training is not None:
        best = training.best or ()
    else:
        best = () if state.progress is None else state.progress.best
    # Another machine may round statistics differently.
    encode = partial(targets.plain.encode, whole.y, trainer.dtype)
    loop = FitLoop(
        trainer,
        data,
        config.loop,
        weights=weights,
        validation=measured,
        history=history,
        position=state.position,
        best=best,
        identity=partial(_identity, params, encode, whole.weights, state.columns),
    )
    if snapshot is not None:
        from mlp_xp.estimators.fitting.resuming import restore

        restore(loop, snapshot)
    return loop, Baseline(targets, sample)


def _identity(*parts: Any) -> dict[str, str]:
    """Return the identity that a fit and its resumption share, for checkpoints."""
    from mlp_xp.estimators.fitting.resuming import identity

    return identity(*parts)


def _refuse_without_held_out(params: dict[str, Any]) -> None:
    """Raise ValueError for settings that need held-out samples."""
    for name, value in (("calibration", "temperature"), ("scoring", REFINEMENT)):
        # `is`, since comparing with an array would compare each element.
        if isinstance(params.get(name), str) and params[name] == value:
            raise ValueError(
                f"`{name}` is {value!r}, which needs held-out samples: type early_stopping=True "
                "(not with solver 'lbfgs', which ignores it), or fit(X, y, X_val=..., y_val=...)."
            )


def _facts(
    model: Any, given: tuple[Any, ...], held_out: tuple[Any, ...], resume: Any, continues: bool
) -> dict[str, Any]:
    """Return what processes must agree on besides parameters and samples."""
    state = vars(model).get("_state") if continues else None
    facts: dict[str, Any] = {
        "a fit to resume": resume is not None,
        "a network to continue with": state is not None,
    }
    if state is not None:
        facts["its biases"] = float(np.sum(to_numpy(state.arrays["intercepts_"][-1])))
    names = "sample_weight", "X_val", "y_val", "sample_weight_val"
    arrays = given[2], *held_out
    return facts | {n: "None" if a is None else "given" for n, a in zip(names, arrays, strict=True)}


def new_state(
    config: TrainingConfig,
    targets: Targets,
    backend: Backend,
    sample: Sample,
    random_state: Any,
    processes: SingleProcess,
    columns: TableColumns | None = None,
) -> FittedState:
    """Return a network with its initial weights, and the input scaling of the data."""
    X, dtype = sample.X, resolve_dtype(config, backend, sample.X)
    network, loss = config.rules.network, config.rules.loss
    # The same seed gives the same initial weights as in scikit-learn.
    is_seed = isinstance(random_state, Integral)
    generator = seeded(int(random_state)) if is_seed else check_random_state(random_state)
    start = init_params(network, generator), init_batch_stats(network)
    if columns is not None and columns.untrained_codes:
        from mlp_xp.estimators.fitting.adapting import clear_embeddings

        clear_embeddings(start[0], columns.untrained_codes)
    params, batch_stats = map_leaves(lambda leaf: leaf.astype(dtype), start)
    seed = int(random_state) if is_seed else peek_seed(generator)
    state = FittedState(
        network,
        loss,
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
    setting = state.step_scaling
    if setting is not None:
        state = replace(state, scaling=_scaling(setting, backend, X, dtype, processes))
    if not network.adapts:
        return state
    from mlp_xp.estimators.fitting.adapting import adapt_to_data  # Rarely needed.

    params = adapt_to_data(network, start[0], X, state.scaling, generator, processes)
    return replace(state, params=map_leaves(lambda leaf: leaf.astype(dtype), params))


def _scaling(
    setting: Any, backend: Backend, X: Any, dtype: str, processes: SingleProcess
) -> Scaling | Whitening:
    x, exchange = (X.mine, processes.exchange) if isinstance(X, Shard) else (X, None)
    return find_scaling(setting, backend, x, dtype, exchange)


# Fields of a network that can change without changing its weights.
_OF_A_STEP = "activation", "dropout", "input_dropout"


def continue_state(
    state: FittedState, config: TrainingConfig, params: dict[str, Any]
) -> FittedState:
    """Return the state with changed settings; raise ValueError if they need a new network."""
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
                f"The network to continue with has {name}={old!r}, and the settings now say "
                f"{new!r}: fit with warm_start=False to start a new one."
            )
    if state.activating_loss is not state.loss:
        raise ValueError(
            f"out_activation_ is {state.output!r}, which was assigned, and the network "
            f"was trained for {state.loss!r}: set it back to continue this fit, or fit with "
            "output_activation and warm_start=False."
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
    """Return the trainer of the last fit, with its compiled step, or one that continues from it."""
    rules, weights = config.rules, (state.params, state.batch_stats)
    trainer = None if last is None else last.trainer
    if last is not None and last.trainer.backend == backend and last.trainer.rules == rules:
        trainer = last.trainer
        # The estimator's arrays may be the trainer's, without a copy; but a compiled step takes
        # over the memory of its state, which must then be a copy.
        is_own = _have_same_arrays(weights, (trainer.learned, trainer.state.batch_stats))
        # Training does not continue from the published moving average.
        is_average = rules.ema_decay is not None and _have_same_arrays(weights, last.published)
        if not is_average and (not is_own or backend.donates):
            trainer.set_learned(*weights)
        return trainer
    scaling = None
    if state.scaling is not None:
        scaling = map_leaves(lambda leaf: backend.put(leaf, state.dtype), state.scaling)
    new = trainer_type(
        backend,
        rules,
        params=state.params,
        batch_stats=state.batch_stats,
        dtype=state.dtype,
        scaling=scaling,
        seed=state.seed,
        processes=processes,
    )
    progress = state.progress if trainer is None else trainer.progress()
    if progress is not None:
        new.resume(progress)
    return new


def _have_same_arrays(tree: Any, other: Any) -> bool:
    """Whether two trees have identical array objects."""
    mine, theirs = list(leaves(tree)), list(leaves(other))
    return len(mine) == len(theirs) and all(a is b for a, b in zip(mine, theirs, strict=True))
