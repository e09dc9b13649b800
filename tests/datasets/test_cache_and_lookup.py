"""Finding, verifying and caching data sets."""

import dataclasses
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from formats import archive_of, binary, cifar10_files, folder_of, pickle2, rejects
from helpers import PATIENCE

from mlp_xp import datasets
from mlp_xp.datasets import _cache, _loading, cache_dir, cifar
from mlp_xp.datasets._dataset import Content
from mlp_xp.datasets._download import UnreachableError


def fail_to_read(path):
    raise AssertionError(f"read {path} again")


def test_published_data_is_cached_and_then_memory_mapped(spec, python2_folder, in_cache):
    first = _loading.load(spec, python2_folder)
    assert in_cache() == ["cifar10"]
    unread = dataclasses.replace(spec, read=fail_to_read)
    for arrays in (first, _loading.load(unread, python2_folder), _loading.load(unread)):
        for key in ("x_train", "y_train", "x_test", "y_test"):
            np.testing.assert_array_equal(arrays[key], spec.read(python2_folder).arrays[key])
            assert arrays[key].dtype == spec.layout[key][1]
        assert isinstance(arrays["x_train"], np.memmap)
        assert not arrays["x_train"].flags.writeable
        assert type(arrays["y_train"]) is np.ndarray


def test_a_changed_source_is_read_again(spec, python2_folder):
    _loading.load(spec, python2_folder)
    path = python2_folder / "data_batch_1"
    raw, stat = bytearray(path.read_bytes()), path.stat()
    raw[-1000] ^= 1  # a pixel
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    rejects("is not the published cifar10", _loading.load, spec, python2_folder)


def test_only_published_data_is_cached(spec, tmp_path, batches, in_cache):
    batch = batches["data_batch_3"]
    for name, change in {
        "pixel": {"x": batch.x ^ np.eye(*batch.x.shape, 5, dtype=np.uint8)},
        "label": {"y": (batch.y + np.eye(1, len(batch.y), dtype=int)[0]) % 10},
        "order": {"x": batch.x[::-1], "y": batch.y[::-1]},
    }.items():
        changed = batches | {"data_batch_3": batch._replace(**change)}
        folder = folder_of(tmp_path / f"changed {name}", cifar10_files(changed, pickle2))
        said = rf"changed {name} is not the published cifar10: .*download it again"
        rejects(said, _loading.load, spec, folder, name=name)
    own = batches | {"data_batch_1": batches["data_batch_2"]}  # one image more
    folder = folder_of(tmp_path / "own", cifar10_files(own, pickle2))
    assert len(_loading.load(spec, folder)["x_train"]) == spec.layout["x_train"][0][0] + 1
    assert in_cache() == []


def test_data_sets_are_looked_up_in_the_documented_order(spec, python2_folder, batches):
    """Check a path first, then the four places in ``data``, then the cache."""
    unread = dataclasses.replace(spec, read=fail_to_read)
    _loading.load(spec, python2_folder)
    assert _loading.locate(spec) == cache_dir() / "cifar10"
    Path("data").mkdir()
    for n, place in enumerate(reversed(cifar.CIFAR10.paths), 1):
        path = Path("data") / place
        encode = binary if "bin" in place else pickle2
        test = batches["test_batch"]
        other = batches | {"test_batch": test._replace(x=test.x[n:], y=test.y[n:])}
        files = cifar10_files(other, encode)
        if place.endswith(".gz"):
            folder = "cifar-10-batches-bin" if encode is binary else "cifar-10-batches-py"
            archive_of(path, files, folder=folder)
        else:
            folder_of(path, files)
        assert _loading.locate(spec) == path
        np.testing.assert_array_equal(datasets.load_cifar10().x_test, test.x[n:])
    assert place == "cifar-10-batches-py"
    with pytest.raises(AssertionError, match=r"read data.cifar-10-batches-py again"):
        _loading.load(unread)
    with pytest.raises(AssertionError, match="read elsewhere again"):
        _loading.load(unread, "elsewhere")


