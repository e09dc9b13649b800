"""Damaged and hostile files: a clear error, nothing executed, nothing cached."""

import contextlib
import gzip
import os
import pickle
import struct
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
from formats import archive_of, binary, cifar10_files, folder_of, images, pickle2, rejects
from helpers import bounded, matrix, mutate

from mlp_xp.datasets import DatasetError, _files, load_cifar10, read_cifar
from mlp_xp.datasets._cifar import pickles as _cifar_pickles

GOOD = images(4, seed=0)
RAW = GOOD.x.tobytes()


class Reduce:
    """An object that is pickled as a call of a function, and a state to set."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def call(function, *arguments):
    return Reduce(function, arguments)


def array(shape=GOOD.x.shape, dtype=GOOD.x.dtype, raw=RAW):
    return Reduce(*GOOD.x.__reduce__()[:2], (1, shape, dtype, False, raw))


LABELS = [int(v) for v in GOOD.y]


def dump(labels=LABELS, **batch):
    batch |= {} if labels is None else {"labels": labels}
    return pickle.dumps({key.encode(): value for key, value in batch.items()}, protocol=2)


def hostile_pickles(mark):
    x = GOOD.x
    objects = array(dtype=np.dtype("O"), raw=[None] * x.size)
    return {
        "os.system": dump(data=call(os.system, f"touch {mark}")),
        "a key that calls": pickle.dumps({call(os.mkdir, str(mark)): 1}, protocol=2),
        "numpy.load": dump(data=call(np.load, "x.npy")),
        "OrderedDict": dump(data=OrderedDict()),
        "protocol 4": pickle.dumps(call(os.mkdir, str(mark)), protocol=4),
        "persistent id": b"\x80\x02Pabc\n.",
        "extension code": b"\x80\x02\x82\x01.",
        "NEWOBJ": b"\x80\x02cnumpy\nndarray\n)\x81K\x05b.",
        "cut short": pickle2(x, labels=GOOD.y)[:-1000],
        "empty": b"",
        "not a pickle": b"<html>Service unavailable</html>",
        "not a dictionary": pickle.dumps([1, 2], protocol=2),
        "no data": dump(),
        "data is a list": dump(data=[[1, 2]]),
        "no labels": dump(data=x, labels=None),
        "labels not a list": dump(data=x, labels=tuple(LABELS)),
        "too few labels": dump(data=x, labels=LABELS[1:]),
        **{f"label {n}": dump(data=x, labels=[*LABELS[1:], n]) for n in (10, 2**80, -1, 1.0, True)},
        "float data": dump(data=x.astype(np.float32)),
        "object data": dump(data=x[:, :2].astype(object)),
        "object dtype": dump(data=objects),
        "wrong width": dump(data=x[:, :-1]),
        "three axes": dump(data=x.reshape(4, 3, 1024)),
        "no rows": pickle2(x[:0], labels=[]),
        "huge shape": dump(data=array(shape=(2**62, 3072))),
        "negative shape": dump(data=array(shape=(-4, -3072))),
        "too few bytes": dump(data=array(raw=b"abc")),
        "state is a number": dump(data=Reduce(*x.__reduce__()[:2], 5)),
    }


def test_a_malicious_pickle_is_an_error(tmp_path, batches, in_cache):
    mark = tmp_path / "it-ran"
    folder = folder_of(tmp_path / "cifar-10-batches-py", cifar10_files(batches, pickle2))
    path = folder / "data_batch_2"
    pickles = hostile_pickles(mark)
    for name, content in pickles.items():
        path.write_bytes(content)
        for read, given in ((read_cifar, folder), (load_cifar10, folder), (read_cifar, path)):
            rejects(r"data_batch_2.*(expected|must|download it again)", read, given, name=name)
    path.write_bytes(pickles["os.system"])
    rejects(r"the pickle imports (posix|nt)\.system, .*nothing in it was", read_cifar, path)
    assert not mark.exists()
    assert in_cache() == []


def test_a_pickle_cannot_affect_how_the_next_one_is_read(tmp_path):
    """Check that BUILD, which can set attributes, does not change the function for encode."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nN}X\x0c\0\0\0__defaults__X\1\0\0\0x\x85s\x86b.")
    rejects("the pickle sets the state of a function", read_cifar, path)
    path.write_bytes(b"\x80\x02}(X\1\0\0\0ac_codecs\nencode\n)Ru.")
    rejects("missing 1 required positional argument", read_cifar, path)


