"""New images and tables for the network of a run, read like the data it was trained on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.columns.table import join_rows
from mlp_xp.cli.run_folder.config import DataInfo, digest_of
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.datasets._dataset import Column, Dataset, DatasetError
from mlp_xp.datasets._own_data.csv_format import CsvFormat
from mlp_xp.datasets._own_data.images import IMAGE_ENDINGS, image_planes, open_image
from mlp_xp.datasets._own_data.own import split_table, targets_of
from mlp_xp.datasets._own_data.selection import Table
from mlp_xp.datasets._own_data.tables import TABLES, read_table


def find_files(paths: Sequence[Path], info: DataInfo) -> list[Path]:
    """Return the files of the kind that the network reads, with each folder replaced by its files.

    Raise ValueError for a folder without such files.
    """
    endings = TABLES if info.image_shape is None else IMAGE_ENDINGS
    files: list[Path] = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in endings]
            found = [file for file in found if file.is_file() and not file.name.startswith(".")]
        if not found:
            raise ValueError(
                f"{path} contains no file that ends in {', '.join(endings)}: type a file that is "
                "like the training data, or a folder of such files"
            )
        files += found
    return files


def with_format(info: DataInfo, args: argparse.Namespace, files: Sequence[Path]) -> DataInfo:
    """Return the data description with the typed format of CSV files instead of the run's.

    Raise ValueError if a format is typed for a file that is not a CSV file.
    """
    names = [field.name for field in fields(CsvFormat)]
    typed = {name: value for name in names if (value := getattr(args, name)) is not None}
    for path in files:
        if path.suffix.lower() != ".csv":
            CsvFormat(**typed).refuse(path)
    return replace(info, **typed)


def read_rows(
    path: Path, info: DataInfo, *, has_target: bool = False, kept: Sequence[str] = ()
) -> Table:
    """Read the columns of a table that the network needs, and the ``kept`` columns as they are."""
    if path.suffix.lower() not in TABLES:
        raise ValueError(
            f"{path}: the network was trained on a table: type a {', '.join(TABLES)} file"
        )
    columns = info.columns or [Column(name) for name in info.feature_names]
    settings: Any = {"columns": columns, "has_target": has_target, "form": info.form, "kept": kept}
    table = read_table(path, info.target if has_target else None, **settings)
    if not info.columns and np.any(is_gap := np.isnan(table.x)):
        row, column = np.argwhere(is_gap)[0].tolist()
        raise ValueError(
            f"{path}: row {row + 1} has no value in column {columns[column].name!r}, but the "
            "network was trained without missing values: fill in the value, or train on data "
            "that has missing values"
        )
    return table


def read_tables(
    files: Sequence[Path], info: DataInfo, ids: Sequence[str]
) -> tuple[dict[str, list[Any]], Any]:
    """Read tables; return the columns that identify each row, and all rows."""
    tables = [read_rows(path, info, kept=ids) for path in files]
    lengths = [len(table.rows) for table in tables]
    rows: dict[str, list[Any]] = {}
    if len(files) > 1:
        names = map(str, files)
        rows["file"] = [name for name, n in zip(names, lengths, strict=True) for _ in range(n)]
    rows["row"] = [row for n in lengths for row in range(1, n + 1)]
    for name in ids:
        rows[name] = [value for table in tables for value in table.kept[name]]
    return rows, join_rows([table.rows for table in tables])


def read_labeled(files: Sequence[Path], info: DataInfo) -> Dataset:
    """Read tables with the target, and return all rows as test samples.

    If the only table contains the rows of the training, only those that were held out are returned.
    """
    tables = [read_rows(path, info, has_target=True) for path in files]
    if len(tables) == 1:
        with suppress(DatasetError):  # A table to train on needs more rows or classes.
            data = split_table(files[0], tables[0], info.task, info.columns or None)
            if digest_of(data) == info.digest:
                return data
    targets = [
        targets_of(path, table, info.class_names) for path, table in zip(files, tables, strict=True)
    ]
    x, y = join_rows([table.rows for table in tables]), np.concatenate(targets)
    if len(y) < 2 and not info.class_names:
        raise ValueError(f"{files[0]} must have at least 2 rows to compute R2, got {len(y)}")
    names = info.class_names, None, info.max_value, info.feature_names
    return Dataset(x[:0], y, x, y, *names)


def read_images(paths: Sequence[Path], info: DataInfo) -> np.ndarray:
    """Read images, and convert them to the training data's size, channels and pixel range."""
    assert info.image_shape is not None
    channels, height, width = info.image_shape
    pixels = np.empty((len(paths), channels * height * width), np.uint8)
    resized = []
    for row, path in zip(pixels, paths, strict=True):
        picture = open_image(path).convert("RGB" if channels == 3 else "L")
        if picture.size != (width, height):
            resized.append(f"{path} is {'x'.join(map(str, picture.size))}")
            picture = picture.resize((width, height))
        planes = image_planes(picture, channels).astype(np.float32) * (info.max_value / 255)
        row[:] = np.rint(planes).astype(np.uint8).reshape(-1)
    if resized:
        which = resized[0] if len(resized) == 1 else f"{len(resized):,} of {len(paths):,} images"
        print_note(f"{which}{',' if len(resized) == 1 else ' were'} resized to {width}x{height}")
    return pixels
