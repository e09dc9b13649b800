"""``mlp-xp evaluate``: test the network of a run."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.run_folder.config import DataInfo, digest_of
from mlp_xp.cli.run_folder.saved_run import read_run
from mlp_xp.cli.terminal.lines import print_note
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.tasks import baseline_of, task_of
from mlp_xp.datasets import Dataset
from mlp_xp.recipes import FILES


def run(args: argparse.Namespace, output: Output) -> int:
    """Print the scores of a network; for a classifier, also the accuracy of each class."""
    model, info = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    model.set_params(backend=args.backend, device=args.device)
    known, path = info, args.data_path or info.path
    info = replace(info, path=path)
    data = info.load(output)
    if info.name == FILES:
        output.samples = "samples"
        form = info.class_names, info.image_shape, info.feature_names
        if (data.class_names, data.image_shape, data.feature_names) != form:
            raise ValueError(
                f"{path} differs from the training data in classes, columns or image size: set "
                "--data-path to data of the same form"
            )
        data = _untrained(Path(str(path)), data, known)
    task = task_of(info.class_names)
    with output.doing(f"testing on {len(data.x_test):,} {output.samples}"):
        test = task.test(model, data)
    lines, details = task.table(test, output.samples)
    for line in lines:
        output.print(line)
    scores = task.scores(test.y, test.predicted)
    if info.name == FILES:
        scores |= baseline_of(task, data)
    text = f"{task.summary(scores)} of {len(test.y):,} {output.samples}"
    output.result(text, {**scores, "images": len(test.y), **details})
    return 0


def _untrained(path: Path, data: Dataset, known: DataInfo) -> Dataset:
    """Return the data with a test set that the network was not trained on.

    If the targets differ from the training data, other rows were held out in the training.
    """
    is_split = (path / "train").is_dir() and (path / "test").is_dir()
    if is_split or known.digest in (None, digest_of(data)):
        return data
    if path.resolve() == Path(str(known.path)).resolve():
        raise ValueError(
            f"{path} has changed since the training, so samples to test on may have been trained "
            "on: restore it, or set --data-path to other samples"
        )
    print_note(f"{path} differs from the training data, so all of its samples are tested")
    x_test = np.concatenate([data.x_train, data.x_test])
    return data._replace(x_test=x_test, y_test=np.concatenate([data.y_train, data.y_test]))
