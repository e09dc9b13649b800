"""The command line parser, and the options that several commands share."""

from __future__ import annotations

import argparse
import csv
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any, NoReturn, TypeAlias

from mlp_xp.cli.terminal.lines import fitted

Options: TypeAlias = "argparse.ArgumentParser | argparse._ArgumentGroup"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """A formatter that keeps the line breaks of descriptions and examples, and wraps long lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            if line and not line.startswith(" "):  # A paragraph.
                lines += wrap(line, width)
            elif line.startswith("  mlp-xp") and "  " not in line.strip():  # An example command.
                lines += " \\\n".join(fitted(line, width - 2)).split("\n")
            else:
                lines += fitted(line, width)
        return "\n".join(f"{indent}{line}" for line in lines)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """A parser that raises ValueError for wrong arguments, and keeps line breaks in help texts.

    ``add_options(parser)`` is called when the parser is first used, so only the options of the
    requested command are created.
    """

    def __init__(
        self, *, add_options: Callable[[Parser], None] | None = None, **settings: Any
    ) -> None:
        super().__init__(formatter_class=_Formatter, **settings)
        self._add_options = add_options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the options and parse; raise ValueError for unknown arguments."""
        add_options, self._add_options = self._add_options, None
        if add_options is not None:
            add_options(self)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            name, options = unknown[0].partition("=")[0], self._option_string_actions
            # A parameter's option may have another name; a name spelled like an option comes first.
            known = {one.dest: one.option_strings[0] for one in options.values()}
            known |= {_as_parameter(option): option for option in options}
            meant = suggestion(known.get(_as_parameter(name), name), options)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Raise ValueError, which `main` prints; suggest the nearest valid choice, if any."""
        if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            choices = found[2].replace("'", "").split(", ")
            kept = message[: found.start()] + f"invalid choice: '{found[1]}'"
            meant = suggestion(found[1], choices) or ","
            message = f"{kept}{meant} choose from {', '.join(choices)}"
        raise ValueError(f"{message} (see {self.prog} --help)")


def _as_parameter(option: str) -> str:
    return option.strip("-").replace("-", "_")


def suggestion(given: str, choices: Iterable[str]) -> str:
    """Return ", did you mean x?" with the nearest choice, or "" if no choice is similar."""
    from mlp_xp._utils.names import did_you_mean  # Only errors need this import.

    meant = did_you_mean(given, choices).replace("'", "")
    return meant and f", {meant}"


def add_option(options: Options, usage: str, help: str, **settings: Any) -> None:
    """Add an option or argument; ``usage`` is its name and placeholder, e.g. "--out FILE"."""
    name, *metavar = usage.split()
    if metavar:
        settings["metavar"] = metavar[0]
    options.add_argument(name, help=help, **settings)


def add_output(options: Options) -> None:
    """Add ``--quiet`` and ``--json``."""
    add = partial(add_option, options, action="store_true")
    add("--quiet", "print only the result and errors")
    add("--json", "print the result as JSON on stdout, and everything else on stderr")


def column_names(text: str) -> tuple[str, ...]:
    """Return the column names in a comma-separated text."""
    names = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(name.strip() for name in names if name.strip())


def number(
    kind: type[int] | type[float],
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    several: bool = False,
) -> Callable[[str], Any]:
    """Return a function that parses a finite number within limits, for argparse.

    If ``several`` is true, the option accepts several numbers, and errors tell how to type them.

    Examples
    --------
    >>> from mlp_xp.cli.commands.parser import number
    >>> number(float, above=0)("0.5")
    0.5
    >>> number(int, at_least=1)("0")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: must be an integer of at least 1, got '0'
    """
    limits = {"above": above, "of at least": at_least, "below": below}
    expected = " ".join(f"{word} {n}" for word, n in limits.items() if math.isfinite(n))
    noun = "an integer" if kind is int else "a number"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
            if above < value < below and value >= at_least:
                return value
        except (ValueError, OverflowError):
            pass
        cure = ": separate several with spaces" if several and "," in text else ""
        if several and Path(text).exists():
            cure = f": type {text} before the options"
        raise argparse.ArgumentTypeError(f"must be {noun} {expected}, got {text!r}{cure}")

    return parse
