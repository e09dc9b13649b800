"""Damaged and hostile files: a clear error, nothing executed, nothing cached."""

import functools
import gzip
import os
import pickle
import struct
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
from helpers import bounded
from official_formats import (
    binary,
    cifar10_files,
    images,
    python2_pickle,
    write_archive,
    write_folder,
)

from mlp_xp.datasets import DatasetError, _files, load_cifar10, read_cifar

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
    "memo bomb": lambda mark: b"\x80\x02Nr" + struct.pack("<I", 0x7FFFFFFF) + b".",
    "deep key": lambda mark: b"\x80\x02}()" + b"\x85" * 200_000 + b"Nu.",
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


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_an_error(tmp_path, batches, name, in_cache):
    mark = tmp_path / "it-ran"
    folder = write_folder(
        tmp_path / "cifar-10-batches-py",
        cifar10_files(batches, python2_pickle) | {"data_batch_2": PICKLES[name](mark)},
    )
    for read in (read_cifar, load_cifar10):
        with pytest.raises(DatasetError, match=r"data_batch_2.*(expected|fetch it again)"):
            read(folder)
    with pytest.raises(DatasetError, match="data_batch_2"):
        read_cifar(folder / "data_batch_2")
    assert not mark.exists()
    assert in_cache() == []


def test_the_error_names_what_the_pickle_refers_to(tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(PICKLES["os.system"](tmp_path / "it-ran"))
    with pytest.raises(DatasetError, match=r"it asks for (posix|nt)\.system, .*nothing in it was"):
        read_cifar(path)


def number(n: int) -> bytes:
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def text(n: int, letter: str = "x") -> bytes:
    raw = letter.encode() * n
    return b"X" + struct.pack("<I", len(raw)) + raw


DTYPE = b"\x80\x02cnumpy\ndtype\nq\0"
ARRAY = b"cnumpy\ndtype\n)R"
BOMBS = {
    "memo bomb": (PICKLES["memo bomb"](None), "holds a NoneType"),
    "deep key": (PICKLES["deep key"](None), "a key is a tuple"),
    "deep name": (b"\x80\x04)" + b"\x85" * 200_000 + b")\x93.", "something without a name"),
    "deep dtype": (
        b"\x80\x02}X\4\0\0\0datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R("
        b"K\1K\1K\1\x86cnumpy\ndtype\n)" + b"\x85" * 200_000 + b"\x85R\x89C\1xtbs.",
        "not a plain array of two axes",
    ),
    "deep state": (
        b"\x80\x02" + b"cnumpy\ndtype\nq\0" + b"h\0)R" * 100_000 + b"b" * 99_999 + b".",
        "holds a Pickled",
    ),
    "lists": (b"\x80\x02" + b"]" * 10_000_000 + b".", "exhaust the memory"),
    "dictionaries": (b"\x80\x02" + b"}" * 10_000_000 + b".", "exhaust the memory"),
    "calls by memo": (DTYPE + b"h\0)R" * 2_000_000 + b".", "exhaust the"),
    "calls": (b"\x80\x02" + ARRAY * 2_000_000 + b".", "exhaust the memory"),
    "strings": (b"\x80\x02" + b"U\x01a" * 4_000_000 + b".", "exhaust the memory"),
    "long strings": (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"abc.", "expected 4294967295"),
    "wide letters": (b"\x80\x02" + text(30 << 20)[:-4] + "😀".encode() + b".", "holds a str"),
    "copies": (
        b"\x80\x02c_codecs\nencode\nq\0" + text(1 << 20) + b"q\1" + b"h\0h\1\x85R" * 3000 + b".",
        "exhaust the memory",
    ),
    "colliding numbers": (
        b"\x80\x02}(" + b"".join(number(k << 61) + b"N" for k in range(1, 5000)) + b"u.",
        "more than 64 bits",
    ),
    "colliding tuples": (b"\x80\x02}(" + b"K\1K\2\x86N" * 60_000 + b"u.", "a key is a tuple"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_made_to_exhaust_the_memory_is_an_error(tmp_path, name, pack):
    path = tmp_path / "data_batch_1"
    content, message = BOMBS[name]
    path.write_bytes(pack(content))
    with bounded(), pytest.raises(DatasetError, match=message):
        read_cifar(path)


def test_a_pickle_cannot_change_how_the_next_is_read(tmp_path):
    """Check that BUILD, which can set attributes, does not change the function for encode."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nN}X\x0c\0\0\0__defaults__X\1\0\0\0x\x85s\x86b.")
    with pytest.raises(DatasetError, match="it sets the state of a function"):
        read_cifar(path)
    path.write_bytes(b"\x80\x02}(X\1\0\0\0ac_codecs\nencode\n)Ru.")
    with pytest.raises(DatasetError, match="missing 1 required positional argument"):
        read_cifar(path)


BINARIES = {
    "empty": b"",
    "cut short": binary(GOOD.x, GOOD.y)[:-1],
    "label too large": binary(GOOD.x, np.array([0, 1, 2, 10])),
}


@pytest.mark.parametrize("name", BINARIES)
def test_a_damaged_binary_batch_is_an_error(tmp_path, batches, name, in_cache):
    files = cifar10_files(batches, binary) | {"data_batch_5.bin": BINARIES[name]}
    folder = write_folder(tmp_path / "cifar-10-batches-bin", files)
    with pytest.raises(DatasetError, match=r"data_batch_5\.bin.*etch it again"):
        load_cifar10(folder)
    assert in_cache() == []


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


@pytest.mark.parametrize("name", MEMBERS)
def test_an_archive_with_a_hostile_member_is_an_error(tmp_path, batches, name, in_cache):
    files = cifar10_files(batches, python2_pickle)
    members = {f"cifar-10-batches-py/{n}": raw for n, raw in files.items()}
    if MEMBERS[name].name == BATCH:
        del members[BATCH]
    path = write_archive(tmp_path / "a.tar.gz", members, MEMBERS[name])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match=r"a\.tar\.gz.*member.*etch it again|is a folder"):
        load_cifar10(path)
    assert set(tmp_path.rglob("*")) == before
    assert in_cache() == []


def test_an_archive_of_too_many_members_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_MAX_MEMBERS", 3)
    path = write_archive(tmp_path / "a.tar.gz", {f"{i}": b"" for i in range(4)})
    with pytest.raises(DatasetError, match="member number 4"):
        read_cifar(path)


@pytest.mark.parametrize("where", ["wanted", "unwanted"])
def test_a_gzip_bomb_is_an_error(tmp_path, monkeypatch, where):
    monkeypatch.setattr(_files, "LIMIT", 1 << 20)
    name = BATCH if where == "wanted" else "zeros"
    path = write_archive(tmp_path / "a.tar.gz", {name: bytes(2 << 20)})
    assert path.stat().st_size < 10_000
    with pytest.raises(DatasetError, match=r"a\.tar\.gz holds more than 1048576 bytes"):
        read_cifar(path)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """Return an extended header of a tar archive: a block, then its records."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(records)
    return info.tobuf() + records + bytes(-len(records) % 512)


RECORDS = b"".join(b"12 k%06d=\n" % i for i in range(100_000))
FILE = tarfile.TarInfo("a").tobuf()
SPARSE = pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + FILE
ARCHIVES = {
    "facts": pax(RECORDS) + FILE,
    "facts of all": pax(RECORDS[: 1 << 18], b"g") * 60 + FILE,
    "chained facts": pax(b"6 a=b\n") * 20_000 + FILE,
    "a long name": pax(b"x" * (30 << 20), b"L") + FILE,
    "a sparse map": SPARSE + b"9999999\n" + b"0\n" * (10 << 20),
    "a size below 0": FILE[:124] + b"\xff" * 12 + FILE[136:],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_made_to_exhaust_the_memory_is_an_error(tmp_path, name):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(ARCHIVES[name], 1))
    with bounded(), pytest.raises(DatasetError, match=r"a\.tar\.gz .*etch it again"):
        read_cifar(path)


ZEROS = gzip.compress(bytes(10 << 20)) * 25  # One gzip file may hold several.


@pytest.mark.parametrize("name", ["data_batch_1", "a.tar.gz"])
@pytest.mark.parametrize("start", [b"", b"\x80\x02B\xff\xff\xff\x0e"])
def test_a_file_that_unpacks_to_far_more_than_pictures_is_an_error(tmp_path, name, start):
    path = tmp_path / name
    path.write_bytes(gzip.compress(start) + ZEROS)
    with bounded(), pytest.raises(DatasetError, match=rf"{name} .*(33554432 bytes|bad checksum)"):
        read_cifar(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["data_batch_1", "cifar-10-python.tar.gz"])
def test_a_named_pipe_is_an_error(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DatasetError, match=rf"{name} cannot be read .*not a regular file"):
        load_cifar10(tmp_path if name == "data_batch_1" else tmp_path / name)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_larger_than_the_limit_is_an_error(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(_files, "LIMIT", 1 << 20)
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(pack(bytes(2 << 20)))
    with pytest.raises(DatasetError, match="holds more than"):
        read_cifar(path)


@pytest.mark.parametrize("kind", ["cut short", "not gzip", "bad checksum", "not tar", "empty"])
def test_a_damaged_archive_is_an_error(tmp_path, batches, kind, in_cache):
    files = cifar10_files(batches, python2_pickle)
    path = write_archive(
        tmp_path / "a.tar.gz", {f"cifar-10-batches-py/{n}": raw for n, raw in files.items()}
    )
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut short": whole[: len(whole) // 2],
            "not gzip": b"<html>moved</html>",
            "bad checksum": whole[:-8] + bytes(8),
            "not tar": gzip.compress(b"hello" * 1000),
            "empty": b"",
        }[kind]
    )
    with pytest.raises(DatasetError, match=r"a\.tar\.gz .*etch it again"):
        load_cifar10(path)
    assert in_cache() == []
