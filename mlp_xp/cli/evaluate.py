"""``mlp-xp evaluate``: test the network of a run."""

from __future__ import annotations

import argparse

import numpy as np

from mlp_xp.cli.loading import load_backend, load_data, loading
from mlp_xp.cli.options import FILES
from mlp_xp.cli.output import Output
from mlp_xp.cli.process import printable
from mlp_xp.cli.runs import read_run

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Print the accuracy of each class and of all classes."""
    output = Output(args)
    model, images = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    model.set_params(backend=args.backend, device=args.device)
    path = args.data_path or images.path
    with loading(images.name, path, output):
        data = load_data(images.name, path, images.target, images.image_size)
    if images.name == FILES:
        output.samples = "samples"
        facts = images.class_names, images.image_shape, images.feature_names
        if (data.class_names, data.image_shape, data.feature_names) != facts:
            raise ValueError(
                f"{path} has other classes, columns or sizes of pictures than the training: name "
                "data like those as --data-path"
            )
    with output.doing(f"testing on {len(data.x_test):,} {output.samples}"):
        is_correct = model.predict(data.x_test) == data.y_test
    names = list(map(printable, images.class_names))
    width = max(map(len, names))
    output.print(f"{'class':{width}}  {output.samples}   right")
    by_class = {}
    for label, name in enumerate(names):
        of_class = is_correct[data.y_test == label]
        if len(of_class):
            by_class[images.class_names[label]] = float(np.mean(of_class))
            count = f"{len(of_class):{len(output.samples)},}"
            output.print(f"{name:{width}}  {count}  {100 * np.mean(of_class):5.1f} %")
    accuracy = float(np.mean(is_correct))
    output.result(
        f"test accuracy {100 * accuracy:.2f} % of {len(is_correct):,} {output.samples}",
        {"test_accuracy": accuracy, "images": len(is_correct), "by_class": by_class},
    )
    return 0
