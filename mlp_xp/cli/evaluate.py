"""``mlp-xp evaluate``: test what a run trained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.cli.options import add_backend, command, load_data
from mlp_xp.cli.runs import read_run

__all__ = ["add_to"]

_EXAMPLES = """\
  mlp-xp evaluate runs/my-run
  mlp-xp evaluate runs/my-run --backend jax"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = command(
        commands, "evaluate", run, "test a trained network on its data set's test images", _EXAMPLES
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="what `mlp-xp train` wrote")
    parser.add_argument("--data-path", metavar="PATH", help="file or folder of the data set")
    add_backend(parser)


def run(args: argparse.Namespace) -> int:
    """Print the accuracy of each class and of all."""
    model, images = read_run(args.run_folder)
    model.set_params(backend=args.backend, device=args.device)
    data = load_data(images.name, args.data_path or images.path)
    right = model.predict(data.x_test) == data.y_test
    width = max(map(len, images.class_names))
    print(f"{'class':{width}}  images   right")
    for label, name in enumerate(images.class_names):
        of_class = right[data.y_test == label]
        if len(of_class):
            print(f"{name:{width}}  {len(of_class):6,}  {100 * np.mean(of_class):5.1f} %")
    print(f"test accuracy {100 * np.mean(right):.2f} % of {len(right):,} images")
    return 0
