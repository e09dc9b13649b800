"""The command ``mlp-xp``; each command is a file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version

from mlp_xp.backends import BackendError
from mlp_xp.cli import bench, evaluate, lab, machine, predict, train
from mlp_xp.cli.deadline import process_began
from mlp_xp.cli.options import Parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: what was typed.

    Returns
    -------
    int
        The exit status: 0; 2 for what the user can mend, with one line on stderr; 130 after Ctrl-C.
    """
    # A process that does nothing else began with this command.
    began = process_began() if argv is None else time.perf_counter()
    try:
        args = _parser().parse_args(argv, argparse.Namespace(began=began))
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone, e.g. `head`; the interpreter must not flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (
        ValueError,
        BackendError,
        ImportError,
        OSError,
        MemoryError,
        OverflowError,
    ) as error:
        print(f"mlp-xp: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser() -> Parser:
    parser = Parser(
        prog="mlp-xp",
        description="Multilayer perceptrons on NumPy, CuPy, PyTorch or JAX.",
        epilog="examples:\n"
        "  mlp-xp train                      train on CIFAR-10\n"
        "  mlp-xp evaluate runs/my-run       test what was trained\n"
        "  mlp-xp predict runs/my-run a.png  say what a picture shows\n"
        "  mlp-xp train --help               all options of a command",
    )
    parser.add_argument("--version", action="version", version=f"mlp-xp {version('mlp-xp')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (train, evaluate, predict, lab, machine, bench):
        command.add_to(commands)
    return parser
