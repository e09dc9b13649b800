"""The files of a run: configuration, history, model, plots and report."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlp_xp import __version__
from mlp_xp._utils.optional import as_typed, optional
from mlp_xp._utils.signals import postponed
from mlp_xp.backends import LOW_PRECISIONS
from mlp_xp.cli.report import Evaluation, write_report
from mlp_xp.cli.run_folder.config import REPORT, describe_data, write_config
from mlp_xp.cli.run_folder.folder import RunFolder
from mlp_xp.cli.run_folder.run_summary import CURVES, best_epoch, history_rows, write_history
from mlp_xp.cli.run_folder.saved_run import named
from mlp_xp.cli.settings import option_name
from mlp_xp.cli.terminal.lines import print_line, print_note
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.fit import Fitted
from mlp_xp.cli.training.prepare import Prepared
from mlp_xp.cli.training.tasks import Task, baseline_of, score_of
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.fitting.baseline import cause_of_settings
from mlp_xp.plotting import TrainingCurvesDisplay, new_figure, save_figure, training_panels
from mlp_xp.recipes import FILES
from mlp_xp.saving import encode, write_model


def describe_run(prepared: Prepared, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the content of a run's ``config.json`` when its training begins.

    ``arguments`` are the words of the command after ``mlp-xp``.
    """
    settings, data, model, _, backend = prepared
    libraries = ("numpy", "scikit-learn", "array-api-compat")
    params = model.get_params(deep=False)
    del params["callbacks"]
    encoded = {name: encode(name, value, name) for name, value in params.items()}
    return {
        "command": as_typed("mlp-xp", *arguments),
        "arguments": list(map(str, arguments)),
        "settings": {**asdict(replace(settings, columns=())), "params": encoded},
        "data": describe_data(settings, data).to_json(),
        "backend": {"name": backend.name, **backend.describe()},
        "versions": {"python": platform.python_version(), "mlp-xp": __version__}
        | {name: version(name) for name in libraries},
        "platform": platform.platform(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def write_results(
    prepared: Prepared, fitted: Fitted, folder: RunFolder, config: dict[str, Any], output: Output
) -> dict[str, Any]:
    """Save the network, test it, draw the plots, and write and return the result."""
    settings, data, model, task, _ = prepared
    is_own, records = settings.data == FILES, model.history_
    baseline = baseline_of(task, data) if is_own else {}
    score = score_of(model, task)
    written = named(model, data.class_names, data.feature_names) if is_own else model

    def write(path: Path) -> None:
        write_config(path, config)
        write_history(path, records, score)
        write_model(written, path)

    folder.is_trained = True
    folder.keep(write)  # Save the model now, because all later work may fail.
    if fitted.text:
        output.print(fitted.text)
    if fitted.cause:
        print_line(fitted.cause, sys.stderr)
    with output.doing(f"testing on {count_text(len(data.x_test), output.samples)}"):
        test = task.test(model, data, **({} if fitted.has_views else {"tta": None}))
    may_be_useless = model.loss_curve_ and not (fitted.cause or fitted.is_interrupted)
    if may_be_useless and (fitted.is_useless or task.is_useless(test, data.y_train, model)):
        print_note(_advice(model))
    scores = task.scores(test.y, test.predicted) | baseline
    seconds = sum(record.seconds for record in records)
    result = {
        **scores,
        "epochs": len(records),
        "kept_epoch": fitted.kept_epoch,
        "interrupted": fitted.is_interrupted,
        "stopped_early": fitted.is_early,
        "diverged": bool(fitted.cause),
        "seconds": seconds,
        # The time is 0 if "lbfgs" stopped before its first epoch.
        "images_per_second": sum(record.n_samples for record in records) / (seconds or 1.0),
    }
    is_low = model.precision in LOW_PRECISIONS
    precision = model.precision if is_low else fitted_state(model).dtype
    config |= {"precision": precision, "result": result}
    if fitted.has_report:
        note, history = fitted.cause or fitted.text.capitalize(), history_rows(records, score)
        with output.doing("drawing the results"):
            draw_results(folder.path, task, history, test, result)
            page = folder.path / REPORT
            write_report(page, folder.final.name, config, history, model, test, note)
    write_config(folder.path, config)
    return result


def _advice(model: Any) -> str:
    """Return a note about a network that is worse than a constant prediction."""
    losses = model.loss_curve_
    cause, name, value = cause_of_settings(model, is_rising=losses[-1] > losses[0])
    if model.max_time is not None and len(losses) < model.max_iter:
        cause, name, value = "a short fit", "max_time", 10 * model.max_time
    return (
        f"the network is worse than a constant prediction. The likeliest cause is {cause}: type "
        f"{option_name(name)} {value:g}"
    )


def draw_results(
    folder: Path,
    task: Task,
    history: list[dict[str, Any]],
    test: Evaluation,
    result: dict[str, Any],
) -> None:
    """Draw loss and score by epoch, and the predictions for the test samples."""
    with postponed():
        optional("matplotlib.backends.backend_agg")
    curves = draw_curves(history, task, result)
    save_figure(curves.figure_, folder / "curves.png")
    task.draw(folder, test)


def draw_curves(
    history: list[dict[str, Any]], task: Task, result: dict[str, Any]
) -> TrainingCurvesDisplay:
    """Plot loss and score by epoch, if they were recorded."""
    columns = {label: CURVES[label] for label in ("loss", task.label, "score")}
    # A fit may end before its first epoch.
    panels = training_panels(history, columns) or {"loss": {"training": []}}
    factor = 100.0 if task.label.endswith("[%]") else 1.0
    test = {task.label: factor * result[f"test_{task.metric}"]}
    axes = new_figure(5.5 * len(panels), 4).subplots(1, len(panels), squeeze=False)[0]
    return TrainingCurvesDisplay(panels, best_epoch=best_epoch(result), test=test).plot(ax=axes)
