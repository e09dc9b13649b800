"""The options of ``mlp-xp train``, which other commands share; the recipe sets all else."""

from __future__ import annotations

import argparse
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from mlp_xp.cli.commands.parser import Options, Parser, add_option, add_output, number
from mlp_xp.cli.loading import DEFAULT
from mlp_xp.cli.settings import Settings, option_of
from mlp_xp.recipes import read_table
from mlp_xp.recipes.parameters import GROUPS, OPTIONS, Number

_OF_RUN = "checkpoint", "tensorboard"  # The settings that are not about the data or the recipe.


def add_train(parser: Parser) -> None:
    """Add the options of ``mlp-xp train``; the help shows the default recipe's values."""
    recipe = read_table(DEFAULT)
    recipe["weight_decay"] = recipe["solver"]["weight_decay"]
    # The namespace omits options that the user does not type.
    parser.argument_default = argparse.SUPPRESS
    parser.usage = "mlp-xp train [DATA] [OPTION ...]"
    group = parser.add_argument_group("data and recipe")
    data, *others = [field.name for field in fields(Settings) if "option" in field.metadata]
    group.add_argument(
        data, metavar="DATA", nargs="?", help=f"{option_of(data).help} ({recipe[data]})"
    )
    add_option(group, "--data NAME", "the same as DATA")
    for name in others:
        if name not in _OF_RUN:
            add_declared(group, name)
    for title in GROUPS:
        if names := [name for name, row in OPTIONS.items() if row.group == title]:
            group = parser.add_argument_group(title.lower())
            for name in names:
                add_declared(group, name, _shown(recipe.get(name, OPTIONS[name].default)))
    group = parser.add_argument_group("run folder and output")
    add, is_path = partial(add_option, group), {"type": Path, "default": None}
    add("--out DIR", "new run folder (runs/<date>-<time>-<data>)", **is_path)
    text = "resume the run in the folder RUN with its settings; with --epochs N, train a complete "
    text += "run up to epoch N; without RUN, start, resume or keep the run that --out names"
    add("--resume RUN", text, nargs="?", const=True, **is_path)
    for name in _OF_RUN:
        add_declared(group, name)
    add_output(group)


def add_declared(
    options: Options, name: str, shown: str = "", note: str = "", **settings: Any
) -> None:
    """Add the option that sets a field or parameter; its help ends with the default and a note."""
    option, row = option_of(name), OPTIONS.get(name)
    help, kind, values = option.help, option.type, [] if row is None else row.values
    settings |= {"dest": name, "metavar": option.metavar}
    if row is not None:
        kind, help = kind or row.known, help or row.summary
        if isinstance(row.known, tuple) and not isinstance(row.known, Number):
            names = ", ".join(row.known)
            help = help.replace("{}", names) if "{}" in help else f"{help}: {names}"
    if isinstance(kind, Number):
        several = "array-like" in values
        limits = {"above": kind.above, "at_least": kind.at_least, "below": kind.below}
        settings["type"] = number(kind.kind, several=several, **limits)
        settings |= {"nargs": "*"} if several else {}
    elif isinstance(kind, tuple):
        settings["choices"] = kind
    elif kind is bool or "boolean" in values:
        settings = {
            "dest": name,
            "action": "store_true" if kind else argparse.BooleanOptionalAction,
        }
    else:
        settings["type"] = kind
    if option.const is not None:
        settings |= {"nargs": "?", "const": option.const}
    if shown := option.shown or shown:
        help += f" ({shown}{note})"
    options.add_argument(option.flag(name), help=help, **settings)


def add_backend(options: Options) -> None:
    """Add ``--backend`` and ``--device``."""
    add_declared(options, "backend", default="auto")
    add_declared(options, "device")


def add_csv_format(options: Options) -> None:
    """Add the options for the format of CSV files."""
    for name in ("separator", "decimal", "encoding"):
        add_declared(options, name, note=", or as in the training")


def _shown(default: Any) -> str:
    """Format the default of an option for the help."""
    if isinstance(default, dict):
        return str(default["class"]).lower()
    if isinstance(default, list):
        return " ".join(map(str, default))
    return "none" if default is None else "no" if default is False else str(default)
