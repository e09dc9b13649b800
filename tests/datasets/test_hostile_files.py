"""Damaged and hostile files: a clear error, nothing executed, nothing cached."""

import contextlib
import functools
import gzip
import os
import pickle
import struct
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
from helpers import bounded, case
from official_formats import (
    binary,
    cifar10_files,
    images,
    python2_pickle,
    write_archive,
    write_folder,
)

from mlp_xp.datasets import DatasetError, _cifar_pickles, _files, load_cifar10, read_cifar

GOOD = images(4, seed=0)


class Call:
    """An object that is pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class SetState:
    """An object that is pickled as an array with another state."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        function, arguments, _ = GOOD.x.__reduce__()
        return function, arguments, self.state


def dump(**batch):
    return pickle.dumps({key.encode(): value for key, value in batch.items()}, protocol=2)


def array_state(shape=GOOD.x.shape, dtype=GOOD.x.dtype, raw=None):
    return (1, shape, dtype, False, GOOD.x.tobytes() if raw is None else raw)


LABELS = [int(v) for v in GOOD.y]


PICKLES = {
    "os.system": lambda mark: dump(data=Call(os.system, f"touch {mark}"), labels=LABELS),
    "a key that calls": lambda mark: pickle.dumps({Call(os.mkdir, str(mark)): 1}, protocol=2),
    "builtins.eval": lambda mark: dump(data=Call(eval, f"open({str(mark)!r}, 'w')")),
    "getattr": lambda mark: dump(data=Call(getattr, [], "append")),
    "partial": lambda mark: dump(data=functools.partial(os.mkdir, str(mark))),
    "numpy.load": lambda mark: dump(data=Call(np.load, "x.npy")),
    "OrderedDict": lambda mark: dump(data=OrderedDict()),
    "protocol 4": lambda mark: pickle.dumps(Call(os.mkdir, str(mark)), protocol=4),
    "persistent id": lambda mark: b"\x80\x02Pabc\n.",
    "extension code": lambda mark: b"\x80\x02\x82\x01.",
    "NEWOBJ": lambda mark: b"\x80\x02cnumpy\nndarray\n)\x81K\x05b.",
    "cut short": lambda mark: python2_pickle(GOOD.x, labels=GOOD.y)[:-1000],
    "empty": lambda mark: b"",
    "not a pickle": lambda mark: b"<html>Service unavailable</html>",
    "not a dictionary": lambda mark: pickle.dumps([1, 2], protocol=2),
    "no data": lambda mark: dump(labels=LABELS),
    "data is a list": lambda mark: dump(data=[[1, 2]], labels=LABELS),
    "no labels": lambda mark: dump(data=GOOD.x),
    "labels not a list": lambda mark: dump(data=GOOD.x, labels=tuple(LABELS)),
    "too few labels": lambda mark: dump(data=GOOD.x, labels=LABELS[1:]),
    "label too large": lambda mark: dump(data=GOOD.x, labels=[*LABELS[1:], 10]),
    "label far too large": lambda mark: dump(data=GOOD.x, labels=[*LABELS[1:], 2**80]),
    "label negative": lambda mark: dump(data=GOOD.x, labels=[*LABELS[1:], -1]),
    "label not whole": lambda mark: dump(data=GOOD.x, labels=[*LABELS[1:], 1.0]),
    "label a bool": lambda mark: dump(data=GOOD.x, labels=[*LABELS[1:], True]),
    "float data": lambda mark: dump(data=GOOD.x.astype(np.float32), labels=LABELS),
    "int8 data": lambda mark: dump(data=GOOD.x.astype(np.int8), labels=LABELS),
    "object data": lambda mark: dump(data=GOOD.x[:, :2].astype(object), labels=LABELS),
    "object dtype": lambda mark: dump(
        data=SetState(array_state(dtype=np.dtype("O"), raw=[None] * GOOD.x.size)), labels=LABELS
    ),
    "wrong width": lambda mark: dump(data=GOOD.x[:, :-1], labels=LABELS),
    "three axes": lambda mark: dump(data=GOOD.x.reshape(4, 3, 1024), labels=LABELS),
    "no rows": lambda mark: python2_pickle(GOOD.x[:0], labels=[]),
    "huge shape": lambda mark: dump(data=SetState(array_state(shape=(2**62, 3072))), labels=LABELS),
    "negative shape": lambda mark: dump(
        data=SetState(array_state(shape=(-4, -3072))), labels=LABELS
    ),
    "too few bytes": lambda mark: dump(data=SetState(array_state(raw=b"abc")), labels=LABELS),
    "state is a number": lambda mark: dump(data=SetState(5), labels=LABELS),
}


def test_a_hostile_pickle_is_an_error(tmp_path, batches, in_cache):
    mark = tmp_path / "it-ran"
    folder = write_folder(tmp_path / "cifar-10-batches-py", cifar10_files(batches, python2_pickle))
    path = folder / "data_batch_2"
    for name, make in PICKLES.items():
        path.write_bytes(make(mark))
        for read, given in ((read_cifar, folder), (load_cifar10, folder), (read_cifar, path)):
            said = r"data_batch_2.*(expected|fetch it again)"
            with case(name), pytest.raises(DatasetError, match=said):
                read(given)
    path.write_bytes(PICKLES["os.system"](mark))
    with pytest.raises(DatasetError, match=r"it asks for (posix|nt)\.system, .*nothing in it was"):
        read_cifar(path)
    assert not mark.exists()
    assert in_cache() == []


