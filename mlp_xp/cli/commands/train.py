"""``mlp-xp train``: train a network and write a run folder."""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.optional import as_typed, check_installed
from mlp_xp._utils.signals import interrupts
from mlp_xp.cli.run_folder.config import REPORT
from mlp_xp.cli.run_folder.folder import BeginRun, check_is_new, new_run, resumed_run
from mlp_xp.cli.settings import Settings, TrainCommand, typed_settings
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.process import message_for_user
from mlp_xp.cli.training.ensembles import create_ensemble, fit_ensemble
from mlp_xp.cli.training.fit import Fitted, fit, fit_model
from mlp_xp.cli.training.prepare import Prepared, prepare, print_prepared
from mlp_xp.cli.training.results import describe_run, write_results
from mlp_xp.cli.training.resume import (
    Resume,
    check_unchanged,
    plan_training,
    print_complete,
    remove_checkpoints,
    resume_point,
)
from mlp_xp.cli.training.tasks import result_text
from mlp_xp.distributed import join_ranks
from mlp_xp.training.processes import SingleProcess

# Parameters of glibc's `mallopt` with new values in bytes. glibc accepts no larger mmap threshold.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 1 << 30), (-3, 32 << 20)


def run(args: argparse.Namespace, output: Output) -> int:
    """Train a new network or resume a run; return the exit status, which all ranks share."""
    command = TrainCommand(
        typed_settings(vars(args)), args.resume, args.out, args.argv, args.start_time
    )
    _keep_freed_memory()
    ranks = join_ranks(command.settings.params.get("distributed"))
    if not ranks.is_first:
        return _follow(ranks)
    # Divergence is reported in one sentence, so NumPy's warnings are redundant.
    with ranks.sharing_errors(), np.errstate(over="ignore", invalid="ignore"):
        settings, run, extends = plan_training(command)
        if run is None and command.out is not None:
            check_is_new(command.out)  # Before the data are loaded, which may take long.
        if run is not None and run.is_complete and not extends:
            ranks.first(None)
            seconds = time.perf_counter() - command.start_time
            return ranks.first(print_complete(run.final, seconds, output))
        # Fail before training if a package is missing.
        check_installed("matplotlib", "safetensors")
        if settings.tensorboard:
            check_installed("tensorboardX", extra="tensorboard")
        try:
            prepared = prepare(settings, output)
        except KeyboardInterrupt:
            kept = command.out or command.resume
            left = "nothing was saved" if run is None else f"{kept} is unchanged"
            print_note(f"interrupted before the training began: {left}")
            raise
        arguments = command.argv if run is None else run.config.get("arguments", [])
        if run is not None and extends:
            check_unchanged(run, prepared.data)
            arguments = [*arguments, "--epochs", str(prepared.model.max_iter)]
        opened = new_run(command.out, settings.folder_name) if run is None else resumed_run(run)
        with opened as folder, interrupts() as pressed:
            print_prepared(prepared, output)
            config = describe_run(prepared, arguments)
            ensemble = create_ensemble(prepared.settings, prepared.model)
            resume = Resume()
            if run is not None and ensemble is None:
                resume = resume_point(folder.path, prepared, extends=extends, output=output)
            ranks.first((settings, resume))
            if ensemble is not None:
                given = prepared, folder, config, command.start_time, output, pressed
                fitted, result = fit_ensemble(ensemble, *given)
            else:
                prepared = resume.continue_network(prepared)
                begin = BeginRun(folder.path, config)
                fitted = fit(prepared, begin, resume, command.start_time, output, pressed)
                data = prepared.data  # Free the training data before testing and plotting.
                prepared = prepared._replace(data=data._replace(x_train=data.x_train[np.arange(0)]))
                del data
                result = write_results(prepared, fitted, folder, config, output)
            status = 130 if pressed() else int(bool(fitted.cause))
        _print_end(command, prepared, fitted, folder.final, result, output)
        return ranks.first(status)


def _print_end(
    command: TrainCommand,
    prepared: Prepared,
    fitted: Fitted,
    folder: Path,
    result: dict[str, Any],
    output: Output,
) -> None:
    """Remove the checkpoints that are no longer needed, and print the result and what to type."""
    settings, _, model, task, _ = prepared
    can_resume = fitted.is_interrupted and fitted.can_resume and model.solver != "lbfgs"
    if not can_resume:
        remove_checkpoints(folder, keeps=settings.checkpoint is not None)
    name = as_typed(folder)
    output.print(f"saved in {folder}")
    if fitted.has_report:
        output.print(f"report in {folder / REPORT}")
    if can_resume:
        output.print(f"to resume the training, type mlp-xp train --resume {name}")
    seconds = time.perf_counter() - command.start_time
    text = result_text(task, result, output.samples)
    text += "" if model.max_time is None else f", {seconds:.1f} s in all"
    output.result(text, {"run": str(folder), **result, "seconds_in_all": seconds})
    if fitted.cause and command.resume is None:
        # If an option is repeated, its last value counts.
        rate = f"{model.learning_rate_init / 10:g}"
        again = f"{as_typed('mlp-xp', *command.argv)} --learning-rate {rate}"
        again += "" if command.out is None else f" --out {as_typed(f'{command.out}-{rate}')}"
        output.suggest({again: "a tenth of the learning rate"})
        return
    is_table = prepared.data.image_shape is None
    file, samples = ("TABLE", "rows") if is_table else ("IMAGE", "pictures")
    output.suggest(
        {
            f"mlp-xp evaluate {name}": task.next_evaluate,
            f"mlp-xp predict {name} {file}": f"{task.next_predict} {samples}",
            f"mlp-xp export {name} --to onnx": "use the network elsewhere",
        }
    )


def _keep_freed_memory() -> None:
    """Set glibc to keep freed memory for the next step instead of returning it to the system.

    Otherwise, page faults take a sixth to a third of the time of the recipe ``one-minute``.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # Another C library, or Windows.
        return
    mallopt(*_TRIM_THRESHOLD)
    mallopt(*_MMAP_THRESHOLD)


def _follow(ranks: SingleProcess) -> int:
    """Train on a rank other than 0, without printing or writing; return the exit status."""
    try:
        with ranks.sharing_errors():
            # Wait for rank 0, which downloads the data before it sends the settings.
            sent = ranks.first((Settings(), Resume()))
            if sent is None:  # The run is complete.
                return ranks.first(0)
            settings, resume = sent
            prepared = prepare(settings, Output(argparse.Namespace(quiet=True)))
            prepared = resume.continue_network(prepared)
            with interrupts(), np.errstate(over="ignore", invalid="ignore"):
                fit_model(prepared, [], resume)
            return ranks.first(0)
    except Exception as error:
        if message_for_user(error) is None:
            raise
        return 2  # Rank 0 prints the error.
