"""``mlp-xp predict``: classify images, or predict the targets of table rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.run_folder.config import DataInfo
from mlp_xp.cli.run_folder.saved_run import read_run
from mlp_xp.cli.terminal.lines import print_note, printable
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.tasks import task_of
from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data.images import IMAGE_ENDINGS, image_planes, open_image
from mlp_xp.datasets._own_data.tables import TABLES, read_table


def run(args: argparse.Namespace, output: Output) -> int:
    """Print a prediction for each image or table row."""
    model, info = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    model.set_params(backend=args.backend, device=args.device)
    names: list[Any] = _files(args.images, TABLES if info.image_shape is None else IMAGE_ENDINGS)
    if info.image_shape is None:
        names, x = _read_rows(names, info)
    else:
        x = np.stack([read_image(path, info) for path in names])
    lines, found = [], []
    predictions = task_of(info.class_names).predictions(model, x)
    for path, (text, result) in zip(names, predictions, strict=True):
        found.append({"file": str(path), **result})
        lines.append(printable(f"{path}: {text}"))
    output.result("\n".join(lines), {"predictions": found})
    return 0


def _files(paths: list[Path], endings: tuple[str, ...]) -> list[Path]:
    """Replace each folder by its files with one of the file name endings."""
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


def read_image(path: Path, info: DataInfo) -> np.ndarray:
    """Read an image, and convert it to the training data's size, channels and pixel range."""
    assert info.image_shape is not None
    channels, height, width = info.image_shape
    picture = open_image(path)
    picture = picture.convert("RGB" if channels == 3 else "L")
    if picture.size != (width, height):
        given = "x".join(map(str, picture.size))
        print_note(f"{path} is {given}, resized to {width}x{height}")
        picture = picture.resize((width, height))
    planes = np.rint(image_planes(picture, channels).astype(np.float32) * (info.max_value / 255))
    return planes.astype(np.uint8).reshape(-1)


def _read_rows(paths: list[Path], info: DataInfo) -> tuple[list[str], np.ndarray]:
    """Read tables, and return the name of each row and a matrix of all rows."""
    names, rows = [], []
    for path in paths:
        if path.suffix.lower() not in TABLES:
            raise ValueError(
                f"{path}: the network was trained on a table: type a {', '.join(TABLES)} file"
            )
        columns = info.columns or [Column(n) for n in info.feature_names]
        x = read_table(path, columns=columns, has_target=False).x
        if not info.columns and np.any(is_gap := np.isnan(x)):
            row, column = np.argwhere(is_gap)[0].tolist()
            raise ValueError(
                f"{path}: row {row + 1} has no value in column {columns[column].name!r}, but the "
                "network was trained without missing values: fill in the value, or train on data "
                "that has missing values"
            )
        names += [f"{path}, row {row}" for row in range(1, len(x) + 1)]
        rows.append(x)
    return names, np.concatenate(rows)