def test_a_pickle_cannot_change_how_the_next_is_read(tmp_path):
    """Check that BUILD, which can set attributes, does not change the function for encode."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nN}X\x0c\0\0\0__defaults__X\1\0\0\0x\x85s\x86b.")
    with pytest.raises(DatasetError, match="it sets the state of a function"):
        read_cifar(path)
    path.write_bytes(b"\x80\x02}(X\1\0\0\0ac_codecs\nencode\n)Ru.")
    with pytest.raises(DatasetError, match="missing 1 required positional argument"):
        read_cifar(path)


def test_a_damaged_binary_batch_is_an_error(tmp_path, batches, in_cache):
    files = cifar10_files(batches, binary)
    folder = write_folder(tmp_path / "cifar-10-batches-bin", files)
    whole = files["data_batch_5.bin"]
    for name, content in {
        "empty": b"",
        "cut short": whole[:-1],
        "label too large": b"\x0a" + whole[1:],
    }.items():
        (folder / "data_batch_5.bin").write_bytes(content)
        with case(name), pytest.raises(DatasetError, match=r"data_batch_5\.bin.*etch it again"):
            load_cifar10(folder)
    assert in_cache() == []


# --- archives --------------------------------------------------------------------------------


def member(name, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


BATCH = "cifar-10-batches-py/data_batch_1"
MEMBERS = {
    "outside": member("cifar-10-batches-py/../../evil"),
    "absolute": member("/evil"),
    "symbolic link": member(BATCH, tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member(BATCH, tarfile.LNKTYPE, linkname="cifar-10-batches-py/test_batch"),
    "device": member(BATCH, tarfile.CHRTYPE),
    "fifo": member("cifar-10-batches-py/fifo", tarfile.FIFOTYPE),
    "sparse": member(BATCH, pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "9" * 15}),
    "folder for a batch": member(BATCH, tarfile.DIRTYPE),
}


def test_an_archive_with_a_hostile_member_is_an_error(tmp_path, batches, in_cache):
    for name, hostile in MEMBERS.items():
        files = cifar10_files(batches, python2_pickle)
        if hostile.name == BATCH:
            del files["data_batch_1"]
        path = write_archive(tmp_path / "a.tar.gz", files, hostile)
        said = r"a\.tar\.gz.*member.*etch it again|is a folder"
        with case(name), pytest.raises(DatasetError, match=said):
            load_cifar10(path)
        assert set(tmp_path.rglob("*")) == {path}
    assert in_cache() == []


def test_a_damaged_archive_is_an_error(tmp_path, batches, in_cache):
    path = write_archive(tmp_path / "a.tar.gz", cifar10_files(batches, python2_pickle))
    whole = path.read_bytes()
    damages = {
        "cut short": whole[: len(whole) // 2],
        "not gzip": b"<html>moved</html>",
        "bad checksum": whole[:-8] + bytes(8),
        "not tar": gzip.compress(b"hello" * 1000),
        "empty": b"",
    }
    for name, content in damages.items():
        path.write_bytes(content)
        with case(name), pytest.raises(DatasetError, match=r"a\.tar\.gz .*etch it again"):
            load_cifar10(path)
    assert in_cache() == []


# --- files made to take memory and time ------------------------------------------------------


@pytest.fixture(params=[1, pytest.param(100, marks=pytest.mark.matrix)], ids=["small", "whole"])
def size(request, monkeypatch):
    """Return the size of a file in hundredths of what exceeds the limits, which shrink with it."""
    if request.param == 1:
        for module in (_cifar_pickles, _files):
            monkeypatch.setattr(module, "LIMIT", _files.LIMIT // 100)
        monkeypatch.setattr(_files, "_MIN_LIMIT", _files._MIN_LIMIT // 100)
        monkeypatch.setattr(_files, "_MAX_HEADER_BYTES", _files._MAX_HEADER_BYTES // 100)
        monkeypatch.setattr(
            _cifar_pickles, "_MAX_INSTRUCTIONS", _cifar_pickles._MAX_INSTRUCTIONS // 100
        )
    return request.param


def rejected(path, content, message, size):
    """Check that a file is an error; where it is a whole one, that it is one at once."""
    path.write_bytes(content)
    limits = bounded() if size > 1 else contextlib.nullcontext()
    with limits, pytest.raises(DatasetError, match=message):
        read_cifar(path)


def number(n: int) -> bytes:
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def text(n: int) -> bytes:
    return b"X" + struct.pack("<I", n) + b"x" * n


def bombs(n):
    """Return pickles and what is said of each."""
    dtype, array, deep = b"cnumpy\ndtype\nq\0", b"cnumpy\ndtype\n)R", b"\x85" * (2000 * n)
    memory = "exhaust the memory"
    pickles = {
        "memo bomb": (b"Nr" + struct.pack("<I", 0x7FFFFFFF), "holds a NoneType"),
        "deep key": (b"}()" + deep + b"Nu", "a key is a tuple"),
        "deep name": (b")" + deep + b")\x93", "something without a name"),
        "deep dtype": (
            b"}X\4\0\0\0datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R("
            b"K\1K\1K\1\x86cnumpy\ndtype\n)" + deep + b"\x85R\x89C\1xtbs",
            "not a plain array of two axes",
        ),
        "deep state": (dtype + b"h\0)R" * (1000 * n) + b"b" * (1000 * n - 1), "holds a Pickled"),
        # Ones that cost no more than others would not be stopped.
        "lists": (b"]" * (5000 * n), memory),
        "dictionaries": (b"}" * (5000 * n), memory),
        "calls": (array * (1500 * n), memory),
        "calls by memo": (dtype + b"h\0)R" * (20_000 * n), memory),
        "strings": (b"U\x01a" * (40_000 * n), memory),
        "long strings": (b"X" + struct.pack("<I", 2**32 - 1) + b"abc", "expected 4294967295"),
        "wide letters": (text(n * 300_000)[:-4] + "😀".encode(), "holds a str"),
        "copies": (
            b"c_codecs\nencode\nq\0" + text(n * 10_000) + b"q\1" + b"h\0h\1\x85R" * 500,
            memory,
        ),
        "colliding numbers": (
            b"}(" + b"".join(number(k << 61) + b"N" for k in range(1, 50 * n)) + b"u",
            "more than 64 bits",
        ),
        "colliding tuples": (b"}(" + b"K\1K\2\x86N" * (600 * n) + b"u", "a key is a tuple"),
    }
    return {name: (b"\x80\x02" + pickle + b".", said) for name, (pickle, said) in pickles.items()}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pickle_made_to_exhaust_the_memory_is_an_error(tmp_path, pack, size):
    for name, (content, message) in bombs(size).items():
        with case(name):
            rejected(tmp_path / "data_batch_1", pack(content), message, size)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """Return an extended header of a tar archive: a block, then its records."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(records)
    return info.tobuf() + records + bytes(-len(records) % 512)


