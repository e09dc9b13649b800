"""What the commands' options share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from mlp_xp.backends import BACKENDS, Backend
from mlp_xp.datasets import LOADERS, Dataset

__all__ = ["Parser", "add_backend", "command", "describe", "load_data", "number"]

MAX_SEED = 2**32 - 1  # scikit-learn's largest


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, and leaves line breaks in descriptions."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Leave it to `main` to report an error as it does all others."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> Parser:
    """Add a command that calls ``run(args)``, which gives the exit status."""
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: Parser = commands.add_parser(
        name, help=summary, description=description, epilog=f"examples:\n{examples}"
    )
    parser.set_defaults(run=run)
    return parser


def add_backend(parser: argparse.ArgumentParser, default: str | None = "auto") -> None:
    """Add the options that say where to compute; without a default, a recipe says it."""
    parser.add_argument(
        "--backend",
        choices=["auto", *BACKENDS],
        default=default,
        help="library to compute with; auto takes CUDA where it works, else NumPy "
        f"({default or 'auto'})",
    )
    parser.add_argument("--device", help="e.g. cpu, cuda:1 or mps (the library's default)")


def number(
    kind: type[int] | type[float],
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
) -> Callable[[str], Any]:
    """Give an argparse type: a finite number within limits.

    Examples
    --------
    >>> from mlp_xp.cli.options import number
    >>> number(float, above=0)("0.5")
    0.5
    >>> number(int, at_least=1)("0")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: '0', expected an integer of at least 1
    """
    limits = {"above": above, "of at least": at_least, "below": below}
    expected = " ".join(f"{word} {limit}" for word, limit in limits.items() if abs(limit) < 1e9)
    noun = "an integer" if kind is int else "a number"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
            if above < value < below and value >= at_least:
                return value
        except (ValueError, OverflowError):
            pass
        raise argparse.ArgumentTypeError(f"{text!r}, expected {noun} {expected}")

    return parse


def describe(backend: Backend) -> str:
    """Put a backend's facts in a line."""
    return ", ".join(f"{key} {fact}" for key, fact in backend.describe().items())


def load_data(name: str, path: str | None) -> Dataset:
    """Load a data set by its name, from a path if there is one."""
    if path is None:
        return LOADERS[name]()
    if name == "digits":
        raise ValueError("digits come with scikit-learn and have no path: leave out --data-path")
    return LOADERS[name](path)
