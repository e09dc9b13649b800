"""The settings of a run: each field declares its option, default and help.

To add an option, add a field. `mlp_xp.recipes.parameters` declares the options that set parameters
of the estimator.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.cli.commands.parser import column_names
from mlp_xp.cli.loading import DEFAULT, TABLE, load_data
from mlp_xp.cli.terminal.output import Output
from mlp_xp.datasets import LOADERS, Dataset
from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data.csv_format import CsvFormat
from mlp_xp.datasets._own_data.own import TASKS
from mlp_xp.recipes import FILES
from mlp_xp.recipes.parameters import CLASSIFIER, OPTIONS, Number, Option


def _option(default: Any, *declared: Any, **more: Any) -> Any:
    """Return a field with a default and an `Option`."""
    return field(default=default, metadata={"option": Option(*declared, **more)})


def _separator(text: str) -> str:
    return {"\\t": "\t", "tab": "\t"}.get(text, text)


def _size(text: str) -> tuple[int, int]:
    numbers = text.lower().split("x")
    if len(numbers) in (1, 2) and all(n.isdecimal() and 0 < int(n) <= 4096 for n in numbers):
        return int(numbers[0]), int(numbers[-1])
    raise argparse.ArgumentTypeError(f"must be a size in pixels, e.g. 32 or 32x24, got {text!r}")


@dataclass(frozen=True)
class DataSettings:
    """The location of a run's data, and how to read them.

    ``data`` is a key of `LOADERS`, or `FILES` for the user's own data, which are at ``data_path``;
    for these, see `load_files`. ``columns`` are the columns of the table that a network was trained
    on.
    """

    data: str = _option(
        "",
        "DATA",
        f"{', '.join(LOADERS)}; or your own data: a .csv, .npz or .parquet file, or a folder with "
        "one subfolder of images per class",
    )
    target: str | None = _option(
        None,
        "COLUMN",
        "table column to predict",
        shown="target, label, class or y, else the last one",
    )
    drop: tuple[str, ...] = _option(
        (), "COLUMNS", "table columns to leave out, separated by commas", type=column_names
    )
    task: str | None = _option(
        None,
        "NAME",
        "for a table, whether to predict classes (classification) or numbers (regression, the "
        "default if the numbers have fractions or many distinct values)",
        type=TASKS,
    )
    separator: str | None = _option(
        None,
        "CHAR",
        r"character between the columns of a .csv file, e.g. ';' or '\t'",
        type=_separator,
        shown="recognized",
    )
    decimal: str | None = _option(
        None, "CHAR", "decimal point in a .csv file: '.' or ','", shown="."
    )
    encoding: str | None = _option(
        None, "NAME", "encoding of a .csv file, e.g. cp1252 or utf-16", shown="recognized"
    )
    image_size: tuple[int, int] | None = _option(
        None,
        "WxH",
        "resize the images of a folder",
        type=_size,
        shown="otherwise, all must have the same size",
    )
    data_path: str | None = _option(
        None, "PATH", "DATA's file or folder", shown="searched for, else downloaded"
    )
    columns: tuple[Column, ...] = ()

    @property
    def form(self) -> CsvFormat:
        """The format of CSV files."""
        return CsvFormat(self.separator, self.decimal, self.encoding)

    def load(self, output: Output, *, is_logged: bool = False) -> Dataset:
        """Load the data set."""
        options = {name: getattr(self, name) for name in OWN_OPTIONS}
        options["columns"] = self.columns or None
        return load_data(self.data, self.data_path, options, output, is_logged=is_logged)


# The settings that are only for the user's own data.
_OF_ALL_DATA = "data", "data_path", "columns"
OWN_OPTIONS = [field.name for field in fields(DataSettings) if field.name not in _OF_ALL_DATA]


@dataclass(frozen=True)
class Settings(DataSettings):
    """The settings of a run.

    ``recipe`` is a name or a file. ``params`` are estimator parameters that override the recipe's.
    ``n_before`` is the number of epochs of the complete run that is trained for more epochs.
    ``ensemble`` has the recipe's section ``[ensemble]`` or ``[tuned]`` by its name, if any.
    """

    validation: float | None = _option(
        None,
        "FRACTION",
        "fraction of the training samples to hold out, to measure accuracy or R2 every epoch",
        type=Number(above=0, below=1),
    )
    recipe: str = _option(
        "",
        "NAME",
        "settings to start from: a name that `mlp-xp recipes` lists, or a TOML file; other options "
        "override them",
        shown=f"{DEFAULT}; {TABLE} for your own tables",
    )
    checkpoint: int | None = _option(
        None,
        "N",
        "save a checkpoint every N epochs; keep the newest ones and, with --validation, the best "
        "one",
        type=Number(int, at_least=1),
        shown="one per minute, removed when the run is complete",
    )
    tensorboard: bool = _option(False, None, "write a log for TensorBoard", type=bool)
    params: dict[str, Any] = field(default_factory=dict)
    n_before: int = 0
    ensemble: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def folder_name(self) -> str:
        """The name of the data as it appears in a run folder's name."""
        return Path(self.data_path or "").stem if self.data == FILES else self.data


def option_of(name: str) -> Option:
    """Return the option that sets a field or parameter; by default it has the same name."""
    known = Settings.__dataclass_fields__
    given = known[name].metadata.get("option") if name in known else None
    row = OPTIONS.get(name)
    return given or (row and row.option) or Option()


def option_name(name: str) -> str:
    """Return the option that sets a field or parameter, as it is typed."""
    return option_of(name).flag(name)


def typed_settings(options: Mapping[str, Any]) -> Settings:
    """Return the settings that the user typed, given all options of the command."""
    known = {name: options[name] for name in Settings.__dataclass_fields__ if name in options}
    params = {name: value for name, value in options.items() if name in OPTIONS}
    return Settings(**known | {"params": params})


class TrainCommand(NamedTuple):
    """What the user typed after ``mlp-xp train``, and the `time.perf_counter()` of its start.

    ``settings`` has only the typed options. ``resume`` is True if ``--resume`` has no run.
    """

    settings: Settings
    resume: Path | bool | None
    out: Path | None
    argv: list[str]
    start_time: float


# The options that --resume also accepts, because they change results only by rounding errors.
FREE = {name for name, row in CLASSIFIER.items() if row.free_on_resume}
FREE |= {"data_path", "checkpoint", "tensorboard"}
