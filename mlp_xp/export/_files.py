"""The file that an export writes."""

from __future__ import annotations

import os
from pathlib import Path

from mlp_xp._utils.storage.durable import replacing


def check_path(path: str | os.PathLike[str] | None, example: str) -> None:
    """Raise an error if an export cannot be written to a path, before the export is made."""
    if path is None:
        return
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{path} is a folder: pass a file, e.g. {file / example}.")
    if not file.parent.is_dir():
        raise FileNotFoundError(
            f"{path} is in a folder that does not exist: create {file.parent} first."
        )


def write_file(path: str | os.PathLike[str] | None, data: bytes) -> None:
    """Write an export as a whole, or not at all, if a path is given."""
    if path is not None:
        with replacing(Path(path)) as new:
            new.write_bytes(data)
