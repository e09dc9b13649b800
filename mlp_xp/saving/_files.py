"""The two files of a model, and the error for damaged or unsuitable files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlp_xp._utils.storage.files import TEXT_LIMIT, parse_json, read_file

WEIGHTS, SPEC = "model.safetensors", "model.json"

# Errors that unexpected data in a file can cause.
_DAMAGES: tuple[type[Exception], ...] = (ValueError, TypeError, LookupError, AttributeError)
_DAMAGES += (ArithmeticError, RecursionError, MemoryError)
_LONGEST = 500


class SavingError(ValueError):
    """The error for a model that cannot be saved or loaded; the message says what to do."""


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SavingError(otherwise)


@contextlib.contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Convert errors caused by a damaged file into an error that names the file."""
    try:
        yield
    except OSError as error:
        raise SavingError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise SavingError(f"{path} cannot be loaded: {brief(error)} missing or unknown") from error
    except _DAMAGES as error:
        raise SavingError(f"{path} cannot be loaded: {brief(error)}") from error


def brief(error: Exception) -> str:
    """Return the message of an error on one line, shortened if it is long."""
    text = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """Read a file that contains one JSON object; errors name the file and end with ``cure``."""
    try:
        content = parse_json(read_file(path, TEXT_LIMIT))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"invalid JSON: {brief(error)}"
        raise SavingError(f"{path} cannot be read ({reason}): {cure}") from error
    expect(isinstance(content, dict), f"{path} does not contain a JSON object: {cure}")
    return content
