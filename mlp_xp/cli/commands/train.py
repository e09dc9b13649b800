"""``mlp-xp train``: train a network and write a run folder."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
import warnings
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mlp_xp._utils.optional import check_installed
from mlp_xp._utils.signals import interrupts
from mlp_xp.backends import LOW_PRECISIONS, Backend
from mlp_xp.callbacks import Callback
from mlp_xp.cli.loading import FILES, describe, load_data, load_recipe_backend, loading
from mlp_xp.cli.report import write_report
from mlp_xp.cli.run_folder.folder import DiskSpace, RunFolder, new_run, resumed_run
from mlp_xp.cli.run_folder.saved_run import CHECKPOINTS, REPORT, named, unfinished
from mlp_xp.cli.terminal.lines import print_line
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.process import message_for_user
from mlp_xp.cli.training.deadline import Deadline
from mlp_xp.cli.training.ending import ending_of
from mlp_xp.cli.training.progress import Watch, display
from mlp_xp.cli.training.results import (
    config_of,
    draw_results,
    history_of,
    result_of,
    write_config,
    write_history,
)
from mlp_xp.cli.training.settings import Settings, settings_of, settings_of_run
from mlp_xp.cli.training.tasks import Task, task_of
from mlp_xp.datasets import Dataset, split_dataset
from mlp_xp.distributed import Alone, join_ranks
from mlp_xp.saving import write_model
from mlp_xp.training.checkpoints import read_newest
from mlp_xp.training.finite import NonFiniteError
from mlp_xp.training.rows import some_rows

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Train as the options say, or go on with a run, and return the exit status."""
    ranks = join_ranks(args.distributed)
    if ranks.rank:
        return _follow(ranks)
    with ranks.sharing_errors():
        if args.resume is not None:
            settings = settings_of_run(unfinished(args.resume)[0], args)
            opened = resumed_run(args.resume)
        else:
            settings = settings_of(args)
            opened = new_run(args.out, settings.folder_name)
        return ranks.first(_train(args, ranks.first(settings), opened, ranks))


def _follow(ranks: Alone) -> int:
    """Train on another rank than 0, which alone prints and writes; return its exit status."""
    try:
        with ranks.sharing_errors():
            settings: Settings = ranks.first(None)  # type: ignore[assignment]
            ranks.exchange(None)  # Rank 0 has fetched the data where they were absent.
            data = load_data(*settings.source)
            settings = settings.fitting(data)
            model = settings.estimator()
            resume: _Resume = ranks.first(None)  # type: ignore[assignment]
            with interrupts(), np.errstate(over="ignore", invalid="ignore"):
                _fit(model, settings, data, [], resume)
            return ranks.first(0)
    except Exception as error:
        if message_for_user(error) is None:
            raise
        return 2  # Rank 0 prints it.