BATCH = "cifar-10-batches-py/data_batch_1"
SPARSE = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "9" * 15}
MEMBERS = [
    {"name": "cifar-10-batches-py/../../evil"},
    {"name": "/evil"},
    {"name": BATCH, "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    {"name": BATCH, "type": tarfile.LNKTYPE, "linkname": "cifar-10-batches-py/test_batch"},
    {"name": BATCH, "type": tarfile.CHRTYPE},
    {"name": "cifar-10-batches-py/fifo", "type": tarfile.FIFOTYPE},
    {"name": BATCH, "pax_headers": SPARSE},
    {"name": BATCH, "type": tarfile.DIRTYPE},
]


@pytest.mark.parametrize("fields", MEMBERS)
def test_an_archive_with_a_malicious_member_is_an_error(fields, tmp_path, batches, in_cache):
    files, hostile = cifar10_files(batches, pickle2), tarfile.TarInfo()
    for name, value in fields.items():
        setattr(hostile, name, value)
    if hostile.name == BATCH:
        del files["data_batch_1"]
    path = archive_of(tmp_path / "a.tar.gz", files, hostile)
    rejects(r"a\.tar\.gz.*download (it|the archive) again", load_cifar10, path)
    assert set(tmp_path.rglob("*")) == {path}
    assert in_cache() == []


def test_a_damaged_archive_or_binary_batch_is_an_error(tmp_path, batches, in_cache):
    archive = archive_of(tmp_path / "a.tar.gz", cifar10_files(batches, pickle2))
    files = cifar10_files(batches, binary)
    folder = folder_of(tmp_path / "cifar-10-batches-bin", files)
    batch, whole = folder / "data_batch_5.bin", archive.read_bytes()
    for path, given, content in (
        (archive, archive, whole[: len(whole) // 2]),
        (archive, archive, b"<html>moved</html>"),
        (archive, archive, whole[:-8] + bytes(8)),  # a bad checksum
        (archive, archive, gzip.compress(b"hello" * 1000)),
        (archive, archive, b""),
        (batch, folder, b""),
        (batch, folder, files[batch.name][:-1]),
        (batch, folder, b"\x0a" + files[batch.name][1:]),
    ):
        path.write_bytes(content)
        rejects(rf"{path.name}.*load .* again", load_cifar10, given, name=(path.name, content[:9]))
    assert in_cache() == []


# --- files made to take memory and time ------------------------------------------------------


@pytest.fixture(params=[1, *matrix(100)], ids=["small", "whole"])
def size(request, monkeypatch):
    """Return the size of a file in hundredths of what exceeds the limits, which shrink with it."""
    if request.param == 1:
        limits = [(_cifar_pickles, name) for name in ("LIMIT", "_MAX_INSTRUCTIONS")]
        limits += [(_files, name) for name in ("LIMIT", "_MIN_LIMIT", "_MAX_HEADER_BYTES")]
        for module, name in limits:
            monkeypatch.setattr(module, name, getattr(module, name) // 100)
    return request.param


def rejected(path, content, message, size, name=None):
    """Check that a file is an error; where it is a whole one, that it is one at once."""
    path.write_bytes(content)
    with bounded() if size > 1 else contextlib.nullcontext():
        rejects(message, read_cifar, path, name=name)


def number(n: int) -> bytes:
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def text(n: int) -> bytes:
    return b"X" + struct.pack("<I", n) + b"x" * n


def bombs(n):
    """Return pickles and what is said of each."""
    dtype, instance, deep = b"cnumpy\ndtype\nq\0", b"cnumpy\ndtype\n)R", b"\x85" * (2000 * n)
    data = b"}X\4\0\0\0datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R("
    data += b"K\1K\1K\1\x86cnumpy\ndtype\n)"
    colliding = b"".join(number(k << 61) + b"N" for k in range(1, 50 * n))
    copied, memory = b"c_codecs\nencode\nq\0", "exhaust the memory"
    states = dtype + b"h\0)R" * (1000 * n) + b"b" * (1000 * n - 1)
    pickles = {
        "memo bomb": (b"Nr" + struct.pack("<I", 0x7FFFFFFF), "dictionary, got NoneType"),
        "deep key": (b"}()" + deep + b"Nu", "a key is a tuple"),
        "deep name": (b")" + deep + b")\x93", "an object without a name"),
        "deep dtype": (data + deep + b"\x85R\x89C\1xtbs", "got another kind of array"),
        "deep state": (states, "dictionary, got Pickled"),
        # Ones that cost no more than others would not be stopped.
        "lists": (b"]" * (5000 * n), memory),
        "dictionaries": (b"}" * (5000 * n), memory),
        "calls": (instance * (1500 * n), memory),
        "calls by memo": (dtype + b"h\0)R" * (20_000 * n), memory),
        "strings": (b"U\x01a" * (40_000 * n), memory),
        "long strings": (b"X" + struct.pack("<I", 2**32 - 1) + b"abc", "expected 4294967295"),
        "wide letters": (text(n * 300_000)[:-4] + "😀".encode(), "dictionary, got str"),
        "copies": (copied + text(n * 10_000) + b"q\1" + b"h\0h\1\x85R" * 500, memory),
        "colliding numbers": (b"}(" + colliding + b"u", "more than 64 bits"),
        "colliding tuples": (b"}(" + b"K\1K\2\x86N" * (600 * n) + b"u", "a key is a tuple"),
    }
    return {name: (b"\x80\x02" + pickle + b".", said) for name, (pickle, said) in pickles.items()}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pickle_designed_to_exhaust_memory_is_an_error(tmp_path, pack, size):
    for name, (content, message) in bombs(size).items():
        rejected(tmp_path / "data_batch_1", pack(content), message, size, name)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """Return an extended header of a tar archive: a block, then its records."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(records)
    return info.tobuf() + records + bytes(-len(records) % 512)


def archives(n):
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


def test_an_archive_designed_to_exhaust_memory_is_an_error(tmp_path, size):
    for name, content in archives(size).items():
        packed = gzip.compress(content, 1)
        rejected(tmp_path / "a.tar.gz", packed, r"a\.tar\.gz .*load .* again", size, name)


@pytest.mark.parametrize("name", ["data_batch_1", "a.tar.gz"])
@pytest.mark.parametrize("start", [b"", b"\x80\x02B\xff\xff\xff\x0e"], ids=["zeros", "pickle"])
def test_decompression_bombs_are_an_error(tmp_path, name, start, size):
    zeros = gzip.compress(bytes(100_000 * size)) * 25  # One gzip file may hold several.
    said = rf"{name} .*({_files._MIN_LIMIT} bytes|bad checksum)"
    rejected(tmp_path / name, gzip.compress(start) + zeros, said, size)


def test_a_file_larger_than_the_limit_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "LIMIT", 4 * 3073)
    monkeypatch.setattr(_files, "_MAX_MEMBERS", 3)
    zeros, many = bytes(8 * 3073), {f"{i}": b"" for i in range(4)}
    for files, message in (
        ({"data_batch_1": zeros}, "gz contains more than 12292 bytes"),
        ({"not asked for": zeros}, "gz contains more than 12292 bytes"),
        (many, "member number 4"),
    ):
        path = archive_of(tmp_path / "a.tar.gz", files)
        rejects(message, read_cifar, path, name=list(files))
    path = tmp_path / "data_batch_1.bin"
    for pack in (bytes, gzip.compress):
        path.write_bytes(pack(zeros))
        rejects("bin contains more than 12292 bytes", read_cifar, path, name=pack)
        path.write_bytes(pack(zeros[:12292]))
        assert len(read_cifar(path)[0]) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(("name", "given"), [("data_batch_1", ""), ("cifar-10-python.tar.gz",) * 2])
def test_a_named_pipe_as_a_data_file_is_an_error(name, given, tmp_path):
    os.mkfifo(tmp_path / name)
    said = rf"{name} cannot be read .*not a regular file"
    rejects(said, load_cifar10, tmp_path / given)


SMALL = images(2, seed=0)
STATE = {b"data": SMALL.x, b"labels": [int(label) for label in SMALL.y]}
PICKLES = [pickle.dumps(STATE, protocol=protocol) for protocol in range(5)]
PICKLES.append(pickle2(SMALL.x, labels=SMALL.y))


def read_changed(path, content, read):
    """Read a file of a content; check that the result is valid, or a clear error, and soon."""
    path.write_bytes(content)
    said, labels = str(path.parent), []
    with bounded():
        try:
            data, labels = read(path)[:2]
            assert len(data) == len(labels)
        except DatasetError as error:
            said = str(error)
    assert set(map(int, labels)) <= set(range(10))
    assert str(path.parent) in said
    assert len(said) < 3000


@pytest.mark.matrix
def test_randomly_modified_batches_and_archives_load_or_raise_an_error(tmp_path, rng, batches):
    path = tmp_path / "data_batch_1"
    for whole in PICKLES:
        path.write_bytes(whole)
        assert len(read_cifar(path)[0]) == 2
        for _ in range(80):
            read_changed(path, mutate(whole, PICKLES, rng), read_cifar)
    path = archive_of(tmp_path / "a.tar.gz", dict.fromkeys(batches, PICKLES[0]))
    packed = path.read_bytes()
    unpacked = gzip.decompress(packed)
    assert len(load_cifar10(path).x_test) == 2
    for _ in range(60):
        read_changed(path, mutate(packed, [unpacked], rng), load_cifar10)
        read_changed(path, gzip.compress(mutate(unpacked, [unpacked], rng), 1), load_cifar10)
