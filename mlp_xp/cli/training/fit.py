"""Training with a progress bar, a deadline and checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mlp_xp.callbacks import Callback
from mlp_xp.cli.run_folder.folder import BeginRun
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.deadline import Deadline
from mlp_xp.cli.training.prepare import Prepared
from mlp_xp.cli.training.progress import Progress
from mlp_xp.cli.training.resume import Resume
from mlp_xp.cli.training.settings import create_callbacks
from mlp_xp.datasets import Dataset, split_dataset
from mlp_xp.datasets._own_data.columns import choose_columns, drop_option
from mlp_xp.estimators.fitting.baseline import USELESS
from mlp_xp.estimators.fitting.samples import HeldOutError
from mlp_xp.training.data.rows import some_rows
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.loop.history import kept_epoch


class Fitted(NamedTuple):
    """The outcome of a fit: the epoch whose network is kept, and why the fit ended.

    If ``is_early`` is true, the fit ended at a plateau of the loss or the validation score.
    ``text`` tells the user why the fit ended; it is empty if the fit used all its epochs or time
    and keeps the last network. ``cause`` tells why the fit diverged; it is empty otherwise. If
    ``is_useless``, a constant prediction has a lower training loss.
    ``has_views`` and ``has_report`` tell whether time is left for test-time augmentation and for
    the report. ``can_resume`` tells whether an interrupted fit can be resumed.
    """

    kept_epoch: int
    is_interrupted: bool
    is_early: bool
    text: str
    cause: str = ""
    is_useless: bool = False
    has_views: bool = True
    has_report: bool = True
    can_resume: bool = True


def ending_of(model: Any, *, is_interrupted: bool) -> Fitted:
    """Return how a model's training ended."""
    records = model.history_
    is_descent = model.solver != "lbfgs"
    by_score = model.early_stopping and is_descent
    scores = [record.validation_score for record in records]
    is_over = model._training is not None and model._training.is_at_plateau
    epochs = kept = len(records)
    if by_score and scores:
        kept = kept_epoch(scores, model.best_validation_score_)
    is_early = is_descent and not is_interrupted and 0 < epochs < model.max_iter and is_over
    text = ""
    if is_interrupted:
        text = f"interrupted in epoch {epochs}; "
    elif is_early:
        what = "validation score" if by_score else "loss"
        text = f"stopped early after epoch {epochs} of {model.max_iter}: the {what} did not improve"
        text += f" by more than {model.tol:g} (tol)" if model.tol else ""
        text += f" for {count_text(model.n_iter_no_change, 'epochs')}; "
    if text and kept == epochs:
        text += "the current network is kept"
    elif kept < epochs:
        text += f"the network of epoch {kept} is kept, the best on validation data"
    return Fitted(kept, is_interrupted, is_early, text)


def fit(
    prepared: Prepared,
    begin: BeginRun,
    resume: Resume,
    start: float,
    output: Output,
    pressed: Callable[[], bool],
) -> Fitted:
    """Train until the last epoch, Ctrl-C or the deadline, and display the progress.

    ``start`` is the `time.perf_counter()` value at the start of the command.
    """
    settings, data, model, task, _ = prepared
    end = None if model.max_time is None else start + model.max_time - resume.seconds
    progress = Progress(output, task, model, len(data.x_train), end, settings.n_before)
    deadline = Deadline(end, data.x_train, len(data.x_test), resume.seconds, progress.stage)
    with closing(progress):
        own = create_callbacks(settings, begin.folder, model)
        callbacks = [begin, deadline, progress, *own]
        diverged, is_useless = fit_model(prepared, callbacks, resume)
        fitted = ending_of(model, is_interrupted=pressed())
        progress.is_done = diverged is None and not fitted.is_interrupted
    cause = str(diverged or "").replace("learning_rate_init", "--learning-rate")
    has_views, has_report = deadline.has_views, deadline.has_report
    fitted = fitted._replace(cause=cause, is_useless=is_useless)
    return fitted._replace(has_views=has_views, has_report=has_report)


def fit_model(
    prepared: Prepared, callbacks: list[Callback], resume: Resume
) -> tuple[NonFiniteError | None, bool]:
    """Train until the last epoch, Ctrl-C or the deadline.

    Return the error if training diverged, and whether the fit warned that it is useless.
    """
    model, data = prepared.model, prepared.data
    x, y, validation_set = _validation_split(data, prepared.settings.validation, model.random_state)
    own = {name: getattr(model, name) for name in ("max_iter", "max_time", "warm_start")}
    model.set_params(callbacks=callbacks, warm_start=resume.network is not None)
    model.set_params(max_iter=model.max_iter - prepared.settings.n_before)
    is_useless = False

    def show(message: Warning | str, *_: Any) -> None:
        nonlocal is_useless
        if str(message).startswith(USELESS):
            is_useless = True  # The test data are needed to print more.
        else:
            print_note(message)

    try:
        with warnings.catch_warnings():
            # The user chose the number of epochs, so a warning that it is too low is unwanted.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # `ending_of` reports the interruption.
            warnings.filterwarnings("ignore", "Training interrupted by user")
            # `choose_columns` has already printed notes about columns.
            warnings.filterwarnings("ignore", r"Left out as inputs|X\[:, ")
            warnings.showwarning = show  # type: ignore[assignment]
            model.fit(x, y, **validation_set, resume=resume.folder)
    except NonFiniteError as error:
        return error, False
    except HeldOutError as error:
        if error.label is not None:
            name = data.class_names[error.label]
            raise ValueError(f"class {name} has one sample to train on: add more of it") from error
        raise ValueError(
            f"{model.validation_fraction:.0%} of {len(y):,} samples are too few to hold out: type "
            "--validation 0.5, or add samples"
        ) from error
    finally:
        model.set_params(**own)  # Restore what was changed for the fit, also by `Deadline`.
    return None, is_useless


def _validation_split(
    data: Dataset, fraction: float | None, seed: int
) -> tuple[Any, np.ndarray, dict[str, Any]]:
    """Return the training samples, their targets, and the held-out data as arguments of ``fit``."""
    if fraction is None:
        return data.x_train, data.y_train, {}
    rows = np.arange(len(data.y_train))
    n_kept = round((1 - fraction) * len(rows))
    if n_kept in (0, len(rows)):
        raise ValueError(
            f"--validation {fraction:g} holds out {len(rows) - n_kept:,} of {len(rows):,} samples: "
            "set a fraction that leaves at least one in each part"
        )
    train, y, held_out, y_val = split_dataset(rows, data.y_train, 1 - fraction, seed=seed)
    labels = np.setdiff1d(y_val, y).tolist() if data.class_names else []
    if unseen := [data.class_names[label] for label in labels]:
        raise ValueError(
            f"--validation {fraction:g} leaves {len(y):,} samples to train on, but none of the "
            f"classes {', '.join(unseen)}: hold out a smaller fraction"
        )
    x, x_val = some_rows(data.x_train, train), some_rows(data.x_train, held_out)
    if data.columns is not None and data.columns.used:
        columns = data.columns.used
        used, _ = choose_columns("the table", columns, data.x_train, data.x_train[train])
        known = {column.name for column in used}
        if useless := [name for name in data.feature_names if name not in known]:
            raise ValueError(
                f"--validation {fraction:g} leaves {len(y):,} samples to train on, but nothing to "
                f"learn from {', '.join(useless)}: hold out a smaller fraction, or type "
                f"{drop_option(useless)}"
            )
    return x, y, {"X_val": x_val, "y_val": y_val}
