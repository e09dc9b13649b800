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

from mlp_xp.datasets import DatasetError, _download
from mlp_xp.datasets._download import Remote, UnreachableError, download

BODY = np.random.default_rng(0).bytes(1_000_000)
CUT = 1 << 18  # what is written to disk at a time
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """A server that sends the next of `answers` to each request, and repeats the last."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.ranges = []

    def next_answer(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.ranges.append(self.headers["Range"])
        self.server.next_answer()(self)

    def log_message(self, *_):
        pass


def send(handler, *, body=BODY, cut=None, use_range=True, length=True):
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


def whole(handler):
    send(handler)


def cut(handler):
    send(handler, cut=CUT)


def status(code):
    return lambda handler: handler.send_error(code)


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    @contextmanager
    def running(*answers):
        with Server(answers) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield server, Remote(f"http://127.0.0.1:{server.server_port}/x.tar.gz", SHA256)
            finally:
                server.shutdown()
                thread.join()

    return running


def test_a_download_is_complete_and_leaves_no_part(serve, tmp_path):
    with serve(whole) as (server, remote):
        path = download(remote, tmp_path)
        assert path == tmp_path / "x.tar.gz"
        assert path.read_bytes() == BODY
        assert list(tmp_path.iterdir()) == [path]
        assert download(remote, tmp_path) == path
        assert server.ranges == [None]  # the second time it was there


def test_a_cut_download_is_resumed(serve, tmp_path):
    with serve(cut, cut, cut, whole) as (server, remote):
        assert download(remote, tmp_path, pause=0).read_bytes() == BODY
        assert server.ranges == [None, *(f"bytes={n * CUT}-" for n in (1, 2, 3))]


def test_attempts_that_receive_something_do_not_count(serve, tmp_path):
    with serve(cut, status(503), cut, status(503), whole) as (_, remote):
        assert download(remote, tmp_path, attempts=3, pause=0).read_bytes() == BODY


def test_a_server_that_ignores_ranges_sends_all_again(serve, tmp_path):
    def ignores(handler):
        send(handler, use_range=False)

    with serve(cut, ignores) as (server, remote):
        assert download(remote, tmp_path, pause=0).read_bytes() == BODY
        assert server.ranges == [None, f"bytes={CUT}-"]


def test_the_next_call_resumes_from_the_part(serve, tmp_path):
    with serve(cut, status(404)) as (_, remote):
        with pytest.raises(UnreachableError):
            download(remote, tmp_path, pause=0)
        assert (tmp_path / "x.tar.gz.part").stat().st_size == CUT
    with serve(whole) as (server, remote):
        assert download(remote, tmp_path).read_bytes() == BODY
        assert server.ranges == [f"bytes={CUT}-"]


def test_a_complete_part_is_used(serve, tmp_path):
    (tmp_path / "x.tar.gz.part").write_bytes(BODY)
    with serve(whole) as (_, remote):
        assert download(remote, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("kind", ["tampered", "too short", "foreign part"])
def test_a_wrong_file_is_an_error_and_deleted(serve, tmp_path, kind):
    def answer(handler):
        if kind == "tampered":
            send(handler, body=b"x" + BODY[1:])
        elif kind == "too short":
            send(handler, body=BODY[:-1], length=False)
        else:
            send(handler)

    if kind == "foreign part":
        (tmp_path / "x.tar.gz.part").write_bytes(b"x" * 1000)
    wrong = rf"SHA-256 \w+, expected {SHA256}; it was deleted"
    with serve(answer) as (_, remote), pytest.raises(DatasetError, match=wrong):
        download(remote, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_is_not_a_server_that_cannot_be_reached(serve, tmp_path):
    """Nothing else is fetched then, and the message is about room."""
    (tmp_path / "x.tar.gz.part").symlink_to("/dev/full")
    with serve(whole) as (server, remote):
        with pytest.raises(OSError, match="No space left on device") as error:
            download(remote, tmp_path, pause=0)
        assert len(server.ranges) == 1
    assert error.value.errno == errno.ENOSPC
    assert not isinstance(error.value, UnreachableError)


def test_an_endless_file_is_an_error(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "LIMIT", 500_000)
    too_much = "sends more than 500000 bytes"
    with serve(whole) as (_, remote), pytest.raises(DatasetError, match=too_much):
        download(remote, tmp_path)


def test_a_busy_server_is_retried(serve, tmp_path):
    with serve(status(503), status(429), whole) as (_, remote):
        assert download(remote, tmp_path, pause=0).read_bytes() == BODY


def test_a_server_that_stays_busy_is_an_error(serve, tmp_path):
    with serve(status(503)) as (server, remote):
        with pytest.raises(UnreachableError, match=r"x\.tar\.gz cannot be reached \(503"):
            download(remote, tmp_path, attempts=3, pause=0)
        assert len(server.ranges) == 3


def test_a_missing_file_is_not_retried(serve, tmp_path):
    with serve(status(404)) as (server, remote):
        with pytest.raises(UnreachableError, match="404"):
            download(remote, tmp_path, pause=0)
        assert len(server.ranges) == 1


def test_a_refused_connection_is_unreachable(serve, tmp_path):
    with serve(whole) as (_, remote):
        pass
    with pytest.raises(UnreachableError, match="cannot be reached"):
        download(remote, tmp_path, pause=0)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_a_short_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_download, "_PATIENCE", 0.3)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(UnreachableError) as error:
            download(Remote(url, SHA256), tmp_path)
    assert str(error.value) == f"{url} cannot be reached (no answer in time)"
    assert capsys.readouterr() == ("", "")


def test_a_silent_name_server_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "_PATIENCE", 0.3)
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: is_over.wait(60.0))
    with pytest.raises(UnreachableError, match=r"\(no answer in time\)$"):
        download(Remote("http://host.invalid/x", SHA256), tmp_path)
    is_over.set()


def test_the_reason_is_the_message_of_the_system(tmp_path):
    with pytest.raises(UnreachableError, match=r"/x cannot be reached \(Connection refused\)$"):
        download(Remote("http://127.0.0.1:9/x", SHA256), tmp_path, pause=0)


def test_there_is_no_bar_before_the_first_byte(serve, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with serve(status(404)) as (_, remote), pytest.raises(UnreachableError):
        download(remote, tmp_path)
    assert "x.tar.gz" not in capsys.readouterr().err
    with serve(whole) as (_, remote):
        download(remote, tmp_path)
    assert "x.tar.gz" in capsys.readouterr().err


def test_a_missing_extra_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[cli\]"'):
        download(Remote("http://127.0.0.1:9/x", SHA256), tmp_path)
