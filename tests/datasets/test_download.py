"""Downloads from a local server."""

import errno
import hashlib
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from formats import rejects

from mlp_xp.datasets import _download
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


def test_a_download_is_complete_and_leaves_no_part(tmp_path, monkeypatch, capsys):
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


def test_a_wrong_file_is_an_error_and_deleted(tmp_path, monkeypatch):
    wrong = rf"SHA-256 \w+, expected {SHA256}; it was deleted"
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
def test_a_disk_that_fills_up_is_not_a_server_that_cannot_be_reached(tmp_path):
    """Nothing else is fetched then, and the message is about room."""
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
    """One that is busy is tried again, one that lacks the file is not."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with serve(*answers[:-1], status(answers[-1])) as (server, remote):
        said = rf"x\.tar\.gz cannot be reached \({answers[-1]} "
        with pytest.raises(UnreachableError, match=said):
            download(remote, tmp_path, attempts=attempts)
        assert len(server.ranges) == n
    found = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert found == ({"x.tar.gz.part": left} if left else {})
    assert ("x.tar.gz" in capsys.readouterr().err) == bool(left)  # No bar before the first byte.


def test_the_reason_is_the_message_of_the_system(tmp_path, pauses):
    with pytest.raises(UnreachableError, match=r"/x cannot be reached \(Connection refused\)$"):
        download(Remote("http://127.0.0.1:9/x", SHA256), tmp_path)
    assert pauses == [0.5, 1.0]
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_or_name_server_is_a_short_error(tmp_path, monkeypatch, capsys):
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
