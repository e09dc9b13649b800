"""``mlp-xp evaluate``: test the network of a run."""

from __future__ import annotations

import argparse

import numpy as np

from mlp_xp.cli.loading import load_backend, load_data
from mlp_xp.cli.process import printable
from mlp_xp.cli.runs import read_run

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Print the accuracy of each class and of all classes."""
    model, images = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    model.set_params(backend=args.backend, device=args.device)
    data = load_data(images.name, args.data_path or images.path)
    is_correct = model.predict(data.x_test) == data.y_test
    names = list(map(printable, images.class_names))
    width = max(map(len, names))
    print(f"{'class':{width}}  images   right")
    for label, name in enumerate(names):
        of_class = is_correct[data.y_test == label]
        if len(of_class):
            print(f"{name:{width}}  {len(of_class):6,}  {100 * np.mean(of_class):5.1f} %")
    print(f"test accuracy {100 * np.mean(is_correct):.2f} % of {len(is_correct):,} images")
    return 0
