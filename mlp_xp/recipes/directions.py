"""The directions of columns as text, for the command line."""

from argparse import ArgumentTypeError

_HOW = "type names with 1 (never decreases) or -1 (never increases), e.g. income=1,debt=-1"


def parse_directions(text: str) -> dict[str, int]:
    """Return the directions of columns in text such as ``income=1,debt=-1``.

    Examples
    --------
    >>> from mlp_xp.recipes.directions import parse_directions
    >>> parse_directions("income=1,debt=-1")
    {'income': 1, 'debt': -1}
    >>> parse_directions("income=1,income=-1")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: constrains 'income' twice: type it once
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        if not name or value not in ("1", "+1", "-1", "0"):
            raise ArgumentTypeError(f"has {part!r}: {_HOW}")
        if name in found:
            raise ArgumentTypeError(f"constrains {name!r} twice: type it once")
        found[name] = int(value)
    return found
