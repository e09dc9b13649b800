"""``mlp-xp export``: export the network of a run to ONNX."""

from __future__ import annotations

import argparse

from mlp_xp._utils.storage.durable import make_folder
from mlp_xp.cli.run_folder.saved_run import named, read_run
from mlp_xp.cli.terminal.lines import print_line
from mlp_xp.cli.terminal.output import Output
from mlp_xp.export import to_onnx

_N_NAMES = 10


def run(args: argparse.Namespace, output: Output) -> int:
    """Write the ONNX file, and print its inputs and outputs."""
    model, info = read_run(args.run_folder)
    path = args.out or args.run_folder / "model.onnx"
    make_folder(path.parent)
    with output.doing(f"writing {path}"):
        graph = to_onnx(named(model, info.class_names, info.feature_names), path).graph
    is_whole = len(graph.input) == 1
    names = info.feature_names if is_whole else [one.name for one in graph.input]
    what = ", ".join((*names[:_N_NAMES], "...") if len(names) > _N_NAMES else names)
    if info.image_shape is not None:
        what = f"images of {' x '.join(map(str, info.image_shape))} pixels"
    print_line(f"wrote {path}, {graph.ByteSize() / 1e6:.1f} MB")
    if is_whole:
        print_line(f"input {graph.input[0].name}: rows of {model.n_features_in_:,} numbers, {what}")
    else:
        print_line(f"{len(names)} inputs for the columns: {what}")
    print_line(f"outputs: {', '.join(output.name for output in graph.output)}")
    return 0
