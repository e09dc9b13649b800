"""The settings of ``mlp-xp train``: a recipe, and the options that override it."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlp_xp.callbacks import Callback, Checkpoint, TensorBoard
from mlp_xp.cli.commands.train_options import known_data, solvers_with_decay
from mlp_xp.cli.loading import DEFAULT, FILES, Source
from mlp_xp.cli.run_folder.config import CHECKPOINTS, CONFIG, check_scaling, read_config
from mlp_xp.cli.terminal.lines import print_line
from mlp_xp.cli.training.tasks import ESTIMATORS
from mlp_xp.datasets import LOADERS, Dataset
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.targets import RealTargets
from mlp_xp.optimizers import OPTIMIZERS, Optimizer
from mlp_xp.recipes import read_recipe, recipe_parameters, without_library
from mlp_xp.saving import decode

__all__ = ["Settings", "settings_of", "settings_of_run"]

# Options whose names differ from the parameter's. --solver and --weight-decay make one parameter.
_RENAMED = {
    "hidden": "hidden_layer_sizes",
    "schedule": "learning_rate",
    "learning_rate": "learning_rate_init",
    "epochs": "max_iter",
    "seed": "random_state",
}
_SAME_NAME = (
    "activation",
    "normalization",
    "residual",
    "dropout",
    "label_smoothing",
    "alpha",
    "batch_size",
    "max_grad_norm",
    "ema_decay",
    "max_time",
    "backend",
    "device",
    "precision",
    "placement",
)
_PARAMETERS = _RENAMED | {name: name for name in _SAME_NAME}
# Options that --resume takes too: none of them changes the numbers, except by rounding.
_FREE = {"backend", "device", "placement", "data_path", "checkpoint", "tensorboard"}
_MIN_STEPS = 1000  # Of a training on few samples.
_INTERVAL = "1 min"  # Between two checkpoints where none are asked for.


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training.

    ``recipe`` is a name or a file; ``params`` are parameters of the estimator that override it.
    """

    data: str
    recipe: str = DEFAULT
    params: dict[str, Any] = field(default_factory=dict)
    data_path: str | None = None
    validation: float | None = None
    checkpoint: int | None = None
    tensorboard: bool = False
    target: str | None = None
    image_size: tuple[int, int] | None = None
    task: str | None = None
    drop: tuple[str, ...] = ()

    @property
    def source(self) -> Source:
        """The data to load."""
        size = None if self.image_size is None else (self.image_size[0], self.image_size[1])
        return Source(self.data, self.data_path, self.target, size, self.task, tuple(self.drop))

    @property
    def folder_name(self) -> str:
        """The name of the data in that of a run folder."""
        return Path(self.data_path or "").stem if self.data == FILES else self.data

    def fitting(self, data: Dataset) -> Settings:
        """Return settings that fit data of the user's own: what is learned, and from how many.

        The batches and epochs of the default recipe are for 50,000 images, and so is its network.
        Fewer samples get smaller batches and more epochs, and a table a smaller network, unless
        they are chosen.
        """
        if self.data != FILES:
            return self
        settings = replace(self, task="classification" if data.class_names else "regression")
        model, n_samples = settings.estimator(), len(data.x_train)
        params: dict[str, Any] = {}
        if isinstance(model, MLPRegressor) and _can_standardize(model):
            params["target_scaling"] = "standardize"
        if self.recipe != DEFAULT:
            return replace(settings, params=params | self.params)
        batch_size = self.params.get("batch_size", min(model.batch_size, max(1, n_samples // 20)))
        n_steps = math.ceil(n_samples / batch_size)
        epochs = max(model.max_iter, math.ceil(_MIN_STEPS / n_steps))
        params |= {"batch_size": batch_size, "max_iter": epochs}
        if data.image_shape is None:
            params["hidden_layer_sizes"] = _hidden_sizes(n_samples)
        return replace(settings, params=params | self.params)

    def estimator(self) -> MLPClassifier | MLPRegressor:
        """Return the estimator, unfitted; that of classes until it is known what is learned."""
        kind = ESTIMATORS[self.task or "classification"]
        known = {*recipe_parameters(kind)}
        if unknown := sorted(self.params.keys() - known):
            raise ValueError(
                f"--{unknown[0].replace('_', '-')} is for classes, and {self.data_path} has "
                "numbers to predict: leave it out, or type --task classification"
            )
        if self.params.keys() >= known:
            return kind(**self.params)  # Of a run, whose recipe may be gone.
        return kind.from_recipe(self.recipe, **self.params)

    def callbacks(self, folder: Path) -> list[Callback]:
        """Return the callbacks that write into the run folder."""
        kept = folder / CHECKPOINTS
        if self.checkpoint is None:
            watch = Checkpoint(kept, every=_INTERVAL, keep_last=2, keep_best=0)
        else:
            has_score = self.validation is not None or self.estimator().early_stopping
            watch = Checkpoint(kept, every=self.checkpoint, keep_best=int(has_score))
        callbacks: list[Callback] = [watch]
        if self.tensorboard:
            callbacks.append(TensorBoard(folder / "tensorboard"))
        return callbacks


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings that the options describe."""
    recipe = read_recipe(args.recipe, recipe_parameters(ESTIMATORS[args.task or "classification"]))
    typed = {name: getattr(args, name) for name in _PARAMETERS}
    params = {_PARAMETERS[name]: value for name, value in typed.items() if value is not None}
    if "hidden_layer_sizes" in params:
        params["hidden_layer_sizes"] = tuple(params["hidden_layer_sizes"])
    if args.solver is not None or args.weight_decay is not None:
        base = recipe.params.get("solver", "adam")
        params["solver"] = _solver(base, args.solver, args.weight_decay)
    if args.early_stopping is not None:
        params |= {"early_stopping": True, "n_iter_no_change": args.early_stopping}
    params.setdefault("random_state", recipe.params.get("random_state", 0))
    if args.backend is None and (note := without_library(args.recipe, recipe.params)):
        print_line(f"note: {note}", sys.stderr)
        params["backend"] = "numpy"
    params["distributed"] = args.distributed  # The processes run whatever a recipe has.
    data, path = known_data(args.data or recipe.data), args.data_path
    if data not in LOADERS:
        if path is not None:
            raise ValueError(f"--data {data} is a path: leave out --data-path")
        data, path = FILES, str(Path(data).resolve())
    elif not args.target is args.image_size is args.task is args.drop is None:
        raise ValueError(
            f"--target, --drop, --task and --image-size are for data of your own, not for {data}"
        )
    return Settings(
        data,
        args.recipe,
        params,
        path,
        args.validation,
        args.checkpoint,
        args.tensorboard,
        args.target,
        args.image_size,
        args.task,
        args.drop or (),
    )


def settings_of_run(folder: Path, args: argparse.Namespace) -> Settings:
    """Return the settings of a run that is resumed, with the options that it takes.

    Raises
    ------
    ValueError
        For other options, or a configuration that cannot be read.
    """
    fixed = {"data", "recipe", "validation", "solver", "weight_decay", "early_stopping", "out"}
    fixed |= {"target", "image_size", "task", "drop"}
    fixed = (fixed | _PARAMETERS.keys()) - _FREE
    for name in sorted(fixed):
        value = getattr(args, name)
        if value is not None and (name, value) != ("recipe", DEFAULT):
            raise ValueError(
                f"--{name.replace('_', '-')} cannot be given with --resume, which takes all "
                "settings from the run: leave it out, or type a new training without --resume"
            )
    cure = f"type `mlp-xp train` anew; {folder} cannot be resumed"
    stored = read_config(folder, cure)
    try:
        check_scaling(folder, stored)
        values = {**stored["settings"]}
        params = {name: decode(value, name) for name, value in values.pop("params").items()}
        settings = Settings(params=params, **values)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} has other settings: {error}; {cure}") from error
    typed = {name: getattr(args, name) for name in ("data_path", "checkpoint")}
    typed = {name: value for name, value in typed.items() if value is not None}
    places = {name: getattr(args, name) for name in ("backend", "device", "placement")}
    places = {name: value for name, value in places.items() if value is not None}
    return replace(
        settings,
        params=settings.params | places | {"distributed": args.distributed},
        tensorboard=settings.tensorboard or args.tensorboard,
        **typed,
    )


def _can_standardize(model: MLPRegressor) -> bool:
    """Whether targets of mean 0 and deviation 1 suit a loss; a loss object has settings in units.

    A network that learns prices would spend its training on reaching their size.
    """
    if not isinstance(model.loss, str):
        return False
    return RealTargets(1).resolve_loss(model.get_params(deep=False)).takes_standardized


def _hidden_sizes(n_samples: int) -> tuple[int, int]:
    """Return the widths for a table: the power of two nearest to twice the root of its rows."""
    width = 2 ** round(math.log2(2 * math.sqrt(n_samples)))
    return (min(max(width, 64), 512),) * 2


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
