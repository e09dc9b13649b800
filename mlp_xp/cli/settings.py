"""What decides a training on the command line: a recipe, and the options that go before it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlp_xp.callbacks import Callback, Checkpoint, TensorBoard
from mlp_xp.cli.options import MAX_SEED, add_backend, number
from mlp_xp.cli.runs import CHECKPOINTS
from mlp_xp.datasets import LOADERS
from mlp_xp.estimators import MLPClassifier
from mlp_xp.layers import ACTIVATIONS
from mlp_xp.optimizers import OPTIMIZERS, Optimizer
from mlp_xp.recipes import Recipe, read_recipe, recipe_parameters
from mlp_xp.schedules import SCHEDULES
from mlp_xp.settings import LBFGS

__all__ = ["Settings", "add_options", "read", "settings_of"]

DEFAULT = "default"
# Options whose name is not that of the parameter; --solver and --weight-decay make one together.
_RENAMED = {
    "hidden": "hidden_layer_sizes",
    "schedule": "learning_rate",
    "learning_rate": "learning_rate_init",
    "epochs": "max_iter",
    "seed": "random_state",
}
_SAME = (
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
_PARAMETERS = _RENAMED | {name: name for name in _SAME}


@dataclass(frozen=True)
class Settings:
    """All that decides a training.

    ``recipe`` is a name or a file; ``params`` are parameters of the estimator that go before it.
    """

    data: str
    recipe: str = DEFAULT
    params: dict[str, Any] = field(default_factory=dict)
    data_path: str | None = None
    validation: float | None = None
    checkpoint: int | None = None
    tensorboard: bool = False

    def estimator(self) -> MLPClassifier:
        """Give the estimator that these settings describe."""
        return MLPClassifier.from_recipe(self.recipe, **self.params)

    def callbacks(self, folder: Path) -> list[Callback]:
        """Give what writes into the run folder during the training."""
        watching: list[Callback] = []
        if self.checkpoint is not None:
            watching.append(Checkpoint(folder / CHECKPOINTS, every=self.checkpoint))
            if self.validation is not None or self.estimator().early_stopping:
                watching.append(Checkpoint(folder / CHECKPOINTS, best_only=True))
        if self.tensorboard:
            watching.append(TensorBoard(folder / "tensorboard"))
        return watching


def read(recipe: str) -> Recipe:
    """Read a recipe for a classifier."""
    return read_recipe(recipe, recipe_parameters(MLPClassifier))


def settings_of(args: argparse.Namespace) -> Settings:
    """Give the settings that were typed."""
    recipe = read(args.recipe)
    given = {name: getattr(args, name) for name in _PARAMETERS}
    params = {_PARAMETERS[name]: value for name, value in given.items() if value is not None}
    if "hidden_layer_sizes" in params:
        params["hidden_layer_sizes"] = tuple(params["hidden_layer_sizes"])
    if args.solver is not None or args.weight_decay is not None:
        base = recipe.params.get("solver", "adam")
        params["solver"] = _solver(base, args.solver, args.weight_decay)
    params.setdefault("random_state", recipe.params.get("random_state", 0))
    return Settings(
        args.data or recipe.data,
        args.recipe,
        params,
        args.data_path,
        args.validation,
        args.checkpoint,
        args.tensorboard,
    )


def _solver(base: str | Optimizer, name: str | None, decay: float | None) -> str | Optimizer:
    """Give a recipe's update rule as the options change it; another rule decays as much, if any."""
    given = decay is not None
    if not given:
        decay = getattr(base, "weight_decay", None)
    if name is not None and base != name and type(base) is not OPTIMIZERS.get(name):
        base = name
    rule: Any = OPTIMIZERS[base]() if isinstance(base, str) and base in OPTIMIZERS else base
    if hasattr(rule, "weight_decay"):
        return base if decay is None else replace(rule, weight_decay=decay)
    if given:
        what = base if isinstance(base, str) else type(base).__name__
        raise ValueError(
            f"--weight-decay is {decay:g}, and the solver {what} has none: leave it out, or type "
            f"--solver with one of {', '.join(_decaying())}"
        )
    return base


def _decaying() -> list[str]:
    return [name for name, rule in OPTIMIZERS.items() if hasattr(rule(), "weight_decay")]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide a training; what is not typed is left to the recipe."""
    defaults = read(DEFAULT)
    model = MLPClassifier.from_recipe(DEFAULT)
    solver: Any = model.solver

    def add(option: str, help: str, **settings: Any) -> None:
        name = option.removeprefix("--").replace("-", "_")
        default = getattr(model, _PARAMETERS.get(name, ""), None)
        if isinstance(default, tuple):
            default = " ".join(map(str, default))
        shown = help if default is None else f"{help} ({default})"
        parser.add_argument(option, help=shown, **settings)

    at_least_0, share = number(float, at_least=0), number(float, at_least=0, below=1)
    positive, count = number(float, above=0), number(int, at_least=1)
    add(
        "--recipe",
        "a name that `mlp-xp recipes` lists, or a TOML file; options go before it",
        default=DEFAULT,
        metavar="NAME",
    )
    add(
        "--max-time",
        "seconds that the whole command may take",
        type=positive,
        metavar="SECONDS",
    )
    add("--data", f"data set ({defaults.data})", choices=list(LOADERS))
    add("--data-path", "its file or folder (looked for, else fetched)", metavar="PATH")
    add(
        "--validation",
        "share of the training images to hold out and measure the accuracy on, each epoch",
        type=number(float, above=0, below=1),
        metavar="FRACTION",
    )
    add("--hidden", "width of each hidden layer", type=count, nargs="*", metavar="WIDTH")
    add("--activation", "of the hidden layers", choices=list(ACTIVATIONS))
    add(
        "--normalization",
        "between each hidden layer and its activation (none)",
        choices=["layer", "batch"],
    )
    add(
        "--residual",
        "add its input to the output of each hidden layer as wide as the one before it",
        action=argparse.BooleanOptionalAction,
    )
    add("--dropout", "share of hidden outputs to drop", type=share)
    add("--label-smoothing", "share of the uniform distribution", type=share)
    add(
        "--solver",
        f"update rule ({type(model.solver).__name__.lower()})",
        choices=[*OPTIMIZERS, LBFGS],
    )
    add(
        "--weight-decay",
        f"of {', '.join(_decaying())}; others have none ({solver.weight_decay})",
        type=at_least_0,
    )
    add("--learning-rate", "initial or peak rate", type=positive)
    add("--schedule", "of the learning rate", choices=list(SCHEDULES))
    add("--epochs", "times through the data", type=count)
    add("--batch-size", "images a step", type=count)
    add("--alpha", "strength of the L2 penalty", type=at_least_0)
    add("--max-grad-norm", "hold gradients to this norm (none)", type=positive)
    add("--ema-decay", "test a moving average of the weights, e.g. 0.999 (none)", type=share)
    add_backend(parser, default=None)
    add("--precision", "of the products", choices=["auto", "float32", "float64", "bf16"])
    add(
        "--placement",
        "whether the data lie on the device or arrive batch by batch",
        choices=["auto", "resident", "streamed"],
    )
    add(
        "--seed",
        "of weights, order and validation images (0)",
        type=number(int, at_least=0, below=MAX_SEED + 1),
    )
    add(
        "--checkpoint",
        "keep the network of every Nth epoch, and the best where images are held out (none)",
        type=count,
        metavar="N",
    )
    add("--tensorboard", "write a log for TensorBoard", action="store_true")