def _train(
    args: argparse.Namespace,
    settings: Settings,
    opened: AbstractContextManager[RunFolder],
    ranks: Alone,
) -> int:
    output, model = Output(args), settings.estimator()
    _check_libraries(settings)
    if settings.data == FILES:
        output.samples = "samples"
    with output.doing("choosing a device"):
        backend = load_recipe_backend(settings.recipe, model)
    backend.with_precision(model.precision)  # An error before there is a run folder.
    with loading(settings.data, settings.data_path, output, is_logged=True):
        data = load_data(*settings.source)
    settings = settings.fitting(data)
    model = settings.estimator()
    task = task_of(data.class_names)
    ranks.exchange(None)
    # One sentence reports a training that diverges; NumPy's warnings add nothing.
    quiet = np.errstate(over="ignore", invalid="ignore")
    with opened as folder, interrupts() as pressed, quiet:
        _print_task(output, settings, task, model, data, backend)
        config = {"command": args.command} | config_of(settings, model, data, backend)
        write_config(folder.path, config)  # first: a checkpoint cannot be used without it
        newest = _newest(folder.path, output) if args.resume else _Resume(None, 0, 0.0)
        resume = ranks.first(newest)
        end = None
        if model.max_time is not None:
            end = args.start_time + model.max_time - resume.seconds
        n_train = len(data.x_train)
        with display(output, task, model.max_iter, n_train, end, resume.epoch) as progress:
            deadline = None
            if end is not None:
                n_test, used = len(data.x_test), resume.seconds
                deadline = Deadline(end, data.x_train, n_test, used, stage=progress.stage)
            callbacks = [
                DiskSpace(folder.path),
                *([] if deadline is None else [deadline]),
                Watch(progress),
                *settings.callbacks(folder.path),
            ]
            diverged = _fit(model, settings, data, callbacks, resume)
            ending = ending_of(model, is_interrupted=pressed())
            progress.is_done = diverged is None and not ending.is_interrupted
        baseline = task.baseline(data) if settings.data == FILES else {}
        # Free the training images: testing and drawing need memory too.
        data = data._replace(x_train=data.x_train[:0].copy())
        history = history_of(model, task)
        folder.is_trained = True
        written = named(model, data.class_names) if settings.data == FILES else model
        folder.keep(partial(_write_model, written, task, config, history))  # All after it may fail.
        if ending.text:
            output.print(ending.text)
        cause = str(diverged or "").replace("learning_rate_init", "--learning-rate")
        if diverged is not None:
            print_line(cause, sys.stderr)
        has_views = deadline is None or deadline.has_views
        with output.doing(f"testing on {len(data.x_test):,} {output.samples}"):
            test = task.test(model, data, **({} if has_views else {"tta": None}))
        scores = task.scores(test.y, test.predicted) | baseline
        result = result_of(history, scores, ending)
        is_low = model.precision in LOW_PRECISIONS
        precision = model.precision if is_low else str(model.coefs_[0].dtype)
        config |= {"precision": precision, "result": result}
        has_report = deadline is None or deadline.has_pictures
        if has_report:
            note = cause or ending.text.capitalize()
            with output.doing("drawing the results"):
                draw_results(folder.path, task, history, test, scores)
                write_report(
                    folder.path / REPORT, folder.final.name, config, history, model, test, note
                )
        write_config(folder.path, config)
        status = 130 if pressed() else int(diverged is not None)
    can_resume = ending.is_interrupted and model.solver != "lbfgs"
    if settings.checkpoint is None and not can_resume:
        shutil.rmtree(folder.final / CHECKPOINTS, ignore_errors=True)
    seconds = time.perf_counter() - args.start_time
    output.print(f"saved in {folder.final}")
    if has_report:
        output.print(f"report in {folder.final / REPORT}")
    if can_resume:
        name = shlex.quote(str(folder.final))
        output.print(f"to resume the training, type mlp-xp train --resume {name}")
    output.result(
        f"{task.summary(result)}, {result['seconds']:.1f} s, "
        f"{result['images_per_second']:,.0f} {output.samples}/s"
        + ("" if end is None else f", {seconds:.1f} s in all"),
        {
            "run": str(folder.final),
            **result,
            "diverged": diverged is not None,
            "seconds_in_all": seconds,
        },
    )
    if diverged is not None and args.resume is None:
        output.suggest(_another_try(args, model.learning_rate_init / 10))
    else:
        output.suggest(_next_commands(folder.final, task, is_table=data.image_shape is None))
    return status


def _next_commands(run: Path, task: Task, *, is_table: bool) -> dict[str, str]:
    name = shlex.quote(str(run))
    file, samples = ("TABLE", "rows") if is_table else ("IMAGE", "pictures")
    return {
        f"mlp-xp evaluate {name}": task.next_evaluate,
        f"mlp-xp predict {name} {file}": f"{task.next_predict} {samples}",
        f"mlp-xp export {name} --to onnx": "use the network elsewhere",
    }


def _another_try(args: argparse.Namespace, rate: float) -> dict[str, str]:
    """Return the command with a smaller learning rate, and another folder if it names one."""
    again = f"{args.command} --learning-rate {rate:g}"  # The last one of an option counts.
    if args.out is not None:
        again += f" --out {shlex.quote(f'{args.out}-{rate:g}')}"
    return {again: "a tenth of the learning rate"}


class _Resume(NamedTuple):
    """The place where a training goes on: its checkpoints, and epochs and seconds of the newest."""

    folder: Path | None
    epoch: int
    seconds: float


def _newest(run: Path, output: Output) -> _Resume:
    """Return where a run goes on, and print it."""
    folder = run / CHECKPOINTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The fit warns of damage too.
        snapshot = read_newest(folder)
    if snapshot is None:
        output.print("no checkpoint yet: the training starts at its first epoch")
        return _Resume(None, 0, 0.0)
    facts = snapshot.facts
    output.print(f"resumed after {facts['epoch']} epochs and {facts['step']} steps")
    return _Resume(folder, facts["epoch"], facts["seconds"])


def _write_model(
    model: Any, task: Task, config: dict[str, Any], history: list[dict[str, Any]], folder: Path
) -> None:
    """Write settings, history and network: what only the training could make again."""
    write_config(folder, config)
    write_history(folder, task, history)
    write_model(model, folder)


