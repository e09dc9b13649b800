"""``mlp-xp train``: train a network and write a run folder."""

from __future__ import annotations

import argparse
import shlex
import shutil
import time
from pathlib import Path

import numpy as np

from mlp_xp._utils.signals import interrupts
from mlp_xp.cli.commands.train_settings import Request
from mlp_xp.cli.run_folder.config import CHECKPOINTS, REPORT, write_config
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.process import message_for_user
from mlp_xp.cli.training.fit import Resume, fit, fit_model, newest_checkpoint
from mlp_xp.cli.training.prepare import prepare, print_prepared
from mlp_xp.cli.training.results import config_of, write_results
from mlp_xp.cli.training.settings import Settings
from mlp_xp.cli.training.tasks import Task
from mlp_xp.distributed import join_ranks
from mlp_xp.training.processes import SingleProcess


def run(args: argparse.Namespace, output: Output) -> int:
    """Train with the given options, or resume a run, and return the exit status."""
    request = Request(args, args.out, args.resume, args.distributed, args.command, args.start_time)
    return _train_together(request, output)


def _train_together(request: Request, output: Output) -> int:
    """Train on this rank, and return the exit status of all."""
    ranks = join_ranks(request.distributed)
    if not ranks.is_first:
        return _follow(ranks)
    with ranks.sharing_errors():
        return ranks.first(_train(request, ranks, output))


def _follow(ranks: SingleProcess) -> int:
    """Train on a rank other than 0, which neither prints nor writes; return its exit status."""
    try:
        with ranks.sharing_errors():
            settings: Settings = ranks.first(None)  # type: ignore[assignment]
            ranks.exchange(None)  # Rank 0 has downloaded missing data.
            data = settings.load()
            settings = settings.fitting(data)
            model = settings.estimator()
            resume: Resume = ranks.first(None)  # type: ignore[assignment]
            with interrupts(), np.errstate(over="ignore", invalid="ignore"):
                fit_model(model, settings, data, [], resume)
            return ranks.first(0)
    except Exception as error:
        if message_for_user(error) is None:
            raise
        return 2  # Rank 0 prints it.


def _train(request: Request, ranks: SingleProcess, output: Output) -> int:
    """Prepare, fit and write; return the exit status."""
    settings = ranks.first(request.settings())
    prepared = prepare(settings, output)
    ranks.exchange(None)
    # A diverged training is reported in one sentence; NumPy's warnings add nothing.
    quiet = np.errstate(over="ignore", invalid="ignore")
    with request.open_folder(settings.folder_name) as folder, interrupts() as pressed, quiet:
        print_prepared(prepared, output)
        config = {"command": request.command} | config_of(prepared)
        write_config(folder.path, config)  # first: a checkpoint cannot be used without it
        resume = newest_checkpoint(folder.path, output) if request.resume else Resume()
        ranks.first(resume)
        limit = prepared.model.max_time
        end = None if limit is None else request.start_time + limit - resume.seconds
        fitted = fit(prepared, folder.path, resume, end, output, pressed)
        prepared = prepared.without_images()
        result = write_results(prepared, fitted, folder, config, output)
        status = 130 if pressed() else int(bool(fitted.cause))
    can_resume = fitted.ending.is_interrupted and prepared.model.solver != "lbfgs"
    if prepared.settings.checkpoint is None and not can_resume:
        shutil.rmtree(folder.final / CHECKPOINTS, ignore_errors=True)
    output.print(f"saved in {folder.final}")
    if fitted.has_report:
        output.print(f"report in {folder.final / REPORT}")
    if can_resume:
        name = shlex.quote(str(folder.final))
        output.print(f"to resume the training, type mlp-xp train --resume {name}")
    seconds = time.perf_counter() - request.start_time
    output.result(
        f"{prepared.task.summary(result)}, {result['seconds']:.1f} s, "
        f"{result['images_per_second']:,.0f} {output.samples}/s"
        + ("" if end is None else f", {seconds:.1f} s in all"),
        {
            "run": str(folder.final),
            **result,
            "diverged": bool(fitted.cause),
            "seconds_in_all": seconds,
        },
    )
    if fitted.cause and request.resume is None:
        output.suggest(_another_try(request, prepared.model.learning_rate_init / 10))
    else:
        is_table = prepared.data.image_shape is None
        output.suggest(_next_commands(folder.final, prepared.task, is_table=is_table))
    return status


def _next_commands(run: Path, task: Task, *, is_table: bool) -> dict[str, str]:
    name = shlex.quote(str(run))
    file, samples = ("TABLE", "rows") if is_table else ("IMAGE", "pictures")
    return {
        f"mlp-xp evaluate {name}": task.next_evaluate,
        f"mlp-xp predict {name} {file}": f"{task.next_predict} {samples}",
        f"mlp-xp export {name} --to onnx": "use the network elsewhere",
    }


def _another_try(request: Request, rate: float) -> dict[str, str]:
    """Return the command with a smaller learning rate, and another folder if it names one."""
    again = f"{request.command} --learning-rate {rate:g}"  # The last one of an option counts.
    if request.out is not None:
        again += f" --out {shlex.quote(f'{request.out}-{rate:g}')}"
    return {again: "a tenth of the learning rate"}
