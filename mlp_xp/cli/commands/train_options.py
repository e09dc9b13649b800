"""The options of ``mlp-xp train``; the recipe decides what is not typed."""

from __future__ import annotations

import argparse
import csv
from argparse import SUPPRESS
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlp_xp.backends import LOW_PRECISIONS
from mlp_xp.cli.commands.parser import Parser, add_backend, add_output, add_seed, number
from mlp_xp.cli.loading import DEFAULT
from mlp_xp.datasets import LOADERS
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.optimizers import OPTIMIZERS
from mlp_xp.optimizers.schedules import SCHEDULES
from mlp_xp.recipes import read_table

__all__ = ["add_train", "solvers_with_decay"]

_AT_LEAST_0, _SHARE = number(float, at_least=0), number(float, at_least=0, below=1)
_POSITIVE, _COUNT = number(float, above=0), number(int, at_least=1)


def solvers_with_decay() -> list[str]:
    """Return the names of the solvers that have a weight decay."""
    return [name for name, rule in OPTIMIZERS.items() if hasattr(rule(), "weight_decay")]


def add_train(parser: Parser) -> None:
    """Add the options of ``mlp-xp train``, in groups."""
    defaults = read_table(DEFAULT)
    parser.usage = "mlp-xp train [DATA] [OPTION ...]"
    _add_data(_Group(parser, "data", defaults))
    _add_network(_Group(parser, "network", defaults))
    _add_training(_Group(parser, "training", defaults))
    _add_regularization(_Group(parser, "regularization", defaults))
    _add_place(_Group(parser, "where to compute", defaults))
    _add_output(_Group(parser, "run folder and output", defaults))


def _size(text: str) -> tuple[int, int]:
    """Return width and height."""
    numbers = text.lower().split("x")
    if len(numbers) in (1, 2) and all(n.isdecimal() and 0 < int(n) <= 4096 for n in numbers):
        return int(numbers[0]), int(numbers[-1])
    raise argparse.ArgumentTypeError(f"must be a number of pixels, or as in 32x24, got {text!r}")


class _Group:
    """A group of options whose help shows the settings of the default recipe.

    Parameters
    ----------
    parser : Parser
    title : str
    defaults : mapping
        The table of the recipe.
    """

    def __init__(self, parser: Parser, title: str, defaults: Mapping[str, Any]) -> None:
        self.options = parser.add_argument_group(title)
        self.defaults = defaults

    def add(self, option: str, help: str, default: str = "", **settings: Any) -> None:
        """Add an option; ``default`` names the setting of the recipe shown in the help."""
        value = self.defaults.get(default)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        text = help if value is None else f"{help} ({value})"
        self.options.add_argument(option, help=text, **settings)

    def add_choice(
        self, option: str, help: str, choices: Iterable[str], default: str = "", shown: str = ""
    ) -> None:
        """Add an option with names to choose from, which the help lists.

        ``shown`` is the default where the recipe's is no name.
        """
        names = [*choices]
        value = shown or str(self.defaults[default])
        self.add(option, f"{help}: {', '.join(names)} ({value})", choices=names, metavar="NAME")


def _add_data(group: _Group) -> None:
    group.options.add_argument(
        "data",
        nargs="?",
        default=SUPPRESS,
        metavar="DATA",
        help=f"{', '.join(LOADERS)}; or data of your own: a .csv, .npz or .parquet file, or a "
        f"folder with a folder of pictures for each class ({group.defaults['data']})",
    )
    group.add(
        "--data",
        "the same as DATA",
        metavar="NAME",
    )
    group.add(
        "--target",
        "of a table: the column to predict (target, label, class or y, else the last)",
        metavar="COLUMN",
    )
    group.add(
        "--drop",
        "of a table: columns to leave out, with commas between them",
        type=_column_names,
        metavar="COLUMNS",
    )
    group.add(
        "--task",
        "of a table: learn that column as classes (classification) or as numbers (regression; so "
        "it is where numbers have fractions, or many values)",
        choices=["classification", "regression"],
        metavar="NAME",
    )
    group.add(
        "--image-size",
        "resize the pictures of a folder (they must have one size)",
        type=_size,
        metavar="WxH",
    )
    group.add("--data-path", "its file or folder (searched for, else fetched)", metavar="PATH")
    group.add(
        "--validation",
        "share of the training images to hold out and measure accuracy or R2 on, each epoch",
        type=number(float, above=0, below=1),
        metavar="FRACTION",
    )


