"""The options of ``mlp-xp train``; the recipe decides what is not typed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mlp_xp.cli.options import DEFAULT, Parser, add_backend, add_seed, number

__all__ = ["add_train", "solvers_with_decay"]


def solvers_with_decay() -> list[str]:
    """Return the names of the solvers that have a weight decay."""
    from mlp_xp.optimizers import OPTIMIZERS

    return [name for name, rule in OPTIMIZERS.items() if hasattr(rule(), "weight_decay")]


def add_train(parser: Parser) -> None:
    """Add the options of ``mlp-xp train``."""
    from mlp_xp.backends import LOW_PRECISIONS
    from mlp_xp.datasets import LOADERS
    from mlp_xp.nn.layers import ACTIVATIONS
    from mlp_xp.optimizers import OPTIMIZERS
    from mlp_xp.optimizers.schedules import SCHEDULES
    from mlp_xp.recipes import read_table

    defaults = read_table(DEFAULT)

    def add(option: str, help: str, default: str = "", **settings: Any) -> None:
        """Add an option; ``default`` names the setting of the recipe shown in the help."""
        value = defaults.get(default)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        text = help if value is None else f"{help} ({value})"
        parser.add_argument(option, help=text, **settings)

    at_least_0, share = number(float, at_least=0), number(float, at_least=0, below=1)
    positive, count = number(float, above=0), number(int, at_least=1)
    parser.add_argument(
        "--recipe",
        help="a name that `mlp-xp recipes` lists, or a TOML file; options override it "
        "(%(default)s)",
        default=DEFAULT,
        metavar="NAME",
    )
    add("--max-time", "seconds that the whole command may take", type=positive, metavar="SECONDS")
    add("--data", "data set", "data", choices=list(LOADERS))
    add("--data-path", "its file or folder (searched for, else fetched)", metavar="PATH")
    add(
        "--validation",
        "share of the training images to hold out and measure the accuracy on, each epoch",
        type=number(float, above=0, below=1),
        metavar="FRACTION",
    )
    add(
        "--hidden",
        "width of each hidden layer",
        "hidden_layer_sizes",
        type=count,
        nargs="*",
        metavar="WIDTH",
    )
    add("--activation", "of the hidden layers", "activation", choices=list(ACTIVATIONS))
    add(
        "--normalization",
        "between each hidden layer and its activation (none)",
        choices=["layer", "batch"],
    )
    add(
        "--residual",
        "add its input to the output of each hidden layer as wide as the one before it (no)",
        action=argparse.BooleanOptionalAction,
    )
    add("--dropout", "share of hidden outputs to drop (0)", type=share)
    add("--label-smoothing", "share of the uniform distribution (0)", type=share)
    solver = defaults["solver"]
    add(
        "--solver",
        f"update rule ({solver['class'].lower()})",
        choices=[*OPTIMIZERS, "lbfgs"],
    )
    add(
        "--weight-decay",
        f"of {', '.join(solvers_with_decay())}; others have none ({solver['weight_decay']})",
        type=at_least_0,
    )
    add("--learning-rate", "initial or peak rate", "learning_rate_init", type=positive)
    add(
        "--schedule",
        "of the learning rate; invscaling needs sgd",
        "learning_rate",
        choices=list(SCHEDULES),
    )
    add("--epochs", "passes over the data", "max_iter", type=count)
    add("--batch-size", "images per step", "batch_size", type=count)
    add("--alpha", "strength of the L2 penalty", "alpha", type=at_least_0)
    add("--max-grad-norm", "clip the gradient norm to this (none)", type=positive)
    add("--ema-decay", "test a moving average of the weights, e.g. 0.999 (none)", type=share)
    add_backend(parser, default=None)
    add(
        "--precision",
        "of the products (auto)",
        choices=["auto", "float32", "float64", *LOW_PRECISIONS],
    )
    add(
        "--placement",
        "keep the data on the device or send them batch by batch (auto)",
        choices=["auto", "resident", "streamed"],
    )
    add(
        "--distributed",
        "share the training among the processes of `mpiexec -n N mlp-xp train`, or of torchrun",
        choices=["mpi", "torch"],
    )
    add_seed(parser, "of weights, order and validation images", None)
    add(
        "--resume",
        "go on with a run that was interrupted, with all of its settings; RUN is its --out",
        type=Path,
        metavar="RUN",
    )
    add(
        "--checkpoint",
        "keep the last checkpoints of every N epochs, and the best ones with --validation "
        "(one a minute, until the run is complete)",
        type=count,
        metavar="N",
    )
    add("--tensorboard", "write a log for TensorBoard", action="store_true")
    add(
        "--out",
        "new run folder (runs/<date>-<time>-<data>)",
        type=Path,
        metavar="DIR",
    )
