"""Fit a model: check, encode and split the data, run the training loop, and publish the result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state

from mlp_xp._utils.random import RandomState
from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.threads import current_worker
from mlp_xp.backends import get_backend
from mlp_xp.estimators.checks.batches import check_training, check_validation, without_order
from mlp_xp.estimators.checks.processes import (
    advise_numba,
    describe_backend,
    describe_fit,
    processes_of,
)
from mlp_xp.estimators.checks.range import check_range
from mlp_xp.estimators.checks.validation import Given, Sample
from mlp_xp.estimators.fitted.sklearn_overrides import check_overrides
from mlp_xp.estimators.fitted.state import fitted_state, publish
from mlp_xp.estimators.fitting.baseline import warn_if_useless
from mlp_xp.estimators.fitting.network import Training, continue_state, new_state, trainer_for
from mlp_xp.estimators.fitting.reporting import Reporter, publish_training, set_temperature
from mlp_xp.estimators.fitting.resuming import identity, newest_snapshot, with_snapshot
from mlp_xp.estimators.fitting.samples import place_sample, refuse_without_held_out, split_sample
from mlp_xp.estimators.settings.config import (
    LBFGS,
    check_params,
    resolve_config,
    resolve_layers,
    training_backend,
)
from mlp_xp.estimators.targets import Targets
from mlp_xp.training.data.rows import Batches
from mlp_xp.training.loop.fit_loop import FitLoop
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.records import Record
from mlp_xp.training.loop.requests import Fit
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.trainer import Trainer


def fit_requests(
    model: Any,
    start: float,
    given: Given,
    held_out: Given,
    *,
    resume: Any = None,
    trainer_type: type[Trainer] = Trainer,
) -> Fit[bool]:
    """Fit a model; return True if this process should warn that Ctrl-C ended the fit.

    ``start`` is the `time.perf_counter()` value from which `max_time` counts; ``resume`` is the
    folder with checkpoints of this fit.
    """
    processes = processes_of(model.distributed)
    with processes.fitting(), contextlib.ExitStack() as stack:
        with unchanged_by_errors(model), processes.sharing_errors():
            options: Any = {"continues": model.warm_start, "resume": resume}
            options |= {"trainer_type": trainer_type, "processes": processes}
            loop, targets, sample = _prepare(model, given, held_out, **options)
            reporter_type: type[Reporter] = Reporter
            if not processes.is_single:
                from mlp_xp.estimators.fitting.rank_zero import RankZeroReporter

                reporter_type = RankZeroReporter
            if isinstance(sample.X, Batches):
                given = sample.X, None, None
            reporter = reporter_type(model, loop, given, processes)
            is_interrupted = stack.enter_context(reporter.fit())
            settings = reporter.settings()
        try:
            yield from loop.run(start, settings, reporter, is_interrupted)
        finally:
            reporter.publish()
            _draw_epochs(model, model.history_[len(model.history_) - model.n_iter_ :])
        set_temperature(model, loop)
        is_over = is_interrupted() and current_worker() is None
        reporter.end_fit()
        warn_if_useless(model, loop, targets, sample)
    return is_over and processes.is_first


def partial_fit_requests(
    model: Any, given: Given, held_out: Given, classes: Any = None
) -> Fit[None]:
    """Train a model for one epoch, without calling callbacks."""
    processes = processes_of(model.distributed)
    with processes.fitting():
        with unchanged_by_errors(model), processes.sharing_errors():
            options: Any = {"continues": True, "classes": classes, "processes": processes}
            loop, _, _ = _prepare(model, given, held_out, **options)
        with interrupts() as is_pressed:
            is_interrupted = processes.asking_first(is_pressed)
            try:
                yield from loop.run_epoch(is_interrupted)
            finally:
                publish_training(model, loop, get_backend(given[0]))
                _draw_epochs(model, model.history_[-1:])
            set_temperature(model, loop)
            is_over = is_interrupted()
    if is_over:  # Ctrl-C must end the caller's loop.
        raise KeyboardInterrupt


def _prepare(
    model: Any,
    given: Given,
    held_out: Given,
    *,
    continues: bool,
    classes: Any = None,
    resume: Any = None,
    trainer_type: type[Trainer] = Trainer,
    processes: SingleProcess,
) -> tuple[FitLoop, Targets, Sample]:
    """Check parameters and samples, copy them to the device, and publish the untrained network.

    If ``continues``, training continues with the existing network. All processes prepare the same
    fit. Return the loop, ready to start, the targets and the training samples.
    """
    # Check the parameters, then the samples.
    check_overrides(model)
    params = {**model._params(), **processes.overrides}
    check_params(params)
    layers = resolve_layers(params["hidden_layer_sizes"])
    kept = model if continues else None
    processes.agree(partial(describe_fit, params, kept, resume, given[2], *held_out))
    snapshot = None
    if resume is not None:
        snapshot = processes.first_of(partial(newest_snapshot, resume, params))
    continues = continues and snapshot is None
    state = fitted_state(model) if continues and {"_state", "coefs_"} & vars(model).keys() else None
    is_new = state is None
    sample = check_training(model, given, reset=is_new, processes=processes)
    whole, validation = without_order(sample), check_validation(model, held_out, processes)

    # Encode the targets, and create or continue the network.
    history, columns, n_features = History(), vars(model).get("columns_"), sample.X.shape[1]
    if state is None:
        output, is_sparse = params["output_activation"], sparse.issparse(given[1])
        settings: Any = {"output_activation": output, "is_sparse": is_sparse}
        targets = model._targets_type.learn(sample.y, classes=classes, **settings)
        inputs = None if columns is None else columns.block
    else:
        targets, history = state.targets, History.read(vars(model))
        targets.check_known(sample.y, params["output_activation"], warm_start=model.warm_start)
        network, n_features = state.network, state.n_features
        layers, inputs = network.widths[1:-1], network.inputs
    config = resolve_config(params, n_features, targets, layers, inputs)
    targets.check_loss(sample.y, config.rules.loss)
    if validation is not None:
        targets.check_loss(validation.y, config.rules.loss, "y_val")
    backend = processes.spread(training_backend(params, sample.X))
    processes.agree(lambda: describe_backend(backend), advise_numba)
    if state is not None:
        if config.rules.loss != state.loss:
            history.best_loss = None  # Values of different losses are not comparable.
        state = continue_state(state, config, params)
    else:
        state = new_state(
            config, targets, backend, sample, params["random_state"], processes, columns
        )
        model._training = None
        if snapshot is not None:
            state = with_snapshot(state, snapshot)

    # Split the samples into training and held-out samples.
    if config.loop.stops_by_score and validation is None:
        split = params["validation_fraction"], state.seed, params["random_state"]
        sample, validation = split_sample(sample, targets, *split)
    if validation is None:
        refuse_without_held_out(params)
    if is_new:
        state = state.learning_from(sample.y, sample.weights, config.target_scaling)
    state = state.clipping(sample.y, clips=bool(params.get("clip_predictions")))
    targets = state.targets
    weights = targets.weigh(sample.y, sample.weights, params.get("class_weight"))
    if state is not vars(model).get("_state"):
        publish(model, state, history)  # Scorers and callbacks read the model's attributes.

    # Prepare the trainer, its data on the device, and the loop.
    sample = sample._replace(weights=weights)
    last: Training | None = model._training
    trainer = trainer_for(state, config, backend, last, processes, trainer_type)
    callbacks = params["callbacks"] or ()
    wants = processes.first(any(getattr(call, "wants_accuracy", False) for call in callbacks))
    trainer.want_accuracy(targets.classes is not None and wants)
    batch_size = params["batch_size"] if config.loop.max_fun is None else "auto"
    data = place_sample(trainer, sample, targets, params, batch_size)
    model._training = Training(trainer, ())
    measured = None
    if validation is not None:
        if trainer.dtype == "float32":
            check_range(validation.X)
        from mlp_xp.estimators.fitting.validation_set import HeldOut

        measured = HeldOut(model, params, trainer, targets, validation, sample.X, data)
    # Checkpoints identify the fit by unstandardized targets, since other machines may round the
    # mean and standard deviation differently.
    encode = partial(targets.plain.encode, whole.y, trainer.dtype)
    loop = FitLoop(
        trainer,
        data,
        config.loop,
        weights=weights,
        validation=measured,
        history=history,
        position=state.position,
        best=getattr(last or state.progress, "best", None) or (),
        identity=partial(identity, params, encode, whole.weights, state.columns),
    )
    if snapshot is not None:
        from mlp_xp.training.checkpoints.snapshot import restore_snapshot

        restore_snapshot(loop, snapshot)
    return loop, targets, sample


@contextlib.contextmanager
def unchanged_by_errors(model: Any) -> Iterator[None]:
    """Undo all changes to a model if the preparation of a fit fails."""
    attributes = dict(vars(model))
    generator = model.random_state if isinstance(model.random_state, RandomState) else None
    position: Any = None if generator is None else generator.get_state()
    try:
        yield
    except BaseException:
        # Keep the attributes of scikit-learn's callbacks, which scikit-learn removes itself.
        theirs = {name: value for name, value in vars(model).items() if "_callback" in name}
        vars(model).clear()
        vars(model).update(theirs | attributes)
        if generator is not None:
            generator.set_state(position)
        raise


def _draw_epochs(model: Any, epochs: Sequence[Record]) -> None:
    """Advance the model's random generator as if scikit-learn had shuffled these epochs."""
    is_drawn = model.shuffle and model.solver != LBFGS
    if epochs and is_drawn and not isinstance(model.random_state, Integral):
        generator = check_random_state(model.random_state)
        rows = np.zeros(epochs[0].n_samples, np.int8)
        for _ in epochs:  # The generator's final state depends only on the number of rows.
            generator.shuffle(rows)
