"""The options of ``mlp-xp train``; the recipe sets all other parameters."""

from __future__ import annotations

import argparse
from argparse import SUPPRESS
from functools import partial
from pathlib import Path
from typing import Any

from mlp_xp.cli.commands.parser import (
    Options,
    Parser,
    add_backend,
    add_csv_format,
    add_option,
    add_output,
    add_seed,
    column_names,
    number,
)
from mlp_xp.cli.loading import DEFAULT, TABLE
from mlp_xp.datasets import LOADERS
from mlp_xp.optimizers import OPTIMIZERS
from mlp_xp.recipes import read_table
from mlp_xp.recipes.parameter_row import Number, Option
from mlp_xp.recipes.parameters import CLASSIFIER, GROUPS

_COUNT = number(int, at_least=1)


def solvers_with_decay() -> list[str]:
    """Return the names of the solvers that support weight decay."""
    return [name for name, rule in OPTIMIZERS.items() if hasattr(rule(), "weight_decay")]


def add_train(parser: Parser) -> None:
    """Add the options of ``mlp-xp train``; the help shows the default recipe's values."""
    defaults = read_table(DEFAULT)
    parser.argument_default = SUPPRESS  # The namespace omits options that the user does not type.
    parser.usage = "mlp-xp train [DATA] [OPTION ...]"
    _add_data(parser.add_argument_group("data and recipe"), defaults["data"])
    options = {name: row.option for name, row in CLASSIFIER.items() if row.option}
    for title in GROUPS:
        if names := [name for name in options if CLASSIFIER[name].group == title]:
            group = parser.add_argument_group(title.lower())
            for name in names:
                _add_parameter(group, name, options[name], defaults)
    _add_output(parser.add_argument_group("run folder and output"))


def _add_parameter(group: Options, name: str, option: Option, defaults: dict[str, Any]) -> None:
    """Add a parameter's option, whose help ends with the choices and the default."""
    if name == "backend":
        add_backend(group, default=SUPPRESS)  # This also adds --device.
        return
    if name == "random_state":
        add_seed(group, option.help, dest=name)
        return
    row = CLASSIFIER[name]
    known, default = row.known, defaults.get(name, row.default)
    help = option.help or row.summary
    settings: dict[str, Any] = {"dest": name, "metavar": option.metavar}
    if name == "early_stopping":
        settings |= {"dest": "n_iter_no_change", "type": _COUNT, "nargs": "?", "const": 10}
    elif isinstance(known, Number):
        several = "array-like" in row.values
        limits = {"above": known.above, "at_least": known.at_least, "below": known.below}
        settings["type"] = number(known.kind, several=several, **limits)
        settings |= {"nargs": "*"} if several else {}
    elif known is not None:
        settings["choices"] = known
        help += f": {', '.join(known)}"
    elif "boolean" in row.values:
        settings = {"dest": name, "action": argparse.BooleanOptionalAction}
    flag = f"--{(option.name or name).replace('_', '-')}"
    group.add_argument(flag, help=f"{help} ({_shown(default)})", **settings)
    if name == "solver":
        solvers, decay = ", ".join(solvers_with_decay()), default["weight_decay"]
        text = f"weight decay, only with {solvers} ({decay})"
        add_option(group, "--weight-decay D", text, type=number(float, at_least=0))


def _shown(default: Any) -> str:
    """Format the default of an option for the help."""
    if isinstance(default, dict):
        return str(default["class"]).lower()
    if isinstance(default, list):
        return " ".join(map(str, default))
    return "none" if default is None else "no" if default is False else str(default)


def _size(text: str) -> tuple[int, int]:
    numbers = text.lower().split("x")
    if len(numbers) in (1, 2) and all(n.isdecimal() and 0 < int(n) <= 4096 for n in numbers):
        return int(numbers[0]), int(numbers[-1])
    raise argparse.ArgumentTypeError(f"must be a size in pixels, e.g. 32 or 32x24, got {text!r}")


def _add_data(group: Options, default: str) -> None:
    add = partial(add_option, group)
    text = f"{', '.join(LOADERS)}; or your own data: a .csv, .npz or .parquet file, or a "
    text += f"folder with one subfolder of images per class ({default})"
    add("data DATA", text, nargs="?")
    add("--data NAME", "the same as DATA")
    add("--target COLUMN", "table column to predict (target, label, class or y, else the last one)")
    text = "table columns to leave out, separated by commas"
    add("--drop COLUMNS", text, type=column_names)
    text = "for a table, whether to predict classes (classification) or numbers (regression, the "
    text += "default if the numbers have fractions or many distinct values)"
    add("--task NAME", text, choices=["classification", "regression"])
    add_csv_format(group)
    text = "resize the images of a folder (otherwise, all must have the same size)"
    add("--image-size WxH", text, type=_size)
    add("--data-path PATH", "DATA's file or folder (searched for, else downloaded)")
    text = "fraction of the training samples to hold out, to measure accuracy or R2 every epoch"
    add("--validation FRACTION", text, type=number(float, above=0, below=1))
    text = "settings to start from: a name that `mlp-xp recipes` lists, or a TOML file; other "
    text += f"options override them ({DEFAULT}; {TABLE} for your own tables)"
    add("--recipe NAME", text)


def _add_output(group: Options) -> None:
    add, is_path = partial(add_option, group), {"type": Path, "default": None}
    add("--out DIR", "new run folder (runs/<date>-<time>-<data>)", **is_path)
    text = "resume the run in the folder RUN with its settings; with --epochs N, train a complete "
    text += "run up to epoch N; without RUN, start, resume or keep the run that --out names"
    add("--resume RUN", text, nargs="?", const=True, **is_path)
    text = "save a checkpoint every N epochs; keep the newest ones and, with --validation, the "
    text += "best one (one per minute, removed when the run is complete)"
    add("--checkpoint N", text, type=_COUNT)
    add("--tensorboard", "write a log for TensorBoard", action="store_true")
    add_output(group)
