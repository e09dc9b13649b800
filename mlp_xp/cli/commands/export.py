"""``mlp-xp export``: export the network of a run to ONNX or C."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.columns.table import as_matrix, join_rows
from mlp_xp._utils.optional import as_typed
from mlp_xp._utils.storage.durable import make_folder
from mlp_xp.cli.new_data import find_files, read_images, read_rows
from mlp_xp.cli.run_folder.config import DataInfo
from mlp_xp.cli.run_folder.saved_run import named, read_run
from mlp_xp.cli.terminal.lines import print_line
from mlp_xp.cli.terminal.output import Output
from mlp_xp.estimators.averaging import networks_of
from mlp_xp.export import to_c, to_onnx

_NAMES = {"onnx": "model.onnx", "c": "model.h"}
_N_NAMES = 10
_N_ROWS = 500  # The most rows of the training data that calibrate 8 bits.


def run(args: argparse.Namespace, output: Output) -> int:
    """Write the file, and print its inputs and outputs."""
    _check_options(args)
    path = args.out or args.run_folder / _NAMES[args.to]
    if path.is_dir():
        raise ValueError(f"{path} is a folder: type --out {path / _NAMES[args.to]}")
    model, info = read_run(args.run_folder)
    rows = _calibration_rows(args.calibrate, info, output) if args.dtype == "int8" else None
    model = named(model, info.class_names, info.feature_names)
    make_folder(path.parent)
    with output.doing(f"writing {path}"):
        if args.to == "onnx":
            lines = _write_onnx(model, path, info, args.interval)
        else:
            lines = _write_c(model, path, info, args, rows)
    print_line(f"wrote {path}, {path.stat().st_size / 1e3:,.0f} kB")
    for line in lines:
        print_line(line)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that does not fit the format."""
    if args.to != "c":
        for name in ("name", "dtype", "calibrate"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name} is for --to c, not for --to {args.to}: leave it out")
    elif args.interval is not None:
        raise ValueError("--interval is for --to onnx, not for --to c: leave it out")
    if args.calibrate is not None and args.dtype != "int8":
        raise ValueError("--calibrate is for 8 bits: add --dtype int8, or leave it out")


def _calibration_rows(paths: list[Path] | None, info: DataInfo, output: Output) -> np.ndarray:
    """Return the rows of files, or by default some training rows, to define ranges of 8 bits."""
    if paths is not None:
        files = find_files(paths, info)
        if info.image_shape is not None:
            return read_images(files, info)
        return as_matrix(join_rows([read_rows(path, info).rows for path in files]))
    try:
        rows = as_matrix(info.load(output).x_train)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--dtype int8 needs rows, but the training data cannot be read ({error}): type "
            "--calibrate and a file of such data"
        ) from error
    return rows[:: -(-len(rows) // _N_ROWS)]


def _write_onnx(model: Any, path: Path, info: DataInfo, interval: float | None) -> list[str]:
    """Write an ONNX file; return lines that describe its inputs and outputs."""
    graph = to_onnx(model, path, interval=interval).graph
    outputs = ", ".join(output.name for output in graph.output)
    if len(graph.input) == 1:
        what = f"rows of {model.n_features_in_:,} numbers, {_content(info)}"
        return [f"input {graph.input[0].name}: {what}", f"outputs: {outputs}"]
    names = [one.name for one in graph.input]
    return [f"{len(names)} inputs for the columns: {_shortened(names)}", f"outputs: {outputs}"]


def _write_c(
    model: Any, path: Path, info: DataInfo, args: argparse.Namespace, rows: np.ndarray | None
) -> list[str]:
    """Write a C header; return lines on its inputs, outputs and compilation."""
    dtype = args.dtype or "float32"
    for one in (model, *networks_of(model)):
        vars(one).pop("feature_names_in_", None)  # The rows are arrays, without column names.
    try:
        text = to_c(model, path, name=args.name, dtype=dtype, calibration_X=rows)
    except ValueError as error:  # Name the options instead of the parameters.
        message = str(error).replace("`name`", "--name").replace("pass name=", "type --name ")
        raise ValueError(message) from error
    caps = text.partition("#ifndef ")[2].partition("_H\n")[0]
    if row := re.search(r"^\} (\w+_row);", text, re.MULTILINE):
        what = f"{row[1]}, a struct with a member for each column: {_content(info)}"
    else:
        what = f"array of {model.n_features_in_:,} numbers, {_content(info)}"
    outputs = re.findall(rf"^#define {caps}_(\w+)_SIZE (\d+)", text, re.MULTILINE)
    command = ("cc", "-O2", f"-D{caps}_MAIN", "-x", "c", path, "-o", path.stem, "-lm")
    return [
        f"input: {what}",
        f"outputs: {', '.join(f'{name.lower()} ({size})' for name, size in outputs)}",
        f"compile it as a program that reads rows of a CSV file: {as_typed(*command)}",
    ]


def _content(info: DataInfo) -> str:
    """Return a description of a row: the image size or the feature names."""
    if info.image_shape is not None:
        return f"images of {' x '.join(map(str, info.image_shape))} pixels"
    return _shortened(info.feature_names)


def _shortened(names: Any) -> str:
    return ", ".join((*names[:_N_NAMES], "...") if len(names) > _N_NAMES else names)
