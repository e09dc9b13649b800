"""Fit a model: check, encode, split and place the data, run the training loop, publish the result.

No stage before `begin` changes the model, so an error there leaves it as it was. All processes of a
distributed fit run the same stages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state

from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.threads import current_worker
from mlp_xp.backends import Backend, get_backend
from mlp_xp.estimators.checks.batches import check_training, check_validation, without_order
from mlp_xp.estimators.checks.processes import (
    advise_numba,
    describe_backend,
    describe_fit,
    processes_of,
)
from mlp_xp.estimators.checks.range import check_range
from mlp_xp.estimators.checks.validation import Sample, SampleArguments
from mlp_xp.estimators.fitted.groups import coverage_column
from mlp_xp.estimators.fitted.sklearn_overrides import check_overrides
from mlp_xp.estimators.fitted.state import FittedState, fitted_state, publish
from mlp_xp.estimators.fitting.baseline import warn_if_useless
from mlp_xp.estimators.fitting.draft import advance_generator, draft_of, undone_by_errors
from mlp_xp.estimators.fitting.network import Training, continue_state, new_state, trainer_for
from mlp_xp.estimators.fitting.reporting import Reporter, calibrate_network, publish_training
from mlp_xp.estimators.fitting.resuming import identity, newest_snapshot, with_snapshot
from mlp_xp.estimators.fitting.samples import put_sample, refuse_without_held_out, split_sample
from mlp_xp.estimators.settings.config import (
    LBFGS,
    TrainingConfig,
    check_params,
    resolve_config,
    resolve_layers,
    training_backend,
)
from mlp_xp.nn.hidden import Layer
from mlp_xp.training.data.placement import Data
from mlp_xp.training.data.rows import ReadAgain
from mlp_xp.training.loop.fit_loop import FitLoop
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.records import Record
from mlp_xp.training.loop.requests import Fit
from mlp_xp.training.loop.restart import RestartingLoop
from mlp_xp.training.processes import SingleProcess
from mlp_xp.training.trainer import Trainer

# With fewer held-out samples, their score differs by chance.
_LEAST_HELD_OUT = 150

if TYPE_CHECKING:  # Imported late, since few fits have held-out samples or checkpoints.
    from mlp_xp.estimators.fitting.validation_set import HeldOut
    from mlp_xp.training.checkpoints.snapshot import Snapshot


# --- from the arguments to a loop that is ready to run: each stage returns a new record -----------


class FitCall(NamedTuple):
    """A call of `fit` or `partial_fit`.

    If ``continues`` is true, training continues with the model's network, if it has one.
    ``classes`` are all class labels, if known; ``resume`` is a folder with checkpoints.
    """

    model: Any
    training: SampleArguments
    held_out: SampleArguments
    processes: SingleProcess
    continues: bool
    classes: Any = None
    resume: Any = None
    trainer_type: type[Trainer] = Trainer


class Checked(NamedTuple):
    """Valid parameters and samples.

    ``draft`` is a copy of the model with the attributes learned from X. ``state`` is the network to
    continue with, or None; ``snapshot`` is the checkpoint to resume from, or None.
    """

    call: FitCall
    draft: Any
    params: dict[str, Any]
    layers: tuple[int | Layer, ...]
    sample: Sample
    validation: Sample | None
    state: FittedState | None
    snapshot: Snapshot | None

    @property
    def columns(self) -> Any:
        """The encoding of a table's columns, or None."""
        return vars(self.draft).get("columns_")


class Encoded(NamedTuple):
    """The network before training, with the encoding of the targets, and the fit's settings."""

    checked: Checked
    state: FittedState
    config: TrainingConfig
    backend: Backend
    history: History


class Split(NamedTuple):
    """The samples to train on, with class weights, and the held-out samples or None."""

    encoded: Encoded
    state: FittedState
    sample: Sample
    validation: Sample | None


class Placed(NamedTuple):
    """The trainer, and the samples on its device."""

    split: Split
    trainer: Trainer
    data: Data
    held_out: HeldOut | None


class Ready(NamedTuple):
    """A loop that is ready to run."""

    placed: Placed
    loop: FitLoop


def check(call: FitCall) -> Checked:
    """Check the parameters, then the samples; find the network or checkpoint to continue from."""
    model, processes = call.model, call.processes
    check_overrides(model)
    draft = draft_of(model)
    params = {**draft._params(), **processes.overrides}
    check_params(params)
    layers = resolve_layers(params["hidden_layer_sizes"])
    kept = model if call.continues else None
    others = call.resume, call.training[2], *call.held_out
    processes.agree(partial(describe_fit, params, kept, *others))
    snapshot = state = None
    if call.resume is not None:
        snapshot = processes.first_of(partial(newest_snapshot, call.resume, params))
    if call.continues and snapshot is None and {"_state", "coefs_"} & vars(model).keys():
        state = fitted_state(draft)
    sample = check_training(draft, call.training, reset=state is None, processes=processes)
    validation = check_validation(draft, call.held_out, processes)
    coverage_column(draft)  # Raise an error before the fit.
    return Checked(call, draft, params, layers, sample, validation, state, snapshot)


