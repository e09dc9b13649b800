"""Checkpoints: folders with one snapshot each, stored as safetensors and JSON, not as pickle.

`mlp_xp.callbacks.Checkpoint` adds the model's files to a folder. ``training.json`` contains the
counts, the history and the SHA-256 of both files. A folder gets its final name only after all its
files are on disk.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.files import TEXT_LIMIT, check_text, open_file, parse_json, read_file
from mlp_xp.training.checkpoints.checks import check_snapshot
from mlp_xp.training.checkpoints.snapshot import Snapshot, SnapshotError

_ARRAYS, _FACTS = "training.safetensors", "training.json"
_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{6,}))?")
_FORMAT = {"format": "mlp_xp training", "format_version": 1}
_HEADER_LIMIT = 4 << 20  # The maximum size in bytes, enough for about 30,000 tensors.


def checkpoint_name(epoch: int, step: int = 0) -> str:
    """Return a checkpoint's name, e.g. ``epoch-0002-step-000010`` after 2 epochs and 10 steps."""
    return f"epoch-{epoch:04}" + (f"-step-{step:06}" if step else "")


def checkpoints(folder: Path) -> dict[tuple[int, int], Path]:
    """Return a folder's checkpoints as ``{(epochs, steps): path}``, from oldest to newest."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            found[int(match[1]), int(match[2] or 0)] = path
    return dict(sorted(found.items()))


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write the two files of a snapshot into a temporary folder.

    Raise `SnapshotError` if the history is too long to be read back.
    """
    arrays: bytes = optional("safetensors.numpy").save(snapshot.arrays)
    content: dict[str, Any] = {**_FORMAT, "facts": snapshot.metadata}
    content["sha256"] = _digest(arrays, content)
    text = json.dumps(content, allow_nan=False).encode()
    try:
        check_text(text)
    except ValueError as error:
        raise SnapshotError(f"the history gives {_FACTS} {error}") from error
    (folder / _ARRAYS).write_bytes(arrays)
    (folder / _FACTS).write_bytes(text)


def _digest(arrays: bytes, content: dict[str, Any]) -> str:
    described = {key: value for key, value in content.items() if key != "sha256"}
    digest = hashlib.sha256(arrays)
    digest.update(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def read_checkpoint(folder: Path) -> Snapshot:
    """Read a checkpoint; raise `SnapshotError` if it is damaged or from another version."""
    safetensors = optional("safetensors.numpy")
    try:
        content = parse_json(read_file(folder / _FACTS, TEXT_LIMIT))
        arrays = read_file(folder / _ARRAYS, _stated_size(folder / _ARRAYS))
        if content.get("sha256") != _digest(arrays, content):
            raise SnapshotError(f"{folder} is damaged: its SHA-256 does not match {_FACTS}")
        if {name: content[name] for name in _FORMAT} != _FORMAT:
            raise SnapshotError(
                f"{folder} was written by another version of mlp-xp: use that version"
            )
        snapshot = Snapshot(safetensors.load(arrays), content["facts"])
        try:
            check_snapshot(snapshot)
        except SnapshotError as error:
            raise SnapshotError(f"{folder} is damaged: {error}") from None
        return snapshot
    except SnapshotError:
        raise
    except OSError as error:
        raise SnapshotError(f"{folder} cannot be read: {error.strerror}") from error
    except Exception as error:  # safetensors and json raise errors of many types.
        raise SnapshotError(f"{folder} is damaged: {type(error).__name__}: {error}") from error


def _stated_size(path: Path) -> int:
    """Return the size of a safetensors file as stated in its header, without reading its arrays."""
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_LIMIT:
            raise SnapshotError(f"{path.parent} is damaged: the header of {path.name} is too long")
        header = parse_json(file.read(length))
    header.pop("__metadata__", None)
    return int(8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0))


def read_newest(folder: Path) -> Snapshot | None:
    """Read a folder's newest undamaged checkpoint; warn about damaged, newer ones.

    Return None if the folder contains no checkpoints; raise `SnapshotError` if all are damaged.
    """
    damages: list[str] = []
    for path in reversed(checkpoints(folder).values()):
        try:
            snapshot = read_checkpoint(path)
        except SnapshotError as error:
            damages.append(str(error))
            continue
        for damage in damages:
            warnings.warn(
                f"{damage}. Training continues from {path.name}, the previous checkpoint.",
                RuntimeWarning,
                stacklevel=5,
            )
        return snapshot
    if damages:
        raise SnapshotError(
            f"{folder} has no readable checkpoint: {'; '.join(damages)}. Restore a checkpoint "
            "from a backup, or start over in another folder"
        )
    return None
