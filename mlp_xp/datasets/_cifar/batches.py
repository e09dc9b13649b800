"""Decoding of CIFAR batches, pickled or binary, from a folder or an archive."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlp_xp.datasets._cifar.pickles import load_pickle, pixels_of
from mlp_xp.datasets._dataset import DatasetError, Labels, Pixels
from mlp_xp.datasets._files import read_archive, read_file, sha256

ROW = 3072  # An image has three planes of 32 by 32 pixels.


class Files(NamedTuple):
    """The file names of the batches in one official archive."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]


class Kind(NamedTuple):
    """The differences between CIFAR-10 and CIFAR-100: their files and labels.

    ``labels`` is the name and the number of classes of each label, in the order of binary records.
    """

    files: tuple[Files, ...]
    labels: tuple[tuple[str, int], ...]


class BatchFile(NamedTuple):
    """A decoded batch, with labels of shape (n_images, n_labels), and the SHA-256 of its file."""

    pixels: Pixels
    labels: Labels
    sha256: str


def is_archive(path: Path) -> bool:
    """Whether this is the file name of an archive."""
    return path.name.endswith((".tar.gz", ".tgz"))


def decode_batch(raw: bytes, where: str, kind: Kind) -> BatchFile:
    """Decode the bytes of the batch file ``where``; files that end in ``.bin`` are binary."""
    decode = _decode_binary if where.endswith(".bin") else _decode_pickle
    pixels, labels = decode(raw, where, kind)
    for column, (name, n_classes) in zip(labels.T, kind.labels, strict=True):
        if column.min() < 0 or column.max() >= n_classes:
            raise DatasetError(
                f"{where}: {name!r} must be from 0 to {n_classes - 1}, got {column.min()} to "
                f"{column.max()}: download the file again"
            )
    return BatchFile(pixels, labels, sha256(raw))


def _decode_binary(raw: bytes, where: str, kind: Kind) -> tuple[Pixels, Labels]:
    n_labels = len(kind.labels)
    if not raw or len(raw) % (n_labels + ROW):
        raise DatasetError(
            f"{where} must have a multiple of {n_labels + ROW} bytes ({n_labels} per image for the "
            f"label, {ROW} for the pixels), got {len(raw)}: download it again"
        )
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, n_labels + ROW)
    return records[:, n_labels:], records[:, :n_labels].astype(np.int64)


def _decode_pickle(raw: bytes, where: str, kind: Kind) -> tuple[Pixels, Labels]:
    batch = load_pickle(raw, where)
    pixels = pixels_of(batch.get("data"), where, ROW)
    columns = []
    for name, _ in kind.labels:
        values = batch.get(name)
        if not isinstance(values, list) or len(values) != len(pixels):
            size = f" of {len(values)}" if isinstance(values, list) else ""
            raise DatasetError(
                f"{where}: {name!r} must be a list of {len(pixels)}, one label per image, got a "
                f"{type(values).__name__}{size}: download it again"
            )
        if not all(type(value) is int for value in values):
            raise DatasetError(f"{where}: {name!r} must contain only integers: download it again")
        columns.append(np.array(values, dtype=np.int64))
    return pixels, np.stack(columns, axis=1)


def _members(path: Path, kind: Kind) -> Iterator[tuple[Files, str, bytes]]:
    """Yield each batch in a folder or archive: its `Files`, name and bytes."""
    if is_archive(path):
        owners = {f"{f.folder}/{name}": f for f in kind.files for name in f.train + f.test}
        for member, raw in read_archive(path, owners.keys()):
            yield owners[member], member.rpartition("/")[2], raw
        return
    for files in kind.files:
        if any((path / name).exists() for name in files.train + files.test):
            for name in files.train + files.test:
                yield files, name, read_file(path / name)
            return


def read_batches(path: Path, kind: Kind) -> tuple[list[BatchFile], list[BatchFile]]:
    """Return the training and the test batches of a folder or archive, in the official order."""
    if not is_archive(path) and not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DatasetError(f"{path} {what}: pass {_expected(kind)}")
    found: dict[Files, dict[str, BatchFile]] = {}
    for files, name, raw in _members(path, kind):
        found.setdefault(files, {})[name] = decode_batch(raw, f"{path}/{name}", kind)
    for files, batches in found.items():
        if batches.keys() == {*files.train, *files.test}:
            return [batches[name] for name in files.train], [batches[name] for name in files.test]
    names = sorted(name for batches in found.values() for name in batches)
    if not names:
        raise DatasetError(
            f"{path} contains none of the data set's files: pass {_expected(kind)}, or leave out "
            "the path to search for the files or download them"
        )
    raise DatasetError(
        f"{path} must be {_expected(kind)}, but has only {', '.join(names)}: add what is missing"
    )


def _expected(kind: Kind) -> str:
    return " or ".join(
        f"a folder like {files.folder} (or {files.archive}) with "
        f"{', '.join(files.train + files.test)}"
        for files in kind.files
    )