def encode(checked: Checked) -> Encoded:
    """Encode the targets, resolve the settings, and create or continue the network."""
    call, params, sample, state = checked.call, checked.params, checked.sample, checked.state
    history, columns, n_features = History(), checked.columns, sample.X.shape[1]
    if state is None:
        output, is_sparse = params["output_activation"], sparse.issparse(call.training[1])
        settings: Any = {"output_activation": output, "is_sparse": is_sparse}
        targets = call.model._targets_type.learn(sample.y, classes=call.classes, **settings)
        layers, inputs = checked.layers, None if columns is None else columns.block
    else:
        targets, history = state.targets, History.read(vars(call.model))
        targets.check_known(sample.y, params["output_activation"], warm_start=call.model.warm_start)
        network, n_features = state.network, state.n_features
        layers, inputs = network.widths[1:-1], network.inputs
    config = resolve_config(params, n_features, targets, layers, inputs)
    targets.check_loss(sample.y, config.rules.loss)
    if checked.validation is not None:
        targets.check_loss(checked.validation.y, config.rules.loss, "y_val")
    backend = call.processes.spread(training_backend(params, sample.X))
    call.processes.agree(lambda: describe_backend(backend), advise_numba)
    if state is not None:
        if config.rules.loss != state.loss:
            history.best_loss = None  # Values of different losses are not comparable.
        state = continue_state(state, config, params)
    else:
        generator = params["random_state"]
        state = new_state(config, targets, backend, sample, generator, call.processes, columns)
        if checked.snapshot is not None:
            state = with_snapshot(state, checked.snapshot)
    return Encoded(checked, state, config, backend, history)


def split(encoded: Encoded) -> Split:
    """Hold out samples for early stopping, and learn what depends on the training targets."""
    checked, state, config = encoded.checked, encoded.state, encoded.config
    params, sample, validation = checked.params, checked.sample, checked.validation
    if config.loop.stops_by_score and validation is None:
        settings = params["validation_fraction"], state.seed, params["random_state"]
        sample, validation = split_sample(sample, state.targets, *settings)
    if validation is None:
        refuse_without_held_out(params)
    if checked.state is None:
        state = state.learning_from(sample.y, sample.weights, config.target_scaling)
    state = state.clipping(sample.y, clips=bool(params.get("clip_predictions")))
    weights = state.targets.weigh(sample.y, sample.weights, params.get("class_weight"))
    return Split(encoded, state, sample._replace(weights=weights), validation)


def place(split: Split) -> Placed:
    """Create the trainer, or take the last fit's trainer, and copy the samples to its device."""
    encoded, state, sample, validation = split.encoded, split.state, split.sample, split.validation
    checked, config = encoded.checked, encoded.config
    call, params = checked.call, checked.params
    processes, targets = call.processes, state.targets
    last = None if checked.state is None else call.model._training
    trainer = trainer_for(state, config, encoded.backend, last, processes, call.trainer_type)
    callbacks = params["callbacks"] or ()
    wants = processes.first(any(getattr(one, "wants_accuracy", False) for one in callbacks))
    trainer.want_accuracy(targets.classes is not None and wants)
    batch_size = params["batch_size"] if config.loop.max_fun is None else "auto"
    data = put_sample(trainer, sample, targets, params, batch_size)
    if validation is None:
        return Placed(split, trainer, data, None)
    if trainer.dtype == "float32":
        check_range(validation.X)
    from mlp_xp.estimators.fitting.validation_set import HeldOut

    # A scorer is called once before the first epoch, and may read the attributes of a fitted model.
    draft = draft_of(checked.draft)
    publish(draft, state, encoded.history)
    held_out = HeldOut(draft, params, trainer, targets, validation, sample.X, data)
    return Placed(split, trainer, data, held_out)


def make_loop(placed: Placed) -> Ready:
    """Create the loop, or restore the loop of a checkpoint."""
    split, trainer, encoded = placed.split, placed.trainer, placed.split.encoded
    checked, state, sample = encoded.checked, split.state, split.sample
    last = None if checked.state is None else checked.call.model._training
    # Checkpoints identify the fit by unstandardized targets, since other machines may round the
    # mean and standard deviation differently.
    whole = without_order(checked.sample)
    targets = partial(state.targets.plain.encode, whole.y, trainer.dtype)
    loop = _loop_type(split)(
        trainer,
        placed.data,
        encoded.config.loop,
        weights=sample.weights,
        validation=placed.held_out,
        history=encoded.history,
        position=state.position,
        best=getattr(last or state.progress, "best", None) or (),
        identity=partial(identity, checked.params, targets, whole.weights, state.columns),
    )
    if checked.snapshot is not None:
        from mlp_xp.training.checkpoints.snapshot import restore_snapshot

        restore_snapshot(loop, checked.snapshot)
    return Ready(placed, loop)


