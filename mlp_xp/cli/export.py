"""``mlp-xp export``: write the network of a run for other runtimes."""

from __future__ import annotations

import argparse

from mlp_xp.cli.lines import print_line
from mlp_xp.cli.output import Output
from mlp_xp.cli.runs import named, read_run
from mlp_xp.export import to_onnx

__all__ = ["run"]

_N_NAMES = 10


def run(args: argparse.Namespace) -> int:
    """Write the file, and print what it takes and returns."""
    model, images = read_run(args.run_folder)
    path = args.out or args.run_folder / "model.onnx"
    with Output(args).doing(f"writing {path}"):
        graph = to_onnx(named(model, images.class_names), path).graph
    x = graph.input[0]
    if images.image_shape is None:
        names = images.feature_names
        is_long = len(names) > _N_NAMES
        what = ", ".join((*names[:_N_NAMES], "...") if is_long else names)
    else:
        what = f"images of {' x '.join(map(str, images.image_shape))} pixels"
    print_line(f"wrote {path}, {graph.ByteSize() / 1e6:.1f} MB")
    print_line(f"input {x.name}: rows of {model.n_features_in_:,} numbers, {what}")
    print_line(f"outputs: {', '.join(output.name for output in graph.output)}")
    return 0
