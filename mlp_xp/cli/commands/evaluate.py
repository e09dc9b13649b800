"""``mlp-xp evaluate``: test the network of a run."""

from __future__ import annotations

import argparse
from dataclasses import replace

from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.run_folder.saved_run import read_run
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.tasks import baseline_of, task_of
from mlp_xp.recipes import FILES


def run(args: argparse.Namespace, output: Output) -> int:
    """Print the scores of a network; for a classifier, also the accuracy of each class."""
    model, info = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    model.set_params(backend=args.backend, device=args.device)
    path = args.data_path or info.path
    info = replace(info, path=path)
    data = info.load(output)
    if info.name == FILES:
        output.samples = "samples"
        known = info.class_names, info.image_shape, info.feature_names
        if (data.class_names, data.image_shape, data.feature_names) != known:
            raise ValueError(
                f"{path} differs from the training data in classes, columns or image size: set "
                "--data-path to data of the same form"
            )
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