def _loop_type(split: Split) -> Callable[..., FitLoop]:
    """Return the class of loop: only new fits with enough held-out samples can restart."""
    encoded, checked, validation = split.encoded, split.encoded.checked, split.validation
    if encoded.config.loop.max_fun is not None:
        from mlp_xp.training.loop.lbfgs_loop import LbfgsLoop  # Few fits use L-BFGS.

        return LbfgsLoop
    is_new, can_restart = checked.state is None, checked.params["restart_factor"] is not None
    if not (is_new and can_restart) or validation is None or len(validation.y) < _LEAST_HELD_OUT:
        return FitLoop
    return partial(RestartingLoop, initial=(split.state.params, split.state.batch_stats))


def prepare(call: FitCall) -> Ready:
    """Run all stages before the loop; they change no estimator, so an error leaves it unchanged."""
    return make_loop(place(split(encode(check(call)))))


# --- the loop, and the fitted model ---------------------------------------------------------------


def begin(ready: Ready) -> None:
    """Set the model's untrained network and its column names."""
    placed = ready.placed
    checked, state = placed.split.encoded.checked, placed.split.state
    model, learned = checked.call.model, vars(checked.draft)
    if checked.state is None:
        vars(model).pop("feature_names_in_", None)
        if "feature_names_in_" in learned:
            model.feature_names_in_ = learned["feature_names_in_"]
    model._state, model._training = state, Training(ready.loop.trainer, ())
    if placed.held_out is not None:
        placed.held_out.model = model


def fit_requests(
    model: Any,
    start: float,
    training: SampleArguments,
    held_out: SampleArguments,
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
        with processes.sharing_errors():
            settings: Any = {"resume": resume, "trainer_type": trainer_type}
            call = FitCall(model, training, held_out, processes, model.warm_start, **settings)
            ready = prepare(call)
            split, loop = ready.placed.split, ready.loop
            targets, sample = split.state.targets, split.sample
            reporter_type: type[Reporter] = Reporter
            if not processes.is_single:
                from mlp_xp.estimators.fitting.rank_zero import RankZeroReporter

                reporter_type = RankZeroReporter
            if isinstance(sample.X, ReadAgain):
                training = sample.X, None, None
            with undone_by_errors(model):
                begin(ready)
                reporter = reporter_type(model, loop, training, processes)
                is_interrupted = stack.enter_context(reporter.fit())
                loop_settings = reporter.settings()
            advance_generator(model, split.encoded.checked.params["random_state"])
            del call, ready, split  # Free the last fit's trainer.
        try:
            yield from loop.run(start, loop_settings, reporter, is_interrupted)
        finally:
            reporter.publish()
            _draw_epochs(model, model.history_[len(model.history_) - model.n_iter_ :])
        calibrate_network(model, loop)
        is_over = is_interrupted() and current_worker() is None
        reporter.end_fit()
        warn_if_useless(model, loop, targets, sample)
    return is_over and processes.is_first


def partial_fit_requests(
    model: Any, training: SampleArguments, held_out: SampleArguments, classes: Any = None
) -> Fit[None]:
    """Train a model for one epoch, without calling callbacks."""
    processes = processes_of(model.distributed)
    with processes.fitting():
        with processes.sharing_errors():
            call = FitCall(model, training, held_out, processes, continues=True, classes=classes)
            ready = prepare(call)
            begin(ready)
            loop, params = ready.loop, ready.placed.split.encoded.checked.params
            if loop.validation is not None:  # A scorer may read the attributes.
                publish(model, model._state, loop.history)
            advance_generator(model, params["random_state"])
            del call, ready
        with interrupts() as is_pressed:
            is_interrupted = processes.asking_first(is_pressed)
            try:
                yield from loop.run_epoch(is_interrupted)
            finally:
                publish_training(model, loop, get_backend(training[0]))
                _draw_epochs(model, model.history_[-1:])
            calibrate_network(model, loop)
            is_over = is_interrupted()
    if is_over:  # Ctrl-C must end the caller's loop.
        raise KeyboardInterrupt


def _draw_epochs(model: Any, epochs: Sequence[Record]) -> None:
    """Advance the model's random generator as if scikit-learn had shuffled these epochs."""
    is_drawn = model.shuffle and model.solver != LBFGS
    if epochs and is_drawn and not isinstance(model.random_state, Integral):
        generator = check_random_state(model.random_state)
        rows = np.zeros(epochs[0].n_samples, np.int8)
        for _ in epochs:  # The generator's final state depends only on the number of rows.
            generator.shuffle(rows)