def _add_network(group: _Group) -> None:
    group.add(
        "--hidden",
        "width of each hidden layer; for a table it follows from the rows",
        "hidden_layer_sizes",
        type=number(int, at_least=1, several=True),
        nargs="*",
        metavar="WIDTH",
    )
    group.add_choice("--activation", "of the hidden layers", ACTIVATIONS, "activation")
    group.add_choice(
        "--normalization",
        "between each hidden layer and its activation",
        ["layer", "batch"],
        shown="none",
    )
    group.add(
        "--members",
        "networks in one that share their hidden weights (1; 32 is common for tables)",
        type=_COUNT,
        metavar="N",
    )
    group.add(
        "--residual",
        "add its input to the output of each hidden layer as wide as the one before it (no)",
        action=argparse.BooleanOptionalAction,
    )


def _column_names(text: str) -> tuple[str, ...]:
    """Return the names in a line of a table: those with commas are in double quotes."""
    names = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(name.strip() for name in names if name.strip())


def _add_training(group: _Group) -> None:
    group.options.add_argument(
        "--recipe",
        help="settings to begin with: a name that `mlp-xp recipes` lists, or a TOML file; other "
        "options override it (%(default)s)",
        default=DEFAULT,
        metavar="NAME",
    )
    group.add("--epochs", "passes over the data", "max_iter", type=_COUNT, metavar="N")
    group.add(
        "--max-time", "seconds that the whole command may take", type=_POSITIVE, metavar="SECONDS"
    )
    group.add(
        "--early-stopping",
        "end after N epochs without a better validation accuracy, and keep the best network; "
        "without --validation a tenth of the images is held out (no; N is 10)",
        type=_COUNT,
        nargs="?",
        const=10,
        metavar="N",
    )
    group.add_choice(
        "--calibration",
        "of the probabilities, on the samples held out by --validation or --early-stopping",
        ["temperature"],
        shown="none",
    )
    solver = str(group.defaults["solver"]["class"]).lower()
    group.add_choice("--solver", "update rule", [*OPTIMIZERS, "lbfgs"], shown=solver)
    group.add(
        "--learning-rate", "initial or peak rate", "learning_rate_init", type=_POSITIVE, metavar="R"
    )
    group.add_choice(
        "--schedule", "of the learning rate (invscaling needs sgd)", SCHEDULES, "learning_rate"
    )
    group.add("--batch-size", "images per step", "batch_size", type=_COUNT, metavar="N")
    group.add(
        "--max-grad-norm", "clip the gradient norm to this (none)", type=_POSITIVE, metavar="G"
    )
    group.add(
        "--ema-decay",
        "test a moving average of the weights, e.g. 0.999 (none)",
        type=_SHARE,
        metavar="D",
    )
    add_seed(group.options, "of weights, order and validation images", None)


def _add_regularization(group: _Group) -> None:
    decay = group.defaults["solver"]["weight_decay"]
    group.add("--dropout", "share of hidden outputs to drop (0)", type=_SHARE, metavar="P")
    group.add(
        "--label-smoothing", "share of the uniform distribution (0)", type=_SHARE, metavar="P"
    )
    group.add(
        "--weight-decay",
        f"of {', '.join(solvers_with_decay())}; others have none ({decay})",
        type=_AT_LEAST_0,
        metavar="D",
    )
    group.add("--alpha", "strength of the L2 penalty", "alpha", type=_AT_LEAST_0, metavar="A")


def _add_place(group: _Group) -> None:
    add_backend(group.options, default=None)
    group.add_choice(
        "--precision",
        "of the products",
        ["auto", "float32", "float64", *LOW_PRECISIONS],
        shown="auto",
    )
    group.add_choice(
        "--placement",
        "keep the data on the device or send them batch by batch",
        ["auto", "resident", "streamed"],
        shown="auto",
    )
    group.add(
        "--distributed",
        "share the training among the processes of `mpiexec -n N mlp-xp train` (mpi), or of "
        "torchrun (torch)",
        choices=["mpi", "torch"],
        metavar="NAME",
    )


def _add_output(group: _Group) -> None:
    group.add("--out", "new run folder (runs/<date>-<time>-<data>)", type=Path, metavar="DIR")
    group.add(
        "--resume",
        "go on with a run that was interrupted, with all of its settings; RUN is its --out",
        type=Path,
        metavar="RUN",
    )
    group.add(
        "--checkpoint",
        "keep the last checkpoints of every N epochs, and the best ones with --validation "
        "(one a minute, until the run is complete)",
        type=_COUNT,
        metavar="N",
    )
    group.add("--tensorboard", "write a log for TensorBoard", action="store_true")
    add_output(group.options)
