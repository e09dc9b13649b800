"""Training with a recipe for an ensemble: fit, test, and write the files of the run."""

from __future__ import annotations

import contextlib
import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from mlp_xp._utils.signals import postponed
from mlp_xp.callbacks import SearchCheckpoint
from mlp_xp.cli.run_folder.config import CHECKPOINTS, write_config
from mlp_xp.cli.run_folder.folder import RunFolder
from mlp_xp.cli.run_folder.saved_run import named
from mlp_xp.cli.settings import Settings
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.deadline import END, REPORT
from mlp_xp.cli.training.fit import Fitted
from mlp_xp.cli.training.prepare import Prepared
from mlp_xp.cli.training.tasks import baseline_of
from mlp_xp.estimators.settings.parameters import ensemble_of
from mlp_xp.estimators.tuning.clock import default_seconds
from mlp_xp.plotting import SearchDisplay, new_figure, save_figure
from mlp_xp.recipes import FILES
from mlp_xp.saving import write_model

SEARCH = "search.csv"
# The minimum fraction of ``max_time`` for the fit, and the fraction below which nothing is drawn.
_LEAST_FRACTION, _WITH_PLOTS = 0.1, 0.5


def create_ensemble(settings: Settings, network: Any) -> Any:
    """Return the unfitted ensemble that a recipe is for, or None if it is for a single network."""
    if not settings.ensemble:
        return None
    [(section, params)] = settings.ensemble.items()
    single = clone(network).set_params(max_time=None)
    return ensemble_of(single, section).set_params(**params)


def fit_ensemble(
    ensemble: Any,
    prepared: Prepared,
    folder: RunFolder,
    config: dict[str, Any],
    start: float,
    output: Output,
    pressed: Callable[[], bool],
) -> tuple[Fitted, dict[str, Any]]:
    """Fit an ensemble, write the files of its run, and return how it ended and its result.

    ``start`` is the `time.perf_counter()` value at the start of the command.
    """
    _, data, model, task, _ = prepared
    is_tuned = hasattr(ensemble, "max_time")
    begin = time.perf_counter()
    has_plots = not is_tuned
    fit_params: dict[str, Any] = {}
    if is_tuned:
        if model.max_time is None and ensemble.n_configurations is None:
            model.max_time = default_seconds(len(data.x_train))
            output.print(f"search: up to {model.max_time:g} s; to change this, type --max-time")
        fit_params["checkpoint"] = SearchCheckpoint(folder.path / CHECKPOINTS)
    if is_tuned and model.max_time is not None:
        left = model.max_time - (begin - start) - END
        has_plots = left - REPORT > _WITH_PLOTS * model.max_time
        least = _LEAST_FRACTION * model.max_time
        ensemble.set_params(max_time=max(left - REPORT * has_plots, least))
    write_config(folder.path, config)
    shows_bar = output.shows_progress
    ensemble.set_params(verbose=shows_bar)
    waits = contextlib.nullcontext() if shows_bar else output.doing("training the networks")
    with warnings.catch_warnings(), waits:
        # The end of the command reports the interruption, and `choose_columns` has printed notes.
        warnings.filterwarnings("ignore", "Training interrupted by user")
        warnings.filterwarnings("ignore", r"Left out as inputs|X\[:, ")
        warnings.showwarning = lambda message, *_: print_note(message)
        ensemble.fit(data.x_train, data.y_train, **fit_params)
    seconds = time.perf_counter() - begin
    folder.is_trained = True
    written = named(ensemble, data.class_names, data.feature_names)

    def write(path: Path) -> None:
        write_config(path, config)
        write_model(written, path)
        if is_tuned:
            _write_search(path / SEARCH, ensemble.search_results_)

    folder.keep(write)
    networks = ensemble.estimators_
    with output.doing(f"testing on {count_text(len(data.x_test), output.samples)}"):
        test = task.test(ensemble, data)
    baseline = baseline_of(task, data) if prepared.settings.data == FILES else {}
    epochs = max(len(network.history_) for network in networks)
    n_read = sum(record.n_samples for network in networks for record in network.history_)
    result = {
        **task.scores(test.y, test.predicted),
        **baseline,
        "networks": len(networks),
        "epochs": epochs,
        "kept_epoch": epochs,
        "interrupted": pressed(),
        "stopped_early": False,
        "diverged": False,
        "seconds": seconds,
        "images_per_second": n_read / seconds,
    }
    if is_tuned:
        result |= {"configurations": len(ensemble.search_results_["name"]), "loss": ensemble.loss_}
        output.print(_describe_search(ensemble))
    write_config(folder.path, config | {"result": result})
    if has_plots:
        with output.doing("drawing the results"), postponed():
            task.draw(folder.path, test)
            if is_tuned:
                display = SearchDisplay(ensemble.search_results_, loss=ensemble.loss_)
                display.plot(ax=new_figure(5.5, 4.0).subplots())
                save_figure(display.figure_, folder.path / "search.png")
    text = f"{count_text(len(networks), 'networks')} are kept"
    fitted = Fitted(epochs, pressed(), False, text, has_report=False, can_resume=is_tuned)
    return fitted, result


def _describe_search(ensemble: Any) -> str:
    """Return a line about what was tried, and what was selected."""
    results = ensemble.search_results_
    parts = [
        f"{name} {weight:.0%}"
        for name, weight in sorted(
            zip(results["name"], results["weight"], strict=True), key=lambda pair: -pair[1]
        )
        if weight > 0
    ]
    return (
        f"search: {count_text(len(results['name']), 'configurations')}, held-out loss "
        f"{ensemble.loss_:.4g}; the ensemble has {', '.join(parts)}"
    )


def _write_search(path: Path, results: dict[str, list[Any]]) -> None:
    """Write the table of what was tried; the parameters of a row are its last column."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(results)
        for row in zip(*results.values(), strict=True):
            writer.writerow(["" if _is_nan(value) else value for value in row])


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))
