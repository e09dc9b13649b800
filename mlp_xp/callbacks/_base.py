"""The base class of callbacks.

To add a hook, add a method to `Callback`, its name to `_HOOKS` in
`mlp_xp.estimators.settings.config`, and its call to `Reporter` in
`mlp_xp.estimators.fitting.reporting`, whose methods `FitLoop` calls. A hook for a new moment also
needs a method of `Watcher` and its call, both in `mlp_xp.training.loop.fit_loop`.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

from mlp_xp.training.loop.records import Record, Running

F = TypeVar("F", bound=Callable[..., Any])


def _does_nothing(hook: F) -> F:
    """Mark a method that does nothing, so that a fit can skip it and run many steps at once."""
    hook.does_nothing = True  # type: ignore[attr-defined]
    return hook


class Callback:
    """Base class of callbacks: override the methods that you need.

    A `fit` calls the callbacks in the order of the estimator's parameter ``callbacks``. It does not
    copy the callbacks, so their attributes can be read afterwards. Cloning the estimator, as in a
    grid search, also clones its callbacks. A callback object can be used by only one fit at a time.
    `partial_fit` does not call callbacks.

    Attributes
    ----------
    wants_accuracy : bool, default=False
        Whether records include the training accuracy, which takes a little time at each step.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import Callback
    >>> class StopAt(Callback):
    ...     def __init__(self, loss):
    ...         self.loss = loss
    ...
    ...     def on_epoch_end(self, model, record):
    ...         return record.loss < self.loss
    >>> model = MLPClassifier(learning_rate_init=0.1, random_state=0, callbacks=[StopAt(0.1)])
    >>> bool(model.fit([[0.0], [1.0]], [0, 1]).loss_ < 0.1), model.n_iter_ < model.max_iter
    (True, True)
    """

    wants_accuracy: bool = False

    def __repr__(self) -> str:
        """Return the class and its non-default settings on one line."""
        shown = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            value = vars(self).get(name, parameter.default)
            if value is not parameter.default and value != parameter.default:
                shown.append(f"{name}={reprlib.repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def on_fit_begin(self, model: Any) -> None:
        """Prepare for a fit of `model`; ``model.max_iter`` is the planned number of epochs.

        ``model.max_time`` can still be set here; the time is counted from the call to `fit`.
        """

    def on_fit_resume(self, model: Any) -> None:
        """Prepare for the rest of a resumed fit; by default, call `on_fit_begin`."""
        self.on_fit_begin(model)

    @_does_nothing
    def on_progress(self, model: Any, done: int, n_steps: int, running: Running | None) -> None:
        """Report the progress of an epoch, at most ten times a second.

        `done` of the epoch's `n_steps` steps have been started. `running` has the epoch's average
        ``loss`` and ``accuracy`` so far; it is None until they are first read from the device.
        """

    @_does_nothing
    def on_step_end(self, model: Any, done: int, n_steps: int) -> bool | None:
        """Return True to end the fit after step `done` of the epoch's `n_steps`, counted from 1.

        The device may still be computing the step, and the model's weights are only updated after
        each epoch. Overriding this method makes a fit run its steps one by one; to show progress,
        `on_progress` is cheaper.
        """

    def on_epoch_end(self, model: Any, record: Record) -> bool | None:
        """Return True to end the fit after an epoch and its validation.

        `model` can predict with its current weights. `record` is the last entry of
        ``model.history_``.
        """

    def on_fit_end(self, model: Any) -> None:
        """Release resources, even after a fit that failed or was interrupted."""


class Live(Callback):
    """A callback that keeps a resource open during a fit; pickles and copies omit the resource."""

    _live: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_live"}


def expect(condition: bool, name: str, expected: str, given: Any) -> None:
    """Raise ValueError for a setting unless ``condition`` is true."""
    if not condition:
        raise ValueError(f"`{name}` must be {expected}, got {given!r}")
