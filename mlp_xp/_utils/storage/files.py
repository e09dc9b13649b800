"""Read files from untrusted sources, which must be regular files of limited size."""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

# The limits of a text file, enough for the history of 80,000 epochs. They keep memory below 300 MB:
# a value takes up to 260 bytes, including checks, and a character up to 5 bytes if any character is
# not ASCII.
TEXT_LIMIT, MOST_VALUES = 32 << 20, 1_000_000


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes.

    Raise OSError for other file types, because opening a named pipe could block forever.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # Let `open` raise the error for a folder.
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; raise OSError otherwise."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes, more than the {limit} allowed", str(path))
        content = file.read(size + 1)
        if len(content) > size:  # Files in /proc report a size of 0.
            raise OSError(errno.EFBIG, f"more than the {size} bytes it reports", str(path))
        return content


def check_text(content: bytes, separators: bytes = b",[{") -> None:
    """Raise ValueError if a text is too large or contains too many values.

    Each value has a separator before or after it.
    """
    if len(content) > TEXT_LIMIT:
        raise ValueError(f"{len(content)} bytes, more than the {TEXT_LIMIT} allowed")
    n_values = sum(content.count(separator) for separator in separators)
    if n_values > MOST_VALUES:
        raise ValueError(f"{n_values} values, more than the {MOST_VALUES} allowed")
    if len(content) > TEXT_LIMIT // 4 and not content.isascii():
        raise ValueError(f"{len(content)} bytes that are not ASCII, more than {TEXT_LIMIT // 4}")


def parse_json(content: bytes) -> Any:
    """Parse a JSON text; raise ValueError if it is invalid or contains too many values."""
    check_text(content)
    return json.loads(content)
