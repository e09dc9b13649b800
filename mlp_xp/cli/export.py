"""``mlp-xp export``: write the network of a run for other runtimes."""

from __future__ import annotations

import argparse

import numpy as np

from mlp_xp.cli.process import printable
from mlp_xp.cli.runs import read_run
from mlp_xp.export import to_onnx

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Write the file, and print what it takes and returns."""
    model, images = read_run(args.run_folder)
    model.classes_ = np.asarray(images.class_names)[model.classes_]
    path = args.out or args.run_folder / "model.onnx"
    graph = to_onnx(model, path).graph
    x = graph.input[0]
    shape = " x ".join(map(str, images.image_shape))
    print(printable(f"wrote {path}, {graph.ByteSize() / 1e6:.1f} MB"))
    print(f"input {x.name}: rows of {model.n_features_in_:,} numbers, images of {shape} pixels")
    print(f"outputs: {', '.join(output.name for output in graph.output)}")
    return 0