def archives(n):
    """Return the content of archives."""
    file, record = tarfile.TarInfo("a").tobuf(), b"12 k%06d=\n"
    sparse = pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + file
    return {
        "facts": pax(b"".join(record % i for i in range(1000 * n))) + file,
        "facts of all": pax(b"".join(record % i for i in range(200 * n)), b"g") * 60 + file,
        "chained facts": pax(b"6 a=b\n") * 2000 + file,
        "a long name": pax(b"x" * (300_000 * n), b"L") + file,
        "a sparse map": sparse + b"9999999\n" + b"0\n" * (100_000 * n),
        "a size below 0": file[:124] + b"\xff" * 12 + file[136:],
    }


def test_an_archive_made_to_exhaust_the_memory_is_an_error(tmp_path, size):
    for name, content in archives(size).items():
        with case(name):
            packed = gzip.compress(content, 1)
            rejected(tmp_path / "a.tar.gz", packed, r"a\.tar\.gz .*etch it again", size)


@pytest.mark.parametrize("name", ["data_batch_1", "a.tar.gz"])
@pytest.mark.parametrize("start", [b"", b"\x80\x02B\xff\xff\xff\x0e"], ids=["zeros", "pickle"])
def test_a_file_that_unpacks_to_far_more_than_pictures_is_an_error(tmp_path, name, start, size):
    zeros = gzip.compress(bytes(100_000 * size)) * 25  # One gzip file may hold several.
    said = rf"{name} .*({_files._MIN_LIMIT} bytes|bad checksum)"
    rejected(tmp_path / name, gzip.compress(start) + zeros, said, size)


def test_a_file_larger_than_the_limit_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "LIMIT", 2 * 3073)
    zeros = bytes(4 * 3073)
    for name in ("data_batch_1", "not asked for"):
        path = write_archive(tmp_path / "a.tar.gz", {name: zeros})
        with case(name), pytest.raises(DatasetError, match="gz holds more than 6146 bytes"):
            read_cifar(path)
    path = tmp_path / "data_batch_1.bin"
    for pack in (bytes, gzip.compress):
        path.write_bytes(pack(zeros))
        with case(pack), pytest.raises(DatasetError, match="bin holds more than 6146 bytes"):
            read_cifar(path)
        path.write_bytes(pack(zeros[:6146]))
        assert len(read_cifar(path)[0]) == 2


def test_an_archive_of_too_many_members_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_MAX_MEMBERS", 3)
    path = write_archive(tmp_path / "a.tar.gz", {f"{i}": b"" for i in range(4)})
    with pytest.raises(DatasetError, match="member number 4"):
        read_cifar(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["data_batch_1", "cifar-10-python.tar.gz"])
def test_a_named_pipe_is_an_error(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DatasetError, match=rf"{name} cannot be read .*not a regular file"):
        load_cifar10(tmp_path if name == "data_batch_1" else tmp_path / name)
