"""Read files from untrusted sources: only regular files of limited size."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes.

    Raise OSError for other types of file, because opening a named pipe could block forever.
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
        return file.read()
