"""Existing runs: resume them, train complete ones for more epochs, or print their results."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.optional import as_typed
from mlp_xp._utils.storage.durable import make_folder, new_folder
from mlp_xp.cli.run_folder.config import CHECKPOINTS, CONFIG, CURE, REPORT, digest_of
from mlp_xp.cli.run_folder.folder import FoundRun, find_run, resumed_run
from mlp_xp.cli.run_folder.run_summary import read_summary
from mlp_xp.cli.run_folder.saved_run import read_run
from mlp_xp.cli.settings import Settings, TrainCommand
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.prepare import Prepared
from mlp_xp.cli.training.settings import complete_settings, drop_unchanged, resume_settings
from mlp_xp.cli.training.tasks import result_text, task_of
from mlp_xp.datasets import Dataset
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.settings.config import LBFGS
from mlp_xp.recipes import FILES
from mlp_xp.saving import write_model
from mlp_xp.training.checkpoints.checkpoints import read_newest

# A copy of the network of a complete run that is trained further. The name begins with a dot, so
# that messages name the network in the run folder instead.
_START = ".start"


class Resume(NamedTuple):
    """The point where training resumes.

    ``folder`` has the checkpoints, ``seconds`` is the time used so far, and ``network`` is the
    model of a complete run that is trained for more epochs, until its first checkpoint.
    """

    folder: Path | None = None
    seconds: float = 0.0
    network: Any = None

    def continue_network(self, prepared: Prepared) -> Prepared:
        """Replace the new model by the network to train further, with the same settings."""
        if self.network is None:
            return prepared
        params = prepared.model.get_params(deep=False)
        return prepared._replace(model=self.network.set_params(**params))


class Plan(NamedTuple):
    """A training plan: the settings, and the existing run, or None for a new run.

    If ``extends``, the run is complete and is trained for more epochs.
    """

    settings: Settings
    run: FoundRun | None = None
    extends: bool = False


def plan_training(command: TrainCommand) -> Plan:
    """Return what to train."""
    typed = command.settings
    run = _run_to_resume(command.resume, command.out)
    if run is None:
        return Plan(complete_settings(typed))
    settings = resume_settings(typed if command.out is None else drop_unchanged(typed, run), run)
    extends = run.is_complete and settings.params["max_iter"] != run.n_epochs
    if run.is_complete and run.folder != run.final:
        with resumed_run(run):  # The process was killed before it could rename the folder.
            run = run._replace(folder=run.final)
    return Plan(settings, run, extends)


def _run_to_resume(resume: Path | bool | None, out: Path | None) -> FoundRun | None:
    if resume is None:
        return None
    if resume is True and out is None:
        raise ValueError(
            "--resume needs a run: type --resume RUN to resume it, or --out RUN --resume to start "
            "or resume it"
        )
    if resume is True or resume == out:
        return find_run(Path(str(out)))
    if out is not None:
        raise ValueError(
            "--out cannot be combined with --resume, which keeps the settings and the folder of "
            f"the run {resume}: leave it out, or type {as_typed('--out', out)} --resume to start "
            f"or resume {out}"
        )
    name = Path(str(resume))
    found = find_run(name)
    if found is None:
        partial = name.with_name(f"{name.name}.partial")
        reason = f"neither {partial} nor {name} exists: {CURE}"
        if name.exists() and name.suffix != ".partial" and not partial.exists():
            reason = f"{name} has no {CONFIG}, so it is not a run folder: {CURE}"
        elif any(path.exists() for path in (partial, name)):
            reason = f"{name} was interrupted before its training began: type `mlp-xp train` with "
            reason += "the same options again"
        raise ValueError(reason)
    return found


def check_unchanged(run: FoundRun, data: Dataset) -> None:
    """Raise ValueError if the user's own data have changed since the training of a complete run."""
    kept = run.config["data"].get("digest")
    if kept is not None and kept != digest_of(data):
        raise ValueError(
            f"{run.config['data']['path']} has changed since the training of {run.folder}, so "
            "samples to test on may have been trained on: restore it, or start a new run"
        )


def resume_point(folder: Path, prepared: Prepared, *, extends: bool, output: Output) -> Resume:
    """Find where the training resumes, and print it; save the network of a run to extend."""
    settings, kept = prepared.settings, folder / CHECKPOINTS
    start = kept / _START
    if extends:
        shutil.rmtree(kept, ignore_errors=True)
        make_folder(kept)
        with new_folder(start) as new:
            write_model(read_run(folder)[0], new)
    snapshot = None
    if prepared.model.solver != LBFGS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The fit emits these warnings again.
            snapshot = read_newest(kept)
    if snapshot is not None:
        state = snapshot.metadata
        epochs, steps = (count_text(state[name[:-1]], name) for name in ("epochs", "steps"))
        output.print(f"resumed after {epochs} and {steps}")
        return Resume(kept, state["seconds"])
    if settings.n_before:
        done = count_text(settings.n_before, "epochs")
        output.print(f"resumed after {done}, with a new optimizer state")
        return Resume(network=_network(start))
    reason = "L-BFGS has no checkpoints" if prepared.model.solver == LBFGS else "no checkpoint yet"
    output.print(f"{reason}: the training starts at its first epoch")
    return Resume()


def _network(folder: Path) -> Any:
    """Read a network to train further; its columns get the names that arrays have in a fit."""
    model, _ = read_run(folder)
    state = fitted_state(model)
    if state.columns is not None:
        names = [f"x{i}" for i in range(len(state.columns.columns))]
        model._state = replace(state, columns=state.columns.renamed(names))
        model.columns_ = model._state.columns
    return model


def remove_checkpoints(run: Path, *, keeps: bool) -> None:
    """Remove the checkpoints of a complete run; if ``keeps``, only the network it began with."""
    shutil.rmtree(run / CHECKPOINTS / (_START if keeps else ""), ignore_errors=True)


def print_complete(run: Path, seconds: float, output: Output) -> int:
    """Print that a run is complete, and its result; return the exit status of its training."""
    summary = read_summary(run)
    result, task = summary.result, task_of(summary.config["data"]["class_names"])
    if summary.config["settings"]["data"] == FILES:
        output.samples = "samples"
    try:
        text = result_text(task, result, output.samples)
    except LookupError as error:
        raise ValueError(f"{run} is damaged: its result lacks {error}") from error
    done = count_text(result["epochs"], "epochs")
    output.print(f"{run} is complete after {done}: nothing to train")
    if (run / REPORT).exists():
        output.print(f"report in {run / REPORT}")
    output.result(text, {"run": str(run), **result, "seconds_in_all": seconds})
    return int(bool(result.get("diverged")))
