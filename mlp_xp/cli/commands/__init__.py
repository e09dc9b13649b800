"""The table of commands: their options, and the functions that run them.

Importing this module loads no numerical library.
"""

from __future__ import annotations

import argparse
import pkgutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp import __version__
from mlp_xp.cli.commands.parser import Parser, add_option, add_output, column_names, number

__all__ = ["COLUMNS", "COMMANDS", "parse"]

# The columns of the table that `mlp-xp runs` prints, and the choices of --sort.
COLUMNS = ("run", "date", "data", "score", "epochs", "seconds", "speed", "backend", "network")


class Command(NamedTuple):
    """A command: its help line, its options, the function that runs it, and examples.

    ``run`` names the function, as ``module:function`` in this package. The function takes the
    parsed options and an `Output`, and returns the exit status. ``examples`` are the arguments of
    example commands.
    """

    summary: str
    add_options: Callable[[Parser], None] | None
    run: str
    examples: tuple[str, ...]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments; raise ValueError for unknown or invalid ones.

    The result's ``load()`` imports and returns the function that runs the command.
    """
    parser = Parser(
        prog="mlp-xp",
        usage="mlp-xp COMMAND [OPTION ...]",
        description=f"Multilayer perceptrons on NumPy, CuPy, PyTorch or JAX.\n\n{_overview()}",
        epilog="examples:\n"
        "  mlp-xp train                      train on CIFAR-10\n"
        "  mlp-xp train table.csv            train on your own table\n"
        "  mlp-xp evaluate runs/my-run       test the trained network\n"
        "  mlp-xp predict runs/my-run a.png  classify an image\n"
        "  mlp-xp train --help               all options of a command",
    )
    version = f"mlp-xp {__version__}"
    add_option(parser, "--version", "print the version and exit", action="version", version=version)
    subparsers = parser.add_subparsers(
        metavar="COMMAND", required=True, help=argparse.SUPPRESS, prog="mlp-xp"
    )
    for name, command in COMMANDS.items():
        examples = "\n".join(f"  mlp-xp {name} {typed}".rstrip() for typed in command.examples)
        subparser = subparsers.add_parser(
            name,
            add_options=command.add_options,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"examples:\n{examples}",
        )
        load = partial(pkgutil.resolve_name, f"{__name__}.{command.run}")
        subparser.set_defaults(load=load, saves=name in _SAVING)
    return parser.parse_args(argv)


def _overview() -> str:
    lines = [
        [f"{heading}:", *(f"  {name:9} {COMMANDS[name].summary}" for name in names.split())]
        for heading, names in _HEADINGS.items()
    ]
    return "\n\n".join(map("\n".join, lines))


def _shared() -> Any:
    """Return the module of the options that several commands have."""
    # Import late, since this loads the libraries that define the options' choices.
    from mlp_xp.cli.commands import train_options

    return train_options


def _add_train(parser: Parser) -> None:
    _shared().add_train(parser)


def _add_evaluate(parser: Parser) -> None:
    _add_run(parser)
    text = "new data to test on: tables with the target, or a folder of images per class (the data "
    text += "set's test samples)"
    add_option(parser, "files DATA", text, type=Path, nargs="*", default=[])
    add_option(parser, "--data-path PATH", "the same as DATA", type=Path)
    _shared().add_csv_format(parser)
    _shared().add_backend(parser)
    add_output(parser)


def _add_predict(parser: Parser) -> None:
    _add_run(parser)
    text = "a PNG or JPEG file; a .csv, .npz or .parquet file, if RUN was trained on a table; or "
    text += "a folder of such files"
    add_option(parser, "files FILE", text, type=Path, nargs="+")
    text = "write a row for each row or image to a .csv, .json or .parquet file, replaced if it "
    text += "exists; without it, a short table is printed"
    add_option(parser, "--out FILE", text, type=Path)
    text = "also predict lower and upper limits that contain this fraction of new targets, or for "
    text += "classes a set that contains the correct class, e.g. 0.9; learned from the samples "
    text += "that the training held out"
    add_option(parser, "--interval P", text, type=float)
    text = "table columns to copy to the predictions, separated by commas"
    add_option(parser, "--id COLUMNS", text, type=column_names, default=())
    _shared().add_csv_format(parser)
    _shared().add_backend(parser)
    add_output(parser)


def _add_explain(parser: Parser) -> None:
    _add_run(parser)
    text = "a .csv, .npz or .parquet file, or a folder of such files"
    add_option(parser, "files FILE", text, type=Path, nargs="+")
    text = "write the values of each row to a .csv, .json or .parquet file, replaced if it exists"
    add_option(parser, "--out FILE", text, type=Path)
    text = "a table to draw 100 rows from, which all rows are compared with; best the training "
    text += "data (FILE)"
    add_option(parser, "--background FILE", text, type=Path)
    text = "table columns to copy to the values, separated by commas"
    add_option(parser, "--id COLUMNS", text, type=column_names, default=())
    seed = number(int, at_least=0, below=2**32)
    add_option(parser, "--seed N", "seed of the rows that are drawn (0)", type=seed, default=0)
    _shared().add_csv_format(parser)
    _shared().add_backend(parser)
    add_output(parser)


def _add_check(parser: Parser) -> None:
    _add_run(parser)
    text = "a .csv, .npz or .parquet file, or a folder of such files"
    add_option(parser, "files FILE", text, type=Path, nargs="+")
    limit = number(float, at_least=0)
    text = "the largest population stability index of a column (%(default)s)"
    add_option(parser, "--drift-limit X", text, type=limit, default=0.25)
    text = "the largest fraction of rows outside the training range, or with new categories, or "
    text += "with values missing that never were (%(default)s)"
    add_option(parser, "--unseen-limit X", text, type=limit, default=0.01)
    text = "write a row for each column to a .csv, .json or .parquet file, replaced if it exists"
    add_option(parser, "--out FILE", text, type=Path)
    _shared().add_csv_format(parser)
    add_output(parser)


def _add_card(parser: Parser) -> None:
    _add_run(parser)
    text = "the table that RUN was trained on, if it has moved"
    add_option(parser, "--data-path PATH", text, type=Path)
    text = "columns by whose categories or intervals losses are shown, separated by commas (the "
    text += "three most important columns)"
    add_option(parser, "--group COLUMNS", text, type=column_names, default=())
    add_output(parser)


def _add_export(parser: Parser) -> None:
    _add_run(parser)
    add = partial(add_option, parser)
    add("--to", "the format: onnx, or c for a C header", choices=["onnx", "c"], required=True)
    text = "file to write, replaced if it exists (RUN/model.onnx or RUN/model.h)"
    add("--out FILE", text, type=Path)
    add("--name NAME", "C identifier that begins all names in the header (the file's name)")
    kinds = ["float32", "float64", "int8"]
    add("--dtype NAME", f"{', '.join(kinds)}: numbers of the C header (float32)", choices=kinds)
    text = "for int8: tables or images that define the range of each layer's inputs (some of the "
    text += "training data)"
    add("--calibrate FILE", text, type=Path, nargs="+")
    text = "for onnx: also output limits that contain this fraction of new targets, or a set of "
    text += "classes, as `mlp-xp predict --interval` does"
    add("--interval P", text, type=float)


def _add_run(parser: Parser) -> None:
    add_option(parser, "run_folder RUN", "folder that `mlp-xp train` wrote", type=Path)


def _add_runs(parser: Parser) -> None:
    add = partial(add_option, parser)
    add("folder FOLDER", "(runs)", type=Path, nargs="?", default=Path("runs"))
    text = f"{', '.join(COLUMNS)}; largest number or newest run first (date)"
    add("--sort COLUMN", text, choices=COLUMNS, default="date")
    add("--reverse", "reverse the order", action="store_true")
    add("--json", "print the table as JSON, with unrounded numbers", action="store_true")


def _add_compare(parser: Parser) -> None:
    add_option(parser, "runs RUN", "two or more folders of runs", type=Path, nargs="+")
    text = "HTML page to write, replaced if it exists (%(default)s)"
    add_option(parser, "--out FILE", text, type=Path, default=Path("comparison.html"))


def _add_lab(parser: Parser) -> None:
    add, count = partial(add_option, parser), number(int, at_least=1)
    add("--data-path PATH", "file or folder of CIFAR-10 (searched for, else downloaded)")
    add("--hidden N", "hidden neurons (%(default)s)", type=count, default=64)
    rate = number(float, above=0)
    add("--learning-rate R", "step size (%(default)s)", type=rate, default=0.1)
    add("--epochs N", "number of epochs (%(default)s)", type=count, default=100)
    seed = number(int, at_least=0, below=2**32)
    add("--seed N", "seed of the split and the initial weights (0)", type=seed, default=0)
    _shared().add_backend(parser)
    out = Path("results/mlp.png")
    add("--out FILE", "PNG file to write (%(default)s)", type=Path, default=out)


def _add_data(parser: Parser) -> None:
    from mlp_xp.datasets import LOADERS

    add = partial(add_option, parser, choices=list(LOADERS))
    add("name NAME", ", ".join(LOADERS), nargs="?")
    add("--fetch NAME", "find or download a data set, and decode it")


def _add_bench(parser: Parser) -> None:
    add, count = partial(add_option, parser), number(int, at_least=1)
    text = "fewer contenders and less data: two to three minutes"
    add("--quick", text, action="store_true")
    add("--out DIR", "folder to write to (bench/history/<date>)", type=Path)
    add("--rounds N", "runs per contender (7; quick: 5)", type=count)
    add("--threads N", "threads per contender (all CPUs)", type=count)
    parts = "tiny, lab, lab-full, medium, wide, predict, one-row, drop-in, search, busy, "
    parts += "start-up, end-to-end, growth (all); backends, products, out-of-core, ranks, "
    parts += "settings, c-export, compile-times, shapley; "
    parts += "drop-in/lbfgs for the drop-in cases that begin with lbfgs"
    add("--only PART", parts, nargs="+")
    add("--contenders NAME", "contenders, named as in the tables (all)", nargs="+")
    add("--images N", "maximum number of images per epoch", type=count)
    add("--check", "fail if a ratio to a peer is below its floor", action="store_true")


# The headings in ``mlp-xp --help``.
_HEADINGS = {
    "train and use networks": "train evaluate predict explain check card runs compare export",
    "learn and compare": "lab bench",
    "see what this machine has": "data recipes backends compile",
}
# The commands that must save or remove files after Ctrl-C.
_SAVING = {"train", "lab", "data", "compile", "bench"}
COMMANDS = {
    "train": Command(
        "train a network on images or a table",
        _add_train,
        "train:run",
        (
            "",
            "titanic.csv --target survived",
            "homes.csv --target price --drop id,address --out runs/homes",
            "photos --image-size 32x32",
            "--epochs 5 --hidden 1024 1024 512 --activation silu",
            "--data fashion-mnist --validation 0.1 --out runs/fashion",
            "--hidden 512 512 512 --normalization batch --residual --dropout 0.2 --epochs 30",
            "--recipe five-minutes --seed 1",
            "--validation 0.1 --checkpoint 5 --tensorboard",
            "--backend torch --device cuda:0 --batch-size 1024",
        ),
    ),
    "evaluate": Command(
        "test a trained network on its data set's test samples",
        _add_evaluate,
        "evaluate:run",
        ("runs/my-run", "runs/homes new.csv", "runs/my-run --backend jax"),
    ),
    "predict": Command(
        "classify images, or predict for the rows of tables",
        _add_predict,
        "predict:run",
        (
            "runs/my-run cat.png",
            "runs/my-run photos --backend torch",
            "runs/homes new.csv",
            "runs/homes new.csv --id house --out predictions.csv",
            "runs/homes new.csv --json",
        ),
    ),
    "explain": Command(
        "show how much each column contributes to the predictions for a table",
        _add_explain,
        "explain:run",
        (
            "runs/homes new.csv",
            "runs/homes new.csv --background homes.csv --id house --out values.csv",
        ),
    ),
    "check": Command(
        "check whether new rows of a table are like the training data",
        _add_check,
        "check:run",
        ("runs/homes new.csv", "runs/homes new.csv --drift-limit 0.1 --out columns.csv"),
    ),
    "card": Command(
        "write a model card of a run of a table: data, losses by group, calibration, coverage",
        _add_card,
        "card:run",
        ("runs/homes", "runs/homes --group town,year"),
    ),
    "runs": Command(
        "list runs, sorted by score or another column",
        _add_runs,
        "compare:run_runs",
        ("", "--sort score", "results/sweep --sort seconds --reverse --json"),
    ),
    "compare": Command(
        "show the differences between runs, and their curves",
        _add_compare,
        "compare:run_compare",
        ("runs/wide runs/deep", "runs/* --out results/all.html"),
    ),
    "export": Command(
        "export the network of a run to ONNX or C",
        _add_export,
        "export:run",
        (
            "runs/my-run --to onnx",
            "runs/my-run --to onnx --out cifar10.onnx",
            "runs/my-run --to c --out iris.h",
            "runs/my-run --to c --dtype int8 --calibrate rows.csv",
        ),
    ),
    "lab": Command(
        "train the lab's one-hidden-layer network on CIFAR-10",
        _add_lab,
        "lab:run",
        ("", "--hidden 128 --learning-rate 0.5 --epochs 200 --out results/wide.png"),
    ),
    "data": Command(
        "list the data sets on this machine",
        _add_data,
        "listings:run_data",
        ("", "cifar10", "--fetch fashion-mnist"),
    ),
    "recipes": Command("list the recipes for mlp-xp train", None, "listings:run_recipes", ("",)),
    "backends": Command("list libraries and devices", None, "listings:run_backends", ("",)),
    "compile": Command(
        "compile machine code for NumPy before the first long training",
        None,
        "listings:run_compile",
        ("   # e.g. as the last step of a container build",),
    ),
    "bench": Command(
        "compare the speed of this library with other libraries",
        _add_bench,
        "bench:run",
        (
            "--quick",
            "--only medium wide --out results/bench",
            '--only tiny --contenders "mlp_xp, NumPy" scikit-learn',
        ),
    ),
}
