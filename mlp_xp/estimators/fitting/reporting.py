"""Report the progress of a fit in fitted attributes and to callbacks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends import Backend, get_backend
from mlp_xp.estimators.fitted.groups import coverage_column
from mlp_xp.estimators.fitted.state import publish
from mlp_xp.estimators.fitting.network import Training
from mlp_xp.estimators.settings.config import resolve_loop
from mlp_xp.training.data.rows import View
from mlp_xp.training.inference.inference import put_writable
from mlp_xp.training.loop.fit_loop import FitLoop
from mlp_xp.training.loop.loop_settings import LoopSettings, epochs_after_restart
from mlp_xp.training.loop.records import Record, Running
from mlp_xp.training.processes import SingleProcess

if TYPE_CHECKING:  # Imported late, since few fits have checkpoints.
    from mlp_xp.training.checkpoints.snapshot import Snapshot

_REPORT_SECONDS = 0.1  # Seconds between two progress reports.


def publish_training(model: Any, loop: FitLoop, to: Backend) -> None:
    """Set a model's fitted attributes to the current state of the fit, in arrays of a backend."""
    learned = map_leaves(lambda leaf: put_writable(leaf, to), loop.learned())
    # Training has checked that the weights are finite.
    state = model._state.with_weights(
        *learned,
        position=loop.position,
        progress=None,
        is_checked=True,
        calibration=None,
        coverage_by=None,
        temperature=None,
    )
    publish(model, state, loop.history)
    model._training = Training(loop.trainer, learned, loop.best, loop.plateau.is_over)


def calibrate_network(model: Any, loop: FitLoop) -> None:
    """Calibrate a published network with the held-out samples, if requested."""
    held_out: Any = loop.validation
    if getattr(model, "calibration", None) is not None:
        model._state = replace(model._state, temperature=held_out.temperature())
    requested = [getattr(model, f"prediction_{name}", None) for name in ("intervals", "sets")]
    if any(requested) and held_out is not None:
        column = coverage_column(model)
        calibration = held_out.conformal(model._state.temperature, column)
        position = column if column is None or calibration is None else column.position
        model._state = replace(model._state, calibration=calibration, coverage_by=position)


class Pause(NamedTuple):
    """A point in a fit, between two steps, at which the training state can be saved.

    ``epoch`` is the number of finished epochs, ``step`` is the number of finished steps in the
    current epoch, and ``n_steps`` is the number of steps in all fits. If ``is_interrupted``, Ctrl-C
    ends the fit now. ``take()`` returns the current `Snapshot` and updates the model.
    """

    epoch: int
    step: int
    n_steps: int
    is_interrupted: bool
    take: Callable[[], Snapshot]