def _check_libraries(settings: Settings) -> None:
    """Raise ImportError before the training where what writes the results is not installed."""
    check_installed("matplotlib", "safetensors")
    if settings.tensorboard:
        check_installed("tensorboardX", extra="tensorboard")


def _print_task(
    output: Output, settings: Settings, task: Task, model: Any, data: Dataset, backend: Backend
) -> None:
    """Print the data set, the network and the backend."""
    name = settings.data_path if settings.data == FILES else settings.data
    output.print(
        f"{name}: {len(data.x_train):,} {output.samples} to train on, {len(data.x_test):,} to test"
    )
    if data.columns is not None and data.columns.used:
        output.print(f"columns: {_describe_columns(data)}")
    for note in () if data.columns is None else data.columns.notes:
        output.print(note)
    sizes = np.atleast_1d(np.asarray(model.hidden_layer_sizes, dtype=object)).tolist()
    widths = [data.x_train.shape[1], *map(_name, sizes), len(data.class_names) or 1]
    parts = ["-".join(map(str, widths)), _name(model.activation), _name(model.solver)]
    if model.normalization is not None:
        parts.append(f"{model.normalization} normalization")
    if model.residual:
        parts.append("residual")
    if model.dropout != 0:
        parts.append(f"dropout {model.dropout}")
    output.print(f"network: {', '.join(parts)}")
    if settings.data == FILES:
        name = "" if data.columns is None else f"{data.columns.target}, "
        output.print(f"target: {name}{task.describe(data.y_train)} ({settings.task})")
        output.print(f"training: {model.max_iter} epochs, batches of {model.batch_size}")
    output.print(f"backend: {describe(backend)}")


def _describe_columns(data: Dataset) -> str:
    """Return how many columns of which kind become how many inputs."""
    assert data.columns is not None
    used = data.columns.used
    counts = {
        "of numbers": sum(column.levels is None for column in used),
        "of text": sum(column.levels is not None for column in used),
        "with holes": sum(column.has_gaps or "" in (column.levels or ()) for column in used),
    }
    kinds = [f"{count} {kind}" for kind, count in counts.items() if count]
    return f"{', '.join(kinds)}; {len(data.feature_names)} inputs"


def _name(setting: Any) -> str:
    """Return a setting as text: itself, or the class name of an object."""
    is_plain = isinstance(setting, str | int | tuple)
    return str(setting) if is_plain else type(setting).__name__.lower()


def _fit(
    model: Any,
    settings: Settings,
    data: Dataset,
    callbacks: list[Callback],
    resume: _Resume,
) -> NonFiniteError | None:
    """Train until the last epoch, Ctrl-C or the deadline; return the error of divergence."""
    x, y, validation_set = _validation_split(data, settings.validation, model.random_state)
    max_time = model.max_time
    model.set_params(callbacks=callbacks)
    try:
        with warnings.catch_warnings():
            # The user chose the number of epochs.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "Training interrupted by user")  # It is printed.
            warnings.showwarning = _print_warning  # type: ignore[assignment]
            model.fit(x, y, **validation_set, resume=resume.folder)
    except NonFiniteError as error:
        return error
    finally:
        model.set_params(max_time=max_time)  # The deadline changed it.
    return None


def _print_warning(message: Warning | str, *_: Any) -> None:
    print_line(f"note: {message}", sys.stderr)


def _validation_split(
    data: Dataset, fraction: float | None, seed: int
) -> tuple[Any, np.ndarray, dict[str, Any]]:
    """Return images and labels to train on, and the parameters of ``fit`` for the held-out ones."""
    if fraction is None:
        return data.x_train, data.y_train, {}
    rows = np.arange(len(data.y_train))
    n_kept = round((1 - fraction) * len(rows))
    if n_kept in (0, len(rows)):
        raise ValueError(
            f"--validation {fraction:g} holds out {len(rows) - n_kept:,} of {len(rows):,} samples, "
            "expected at least one in each part"
        )
    train, y, held_out, y_val = split_dataset(rows, data.y_train, 1 - fraction, seed=seed)
    labels = np.setdiff1d(y_val, y).tolist() if data.class_names else []
    if unseen := [data.class_names[label] for label in labels]:
        raise ValueError(
            f"--validation {fraction:g} leaves {len(y):,} samples to train on, and none of "
            f"{', '.join(unseen)}: hold out a smaller share"
        )
    x_val = some_rows(data.x_train, held_out)
    return some_rows(data.x_train, train), y, {"X_val": x_val, "y_val": y_val}
