"""The table of commands: their options, and the functions that run them.

Importing this module loads no numerical library.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp import __version__
from mlp_xp.cli.commands.parser import Parser, add_backend, add_output, add_seed, number

__all__ = ["COLUMNS", "COMMANDS", "parse"]

# The columns of the table that `mlp-xp runs` prints, and the choices of --sort.
COLUMNS = ("run", "date", "data", "score", "epochs", "seconds", "speed", "backend", "network")


class Command(NamedTuple):
    """A command: its help line, its options, examples, and the function that runs it.

    ``run`` names the function, as ``module:function`` in this package. The function takes the
    parsed options and an `Output`, and returns the exit status. If ``saves`` is true, the command
    must save or remove files after Ctrl-C. ``group`` is the heading in ``mlp-xp --help``.
    """

    summary: str
    add_options: Callable[[Parser], None] | None
    examples: str
    run: str
    saves: bool = True
    group: str = "train and use networks"


_MACHINE = "see what this machine has"


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
    parser.add_argument(
        "--version",
        action="version",
        version=f"mlp-xp {__version__}",
        help="print the version and exit",
    )
    subparsers = parser.add_subparsers(
        metavar="COMMAND", required=True, help=argparse.SUPPRESS, prog="mlp-xp"
    )
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            add_options=command.add_options,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"examples:\n{command.examples}",
        )
        subparser.set_defaults(load=partial(_load, command.run), saves=command.saves)
    return parser.parse_args(argv)


def _overview() -> str:
    groups: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        groups.setdefault(command.group, []).append(f"  {name:9} {command.summary}")
    return "\n\n".join("\n".join([f"{group}:", *lines]) for group, lines in groups.items())


def _add_train(parser: Parser) -> None:
    from mlp_xp.cli.commands.train_options import (
        add_train,  # This import loads the libraries that define the options' choices.
    )

    add_train(parser)


def _load(run: str) -> Callable[[argparse.Namespace, Any], int]:
    module, _, function = run.partition(":")
    loaded: Callable[[argparse.Namespace, Any], int] = getattr(
        importlib.import_module(f"mlp_xp.cli.commands.{module}"), function
    )
    return loaded


def _add_evaluate(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument("--data-path", metavar="PATH", help="file or folder of the data set")
    add_backend(parser)
    add_output(parser)


def _add_predict(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="a PNG or JPEG file; a .csv, .npz or .parquet file, if RUN was trained on a table; or "
        "a folder of such files",
    )
    add_backend(parser)
    add_output(parser)


def _add_export(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument("--to", choices=["onnx"], required=True, help="the format: onnx")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file to write, replaced if it exists (RUN/model.onnx)",
    )


def _add_run(parser: Parser) -> None:
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="folder that `mlp-xp train` wrote"
    )


def _add_runs(parser: Parser) -> None:
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path("runs"), metavar="FOLDER", help="(runs)")
    add(
        "--sort",
        choices=COLUMNS,
        default="date",
        metavar="COLUMN",
        help=f"{', '.join(COLUMNS)}; largest number or newest run first (date)",
    )
    add("--reverse", action="store_true", help="reverse the order")
    add("--json", action="store_true", help="print the table as JSON, with unrounded numbers")


def _add_compare(parser: Parser) -> None:
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="two or more folders of runs")
    add(
        "--out",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="HTML page to write, replaced if it exists (%(default)s)",
    )


def _add_lab(parser: Parser) -> None:
    add, count = parser.add_argument, number(int, at_least=1)
    add(
        "--data-path",
        metavar="PATH",
        help="file or folder of CIFAR-10 (searched for, else downloaded)",
    )
    add("--hidden", type=count, default=64, metavar="N", help="hidden neurons (%(default)s)")
    rate = number(float, above=0)
    add("--learning-rate", type=rate, default=0.1, metavar="R", help="step size (%(default)s)")
    add("--epochs", type=count, default=100, metavar="N", help="number of epochs (%(default)s)")
    add_seed(parser, "seed of the split and the initial weights", default=0)
    add_backend(parser)
    out = Path("results/mlp.png")
    add("--out", type=Path, default=out, metavar="FILE", help="PNG file to write (%(default)s)")


def _add_data(parser: Parser) -> None:
    from mlp_xp.datasets import LOADERS

    known = list(LOADERS)
    parser.add_argument("name", nargs="?", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument(
        "--fetch", choices=known, metavar="NAME", help="find or download a data set, and decode it"
    )


def _add_bench(parser: Parser) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer contenders and less data: two to three minutes")
    add("--out", type=Path, metavar="DIR", help="folder to write to (bench/history/<date>)")
    count = number(int, at_least=1)
    add("--rounds", type=count, metavar="N", help="runs per contender (7; quick: 5)")
    add("--threads", type=count, metavar="N", help="threads per contender (all CPUs)")
    add(
        "--only",
        nargs="+",
        metavar="PART",
        help="tiny, lab, lab-full, medium, wide, predict, one-row, drop-in, search, busy, "
        "start-up, end-to-end, growth (all); backends, products, out-of-core, ranks; "
        "drop-in/lbfgs for the drop-in cases that begin with lbfgs",
    )
    add("--contenders", nargs="+", metavar="NAME", help="contenders, named as in the tables (all)")
    add("--images", type=count, metavar="N", help="maximum number of images per epoch")
    add("--check", action="store_true", help="fail if a ratio to a peer is below its floor")


COMMANDS = {
    "train": Command(
        "train a network on images or a table",
        _add_train,
        """\
  mlp-xp train
  mlp-xp train titanic.csv --target survived
  mlp-xp train homes.csv --target price --drop id,address --out runs/homes
  mlp-xp train photos --image-size 32x32
  mlp-xp train --epochs 5 --hidden 1024 1024 512 --activation silu
  mlp-xp train --data fashion-mnist --validation 0.1 --out runs/fashion
  mlp-xp train --hidden 512 512 512 --normalization batch --residual --dropout 0.2 --epochs 30
  mlp-xp train --recipe five-minutes --seed 1
  mlp-xp train --validation 0.1 --checkpoint 5 --tensorboard
  mlp-xp train --backend torch --device cuda:0 --batch-size 1024""",
        "train:run",
    ),
    "evaluate": Command(
        "test a trained network on its data set's test samples",
        _add_evaluate,
        """\
  mlp-xp evaluate runs/my-run
  mlp-xp evaluate runs/my-run --backend jax""",
        "evaluate:run",
        saves=False,
    ),
    "predict": Command(
        "classify images, or predict for the rows of tables",
        _add_predict,
        """\
  mlp-xp predict runs/my-run cat.png
  mlp-xp predict runs/my-run photos --backend torch
  mlp-xp predict runs/homes new.csv
  mlp-xp predict runs/homes new.csv --json""",
        "predict:run",
        saves=False,
    ),
    "runs": Command(
        "list runs, sorted by score or another column",
        _add_runs,
        """\
  mlp-xp runs
  mlp-xp runs --sort score
  mlp-xp runs results/sweep --sort seconds --reverse --json""",
        "compare:run_runs",
        saves=False,
    ),
    "compare": Command(
        "show the differences between runs, and their curves",
        _add_compare,
        """\
  mlp-xp compare runs/wide runs/deep
  mlp-xp compare runs/* --out results/all.html""",
        "compare:run_compare",
        saves=False,
    ),
    "export": Command(
        "export the network of a run to ONNX",
        _add_export,
        """\
  mlp-xp export runs/my-run --to onnx
  mlp-xp export runs/my-run --to onnx --out cifar10.onnx""",
        "export:run",
        saves=False,
    ),
    "lab": Command(
        "train the lab's one-hidden-layer network on CIFAR-10",
        _add_lab,
        """\
  mlp-xp lab
  mlp-xp lab --hidden 128 --learning-rate 0.5 --epochs 200 --out results/wide.png""",
        "lab:run",
        group="learn and compare",
    ),
    "data": Command(
        "list the data sets on this machine",
        _add_data,
        """\
  mlp-xp data
  mlp-xp data cifar10
  mlp-xp data --fetch fashion-mnist""",
        "listings:run_data",
        group=_MACHINE,
    ),
    "recipes": Command(
        "list the recipes for mlp-xp train",
        None,
        "  mlp-xp recipes",
        "listings:run_recipes",
        saves=False,
        group=_MACHINE,
    ),
    "backends": Command(
        "list libraries and devices",
        None,
        "  mlp-xp backends",
        "listings:run_backends",
        saves=False,
        group=_MACHINE,
    ),
    "compile": Command(
        "compile machine code for NumPy before the first long training",
        None,
        "  mlp-xp compile    # e.g. as the last step of a container build",
        "listings:run_compile",
        group=_MACHINE,
    ),
    "bench": Command(
        "compare the speed of this library with other libraries",
        _add_bench,
        """\
  mlp-xp bench --quick
  mlp-xp bench --only medium wide --out results/bench
  mlp-xp bench --only tiny --contenders "mlp_xp, NumPy" scikit-learn""",
        "bench:run",
        group="learn and compare",
    ),
}