def test_a_damaged_cache_is_an_error_that_says_what_to_do(spec, python2_folder, monkeypatch):
    _loading.load(spec, python2_folder)
    path = cache_dir() / "cifar10" / "x_test.npy"
    raw = path.read_bytes()
    said = r"x_test\.npy must be uint8 of shape .*missing or damaged \(.*\): delete the folder"
    for name, content in {
        "cut short": raw[:-1],
        "longer": raw + b"x",
        "header": raw.replace(b"{", b"((", 1),
        "other shape": raw.replace(b"(8, 3072)", b"(3072, 8)"),
        "other dtype": raw.replace(b"|u1", b"|i1"),
        "zip": b"PK\x03\x04" + raw,
        "empty": b"",
        "missing": None,
    }.items():
        path.unlink() if content is None else path.write_bytes(content)
        for source in ((), (python2_folder,)):
            rejects(said, _loading.load, spec, *source, name=name)

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    said = r"x_train\.npy must .* damaged \(Permission denied\).* MLP_XP_CACHE to another folder"
    rejects(said, _loading.load, spec)


def test_an_unreadable_cache_is_an_error_only_if_it_is_needed(spec, python2_folder, monkeypatch):
    stored = _loading.load(spec, python2_folder)

    def stat(path, *args, real=os.stat, **kwargs):
        if isinstance(path, str | Path) and cache_dir() in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    said = r"Permission denied.*: get permission to .* set the environment variable MLP_XP_CACHE to"
    rejects(said, _loading.load, spec)
    assert _loading.locate(spec) is None
    np.testing.assert_array_equal(_loading.load(spec, python2_folder)["x_test"], stored["x_test"])


def test_data_load_even_if_they_cannot_be_cached(spec, python2_folder, monkeypatch, in_cache):
    def full(file, array, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    arrays = _loading.load(spec, python2_folder)
    np.testing.assert_array_equal(arrays["y_test"], spec.read(python2_folder).arrays["y_test"])
    assert in_cache() == []


def test_failure_to_fetch_or_store_data_is_an_error(spec, tmp_path, monkeypatch, in_cache):
    wrong = dataclasses.replace(spec, fallback=lambda scratch: Content({}, ("other",)))
    rejects(r"not the published data; nothing was stored\. Down", _loading.load, wrong)
    assert "cifar10" not in in_cache()
    layout = spec.layout | {"y_test": ((10, 50_000), np.dtype("int64"))}
    fetching = dataclasses.replace(spec, layout=layout, fallback=fail_to_read)
    with monkeypatch.context() as patched:
        patched.setattr(_loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000))
        rejects(r"needs 8 MB .*, but 4 MB are free.*free disk", _loading.load, fetching)
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("MLP_XP_CACHE", str(tmp_path / "a-file" / "cache"))
    rejects("set the environment variable MLP_XP_CACHE to another folder", _loading.load, spec)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other folders")
def test_cache_folder_follows_the_environment_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("MLP_XP_CACHE", "~/here")
    assert cache_dir() == Path("~/here").expanduser()
    monkeypatch.delenv("MLP_XP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "mlp-xp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path("~/.cache/mlp-xp").expanduser()


def test_partial_files_left_by_a_killed_process_are_removed(spec, in_cache):
    (cache_dir() / ".thing.01234567.partial").mkdir(parents=True)
    _cache.store("thing", {"a": np.zeros(1000)})
    assert in_cache() == ["thing"]
    downloads = cache_dir() / "cifar10.download"
    (downloads / "scratch").mkdir(parents=True)
    (downloads / "scratch" / "half.tgz").write_bytes(b"half")

    def fallback(scratch):
        assert scratch.parent == downloads
        assert list(scratch.iterdir()) == []
        raise UnreachableError("no npm")

    rejects("no npm", _loading.load, dataclasses.replace(spec, fallback=fallback))
    assert list(downloads.iterdir()) == []


def test_a_load_that_waited_for_another_does_not_fetch_again(spec, python2_folder, monkeypatch):
    waits, fetched, loaded = threading.Event(), [], []

    def announced(folder, locked=_loading.locked, **options):
        if fetched:
            waits.set()
        return locked(folder, **options)

    def fallback(scratch):
        fetched.append(scratch)
        if len(fetched) == 1:
            second.start()
            assert waits.wait(PATIENCE)
        return spec.read(python2_folder)

    monkeypatch.setattr(_loading, "locked", announced)
    fetching = dataclasses.replace(spec, fallback=fallback)
    second = threading.Thread(target=lambda: loaded.append(_loading.load(fetching)))
    loaded.append(_loading.load(fetching))
    second.join()
    assert len(fetched) == 1
    assert [len(arrays["y_test"]) for arrays in loaded] == [8, 8]
    assert not (cache_dir() / "cifar10.download").exists()
