"""Printing of text, wrapped to the width of a terminal."""

from __future__ import annotations

import re
import shutil
import sys
from textwrap import wrap
from typing import Any, TextIO

# A second column further right than this fraction of the width begins on a new line.
_WIDEST_INDENT = 0.4


def print_line(text: object, file: TextIO | None = None) -> None:
    """Print a line without control characters, wrapped to the width of a terminal."""
    file = sys.stdout if file is None else file
    print("\n".join(fitted(printable(text), terminal_width(file))), file=file, flush=True)


def print_note(text: object) -> None:
    """Print a note for the user on stderr."""
    print_line(f"note: {text}", sys.stderr)


def terminal_width(file: TextIO) -> int | None:
    """Return the width of a terminal in characters, or None if the file is not a terminal."""
    return shutil.get_terminal_size().columns if file.isatty() else None


def fitted(line: str, width: int | None) -> list[str]:
    """Wrap a line to at most ``width`` characters, without splitting words.

    Text after a gap of two or more spaces is a second column; its continuation lines are indented.

    Examples
    --------
    >>> from mlp_xp.cli.terminal.lines import fitted
    >>> fitted("hour  CIFAR-10 in an hour on two CPU cores", 24)
    ['hour  CIFAR-10 in an', '      hour on two CPU', '      cores']
    >>> fitted("  mlp-xp evaluate runs/mine  the accuracy of each class", 30)
    ['  mlp-xp evaluate runs/mine', '      the accuracy of each', '      class']
    """
    if width is None or len(line) <= width:
        return [line]
    indent = re.match(" *", line)[0]  # type: ignore[index]
    columns = re.fullmatch(r"( *\S.*?) {2,}(\S.*)", line)
    if columns is None:
        return _broken(line, width, f"{indent}  ")
    place = columns.start(2)
    if place <= _WIDEST_INDENT * width:
        return _broken(line, width, " " * place)
    deeper = f"{indent}    "
    head = _broken(columns[1], width, deeper)
    return [*head, *_broken(f"{deeper}{columns[2]}", width, deeper)]


def _broken(line: str, width: int, indent: str) -> list[str]:
    settings: Any = {"break_long_words": False, "break_on_hyphens": False}
    return wrap(line, width, subsequent_indent=indent, replace_whitespace=False, **settings)


def printable(text: object) -> str:
    r"""Return text with control characters escaped, so text from files cannot affect a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )
