"""``mlp-xp evaluate``: test the network of a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlp_xp._utils.columns.table import join_rows
from mlp_xp.cli.new_data import find_files, read_labeled, with_format
from mlp_xp.cli.run_folder.config import DataInfo, digest_of
from mlp_xp.cli.run_folder.saved_run import read_run_on
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.terminal.text import count_text
from mlp_xp.cli.training.tasks import baseline_of, task_of
from mlp_xp.datasets import Dataset
from mlp_xp.recipes import FILES

_ALL_TESTED = "{} differs from the training data, so all of its samples are tested"


def run(args: argparse.Namespace, output: Output) -> int:
    """Print the scores of a network; for a classifier, also the accuracy of each class."""
    model, info = read_run_on(args)
    paths = [*args.files, *([] if args.data_path is None else [args.data_path])]
    if args.files and args.data_path:
        raise ValueError(f"type {args.files[0]} or --data-path {args.data_path}, not both")
    if info.data == FILES:
        output.samples = "samples"
    data = _load(paths, info, args, output)
    task = task_of(info.class_names)
    with output.doing(f"testing on {count_text(len(data.x_test), output.samples)}"):
        test = task.test(model, data)
    lines, details = task.table(test, output.samples)
    for line in lines:
        output.print(line)
    scores = task.scores(test.y, test.predicted)
    if info.data == FILES:
        scores |= baseline_of(task, data)
    text = f"{task.summary(scores)} of {count_text(len(test.y), output.samples)}"
    counted = "rows" if info.image_shape is None else "images"
    output.result(text, {**scores, counted: len(test.y), **details})
    return 0


def _load(
    paths: Sequence[Path], info: DataInfo, args: argparse.Namespace, output: Output
) -> Dataset:
    """Load the test samples; raise ValueError for data of another form than the training data."""
    known = [] if info.data_path is None else [Path(info.data_path)]
    is_new = [path.resolve() for path in paths] != [path.resolve() for path in known]
    if info.data == FILES and info.image_shape is None and paths and is_new:
        files = find_files(paths, info)
        info = with_format(info, args, files)
        with output.doing(f"loading {files[0]}", is_logged=True):
            data = read_labeled(files, info)
        if digest_of(data) != info.digest:
            print_note(_ALL_TESTED.format(*files) if len(files) == 1 else "all rows are tested")
        return data
    if len(paths) > 1:
        raise ValueError(f"type only {paths[0]}: several files are for networks of tables")
    path = str(paths[0]) if paths else info.data_path
    read = replace(with_format(info, args, paths or known), data_path=path)
    if Path(str(path)).suffix.lower() != ".csv":
        read = replace(read, separator=None, decimal=None, encoding=None)
    data = read.load(output)
    if info.data != FILES:
        return data
    form = info.class_names, info.image_shape, info.feature_names
    if (data.class_names, data.image_shape, data.feature_names) != form:
        raise ValueError(
            f"{path} differs from the training data in classes, columns or image size: type data "
            "of the same form after RUN"
        )
    return _untrained(Path(str(path)), data, info)


def _untrained(path: Path, data: Dataset, known: DataInfo) -> Dataset:
    """Return the data with a test set that the network was not trained on.

    If the targets differ from the training data, other rows were held out in the training.
    """
    is_split = (path / "train").is_dir() and (path / "test").is_dir()
    if is_split or known.digest in (None, digest_of(data)):
        return data
    if path.resolve() == Path(str(known.data_path)).resolve():
        raise ValueError(
            f"{path} has changed since the training, so samples to test on may have been trained "
            "on: restore it, or type other samples after RUN"
        )
    print_note(_ALL_TESTED.format(path))
    x_test = join_rows([data.x_train, data.x_test])
    return data._replace(x_test=x_test, y_test=np.concatenate([data.y_train, data.y_test]))
