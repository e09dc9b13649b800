"""The settings of ``mlp-xp train``: a recipe, and the options that override it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp.cli.commands.parser import suggestion
from mlp_xp.cli.commands.train_options import solvers_with_decay
from mlp_xp.cli.loading import DEFAULT, TABLE
from mlp_xp.cli.run_folder.config import CONFIG, read_config
from mlp_xp.cli.run_folder.folder import RunFolder, new_run, resumed_run, unfinished
from mlp_xp.cli.terminal.lines import print_line
from mlp_xp.cli.training.settings import Settings
from mlp_xp.cli.training.tasks import ESTIMATORS
from mlp_xp.datasets import LOADERS
from mlp_xp.optimizers import OPTIMIZERS, Optimizer
from mlp_xp.recipes import FILES, read_recipe, recipe_parameters, without_library
from mlp_xp.recipes.parameters import CLASSIFIER
from mlp_xp.saving import decode

# The options of parameters. --solver and --weight-decay make one, --early-stopping sets two.
_PARAMETERS = {row.option.name or name: name for name, row in CLASSIFIER.items() if row.option} | {
    "device": "device"
}
# Options that --resume accepts too: none changes the results, except by rounding.
_FREE = {option for option, name in _PARAMETERS.items() if CLASSIFIER[name].free_on_resume}


class Request(NamedTuple):
    """A requested training: a new one, or the rest of the run ``resume``.

    ``command`` is the line that was typed, and ``start_time`` when, on `time.perf_counter`.
    """

    typed: argparse.Namespace
    out: Path | None
    resume: Path | None
    distributed: str | None
    command: str
    start_time: float

    def settings(self) -> Settings:
        """Read the recipe or the run, and apply what was typed."""
        if self.resume is None:
            return settings_of(self.typed)
        return _settings_of_run(unfinished(self.resume)[0], self.typed)

    def open_folder(self, name: str) -> AbstractContextManager[RunFolder]:
        """Open the folder of the run, named after its data unless ``--out`` names it."""
        return new_run(self.out, name) if self.resume is None else resumed_run(self.resume)


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings that the options describe."""
    task = args.task or "classification"
    is_table = Path(args.data or "").is_file() and args.solver != "lbfgs"  # L-BFGS uses no batches.
    name = args.recipe or (TABLE if is_table else DEFAULT)
    recipe = read_recipe(name, recipe_parameters(ESTIMATORS[task]), task)
    if recipe.ensemble:
        raise ValueError(
            f"recipe {name} is an ensemble, and this command trains one network: type "
            f"--recipe table, or in Python MLPClassifier.from_recipe({name!r}).fit(X, y)"
        )
    params = _typed(args, _PARAMETERS)
    if "hidden_layer_sizes" in params:
        params["hidden_layer_sizes"] = tuple(params["hidden_layer_sizes"])
    if args.solver is not None or args.weight_decay is not None:
        base = recipe.params.get("solver", "adam")
        params["solver"] = _solver(base, args.solver, args.weight_decay)
    if args.early_stopping is not None:
        params |= {"early_stopping": True, "n_iter_no_change": args.early_stopping}
    params.setdefault("random_state", recipe.params.get("random_state", 0))
    if args.backend is None and (note := without_library(name, recipe.params)):
        print_line(f"note: {note}", sys.stderr)
        params["backend"] = "numpy"
    params["distributed"] = args.distributed  # Any recipe can run on several processes.
    if args.data is None and recipe.data == FILES:
        raise ValueError(
            f"recipe {name} is for a table of your own: type its file too, as in mlp-xp "
            f"train customers.csv --recipe {name}"
        )
    data, path = _known_data(args.data or recipe.data), args.data_path
    if data not in LOADERS:
        if path is not None:
            raise ValueError(f"--data {data} is a path: leave out --data-path")
        data, path = FILES, str(Path(data).resolve())
    elif not args.target is args.image_size is args.task is args.drop is None:
        raise ValueError(
            f"--target, --drop, --task and --image-size are for your own data, not for {data}"
        )
    options = ("validation", "checkpoint", "tensorboard", "target", "image_size", "task")
    given = {option: getattr(args, option) for option in options}
    return Settings(data, name, params, path, drop=args.drop or (), **given)


def _settings_of_run(folder: Path, args: argparse.Namespace) -> Settings:
    """Return the settings of a resumed run, with the options that --resume accepts."""
    fixed = {"data", "recipe", "validation", "weight_decay", "out", "target", "image_size", "task"}
    for name in sorted(fixed | {"drop"} | _PARAMETERS.keys() - _FREE):
        value = getattr(args, name)
        if value is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} cannot be given with --resume, which takes all "
                "settings from the run: leave it out, or type a new training without --resume"
            )
    cure = f"type `mlp-xp train` anew; {folder} cannot be resumed"
    stored = read_config(folder, cure)
    try:
        values = {**stored["settings"]}
        params = {name: decode(value, name) for name, value in values.pop("params").items()}
        settings = Settings(params=params, **values)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} has other settings: {error}; {cure}") from error
    return replace(
        settings,
        params=settings.params | _typed(args, _FREE) | {"distributed": args.distributed},
        tensorboard=settings.tensorboard or args.tensorboard,
        **_typed(args, ("data_path", "checkpoint")),
    )


def _typed(args: argparse.Namespace, options: Iterable[str]) -> dict[str, Any]:
    """Return the options that were typed, by parameter name where they have one."""
    values = {_PARAMETERS.get(option, option): getattr(args, option) for option in options}
    return {name: value for name, value in values.items() if value is not None}


def _known_data(text: str) -> str:
    """Return the name of a data set, or an existing path."""
    if text in LOADERS or Path(text).exists():
        return text
    meant = suggestion(text, LOADERS) or ","
    raise ValueError(
        f"invalid choice: {text!r}{meant} choose {', '.join(LOADERS)}, "
        "or a folder or file of your own that is there"
    )


def _solver(base: str | Optimizer, name: str | None, decay: float | None) -> str | Optimizer:
    """Return the solver of a recipe with the options applied.

    Another solver keeps the recipe's weight decay, if it has that parameter.
    """
    is_typed = decay is not None
    if not is_typed:
        decay = getattr(base, "weight_decay", None)
    if name is not None and base != name and type(base) is not OPTIMIZERS.get(name):
        base = name
    rule: Any = OPTIMIZERS[base]() if isinstance(base, str) and base in OPTIMIZERS else base
    if hasattr(rule, "weight_decay"):
        return base if decay is None else replace(rule, weight_decay=decay)
    if is_typed:
        solver = base if isinstance(base, str) else type(base).__name__
        raise ValueError(
            f"--weight-decay is {decay:g}, and the solver {solver} has none: leave it out, or type "
            f"--solver with one of {', '.join(solvers_with_decay())}"
        )
    return base
