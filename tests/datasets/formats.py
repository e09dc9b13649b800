"""Writers of small data sets in the official formats, and a check of what is rejected."""

import io
import pickle
import struct
import tarfile
from collections import namedtuple
from typing import ClassVar

import numpy as np
import pytest
from helpers import case

from mlp_xp.datasets import DatasetError

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
Images = namedtuple("Images", ("x", "y", "coarse"))


def images(n, *, seed, n_classes=10):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    return Images(rng.integers(0, 256, (n, 3072), dtype=np.uint8), y, y % 20)


class Python2Pickler(pickle._Pickler):
    def save_text(self, text):
        raw = text if isinstance(text, bytes) else text.encode()
        size = b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
        self.write(size + raw)

    dispatch: ClassVar = pickle._Pickler.dispatch | {bytes: save_text, str: save_text}


def pickle2(data, **labels):
    """Write a batch as Python 2 did: protocol 2, byte strings, NumPy's old module names."""
    file, batch = io.BytesIO(), {"batch_label": "training batch 1 of 5"}
    batch |= {name: [int(value) for value in values] for name, values in labels.items()}
    Python2Pickler(file, protocol=2).dump(batch | {"data": data})
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def pickle3(data, **labels):
    names = [b"cat_%d.png" % i for i in range(len(data))]
    batch = {b"data": data, b"filenames": names}
    batch |= {name.encode(): [int(v) for v in values] for name, values in labels.items()}
    return pickle.dumps(batch, protocol=2)


def binary(data, *labels):
    return np.column_stack([*labels, data]).astype(np.uint8).tobytes()


def folder_of(folder, files):
    folder.mkdir(parents=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


def archive_of(path, files, *more, folder="cifar-10-batches-py"):
    """Write a ``.tar.gz`` of a folder of files, and of other TarInfo members."""
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        for member in more:
            archive.addfile(member)
    return path


def cifar10_files(batches, encode):
    if encode is binary:
        return {f"{name}.bin": binary(b.x, b.y) for name, b in batches.items()}
    return {name: encode(b.x, labels=b.y) for name, b in batches.items()}


def rejects(message, call, *args, name=None, **settings):
    with case(name or message), pytest.raises(DatasetError, match=message):
        call(*args, **settings)