class Reporter:
    """The reporter of a fit: it calls callbacks, and publishes weights in the library of X."""

    def __init__(
        self, model: Any, loop: FitLoop, given: tuple[Any, Any, Any], processes: SingleProcess
    ) -> None:
        self._processes = processes
        self._model = model
        self._loop = loop
        X, y, weights = given
        self._to = get_backend(X.x if isinstance(X, View) else X)
        self._details = {"X": X, "y": y, "metadata": {"sample_weight": weights}}
        self._callbacks = list(model.callbacks or ())
        self._step_hooks = self._hooks("on_step_end")
        self.watches_steps = bool(self._step_hooks)
        self._progress_hooks, self._report_at = self._hooks("on_progress"), 0.0
        self._pause_hooks = self._hooks("on_pause")
        self.watches_pauses = bool(self._pause_hooks)
        self.watches_epochs = bool(self._callbacks or getattr(model, "_skl_callbacks", None))

    def _hooks(self, name: str) -> list[Callable[..., Any]]:
        """Return the callbacks' methods with this name, except methods that do nothing."""
        hooks = [getattr(call, name) for call in self._callbacks if hasattr(call, name)]
        return [hook for hook in hooks if not getattr(hook, "does_nothing", False)]

    def publish(self) -> None:
        """Set the fitted attributes to the current state of the fit."""
        publish_training(self._model, self._loop, self._to)

    @contextlib.contextmanager
    def fit(self) -> Iterator[Callable[[], bool]]:
        """Report the start and end of a fit to callbacks; yield a function to check for Ctrl-C.

        If an error occurs before the first epoch, the trainer is unchanged.
        """
        model = self._model
        self._begin()
        most = model.max_iter
        if model.restart_factor is not None:
            most += epochs_after_restart(most)
        self._context = model._init_callback_context(max_subtasks=most)
        self._context.call_on_fit_task_begin(estimator=model, **self._details)
        with interrupts() as is_pressed, contextlib.ExitStack() as stack:
            for callback in self._callbacks:
                if hasattr(callback, "on_fit_end"):
                    stack.callback(callback.on_fit_end, model)
                if self._loop.is_resumed and hasattr(callback, "on_fit_resume"):
                    callback.on_fit_resume(model)
                elif hasattr(callback, "on_fit_begin"):
                    callback.on_fit_begin(model)
            yield is_pressed

    def _begin(self) -> None:
        """Start the loop, and publish the network."""
        model, backend = self._model, self._loop.trainer.backend
        self._loop.begin()
        if self._to == backend and not backend.donates:
            self.publish()  # Publish the trainer's arrays without a copy.
        else:
            publish(model, model._state, self._loop.history)

    def settings(self) -> LoopSettings:
        """Return the loop's settings, which callbacks may have changed at the start."""
        return resolve_loop(self._model._params())

    def begin_epoch(self) -> None:
        """Report to scikit-learn's callbacks that an epoch begins."""
        self._task = self._context.subcontext(task_name="epoch")
        self._task.call_on_fit_task_begin(estimator=self._model, **self._details)

    def end_step(self, done: int, n_steps: int) -> bool:
        """Report a step to every callback; return whether a callback ends the fit."""
        asked = [bool(hook(self._model, done, n_steps)) for hook in self._step_hooks]
        return any(asked)

    def report(self, done: int, n_steps: int, running: Running | None) -> None:
        """Report the progress of an epoch to every callback, at most ten times a second."""
        if self._progress_hooks and (time.perf_counter() >= self._report_at or done == n_steps):
            self._report_at = time.perf_counter() + _REPORT_SECONDS
            for hook in self._progress_hooks:
                hook(self._model, done, n_steps, running)

    def pause(self, step: int, is_interrupted: bool) -> None:
        """Report to every callback that the training state can be saved now."""
        trainer, take = self._loop.trainer, partial(self._snapshot, step)
        pause = Pause(trainer.n_epochs, step, trainer.n_steps + step, is_interrupted, take)
        for hook in self._pause_hooks:
            hook(self._model, pause)

    def _snapshot(self, step: int) -> Snapshot:
        """Return a snapshot, and publish the same weights."""
        from mlp_xp.training.checkpoints.snapshot import take_snapshot

        snapshot = take_snapshot(self._loop, step)
        self.publish()
        return snapshot

    def end_epoch(self, record: Record) -> bool:
        """Report an epoch to every callback; return whether a callback ends the fit."""
        if self.watches_epochs:
            self.publish()
        asked = [bool(hook(self._model, record)) for hook in self._hooks("on_epoch_end")]
        return self._end_task(self._task) or any(asked)

    def end_fit(self) -> None:
        """Report to scikit-learn's callbacks that the fit has ended."""
        self._end_task(self._context)

    def _end_task(self, task: Any) -> bool:
        return bool(
            task.call_on_fit_task_end(
                estimator=self._model,
                reconstruction_attributes=self._fitted_attributes,
                **self._details,
            )
        )

    def _fitted_attributes(self) -> dict[str, Any]:
        """Return the attributes that turn an unfitted estimator into a copy of the model."""
        params = self._model.get_params(deep=False)
        attributes = vars(self._model).items()
        left_out = params.keys() | {"_state"}
        kept = {k: v for k, v in attributes if k not in left_out and "callback" not in k}
        # The state comes last, so that setting the other attributes does not change it.
        return kept | {"_training": None, "_state": self._model._state}
