"""``mlp-xp train``: train a network and write a run folder."""

from __future__ import annotations

import argparse
import ctypes
import shutil
import time

import numpy as np

from mlp_xp._utils.optional import as_typed, check_installed
from mlp_xp._utils.signals import interrupts
from mlp_xp.cli.run_folder.config import CHECKPOINTS, REPORT, read_config
from mlp_xp.cli.run_folder.folder import BeginRun, new_run, resumed_run
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.process import message_for_user
from mlp_xp.cli.training.fit import Resume, fit, fit_model, newest_checkpoint
from mlp_xp.cli.training.prepare import prepare, print_prepared
from mlp_xp.cli.training.results import describe_run, write_results
from mlp_xp.cli.training.settings import Settings
from mlp_xp.distributed import join_ranks
from mlp_xp.training.processes import SingleProcess

# Parameters of glibc's `mallopt` with new values in bytes. glibc accepts no larger mmap threshold.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 1 << 30), (-3, 32 << 20)


def run(args: argparse.Namespace, output: Output) -> int:
    """Train a new network or resume a run; return the exit status, which all ranks share."""
    _keep_freed_memory()
    typed, is_new = Settings.typed(**vars(args)), args.resume is None
    ranks = join_ranks(typed.params.get("distributed"))
    if not ranks.is_first:
        return _follow(ranks)
    # Divergence is reported in one sentence, so NumPy's warnings are redundant.
    with ranks.sharing_errors(), np.errstate(over="ignore", invalid="ignore"):
        settings = typed.complete() if is_new else typed.resume(args.resume, out=args.out)
        # Fail before training if a package is missing.
        check_installed("matplotlib", "safetensors")
        if settings.tensorboard:
            check_installed("tensorboardX", extra="tensorboard")
        try:
            prepared = prepare(settings, output)
        except KeyboardInterrupt:
            left = "nothing was saved" if is_new else f"{args.resume} is unchanged"
            print_note(f"interrupted before the training began: {left}")
            raise
        opened = new_run(args.out, settings.folder_name) if is_new else resumed_run(args.resume)
        with opened as folder, interrupts() as pressed:
            print_prepared(prepared, output)
            command = args.command if is_new else read_config(folder.path).get("command", "")
            config = describe_run(prepared, command)
            resume = Resume() if is_new else newest_checkpoint(folder.path, output)
            ranks.first((settings, resume))
            begin = BeginRun(folder.path, config)
            fitted = fit(prepared, begin, resume, args.start_time, output, pressed)
            data = prepared.data  # Free the training data before testing and plotting.
            prepared = prepared._replace(data=data._replace(x_train=data.x_train[:0].copy()))
            del data
            result = write_results(prepared, fitted, folder, config, output)
            status = 130 if pressed() else int(bool(fitted.cause))
        model, task, final = prepared.model, prepared.task, folder.final
        can_resume = fitted.is_interrupted and model.solver != "lbfgs"
        if settings.checkpoint is None and not can_resume:
            shutil.rmtree(final / CHECKPOINTS, ignore_errors=True)
        name = as_typed(final)
        output.print(f"saved in {final}")
        if fitted.has_report:
            output.print(f"report in {final / REPORT}")
        if can_resume:
            output.print(f"to resume the training, type mlp-xp train --resume {name}")
        seconds, speed = time.perf_counter() - args.start_time, result["images_per_second"]
        text = f"{task.summary(result)}, {result['seconds']:.1f} s, {speed:,.0f} {output.samples}/s"
        text += "" if model.max_time is None else f", {seconds:.1f} s in all"
        outcome = {"diverged": bool(fitted.cause), "seconds_in_all": seconds}
        output.result(text, {"run": str(final), **result, **outcome})
        if fitted.cause and is_new:
            # If an option is repeated, its last value counts.
            rate = f"{model.learning_rate_init / 10:g}"
            again = f"{args.command} --learning-rate {rate}"
            again += "" if args.out is None else f" --out {as_typed(f'{args.out}-{rate}')}"
            output.suggest({again: "a tenth of the learning rate"})
        else:
            is_table = prepared.data.image_shape is None
            file, samples = ("TABLE", "rows") if is_table else ("IMAGE", "pictures")
            output.suggest(
                {
                    f"mlp-xp evaluate {name}": task.next_evaluate,
                    f"mlp-xp predict {name} {file}": f"{task.next_predict} {samples}",
                    f"mlp-xp export {name} --to onnx": "use the network elsewhere",
                }
            )
        return ranks.first(status)


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
            settings, resume = ranks.first((Settings(), Resume()))
            prepared = prepare(settings, Output(argparse.Namespace(quiet=True)))
            with interrupts(), np.errstate(over="ignore", invalid="ignore"):
                fit_model(prepared, [], resume)
            return ranks.first(0)
    except Exception as error:
        if message_for_user(error) is None:
            raise
        return 2  # Rank 0 prints the error.
