"""Downloads over HTTP: resumed, retried, verified, and complete or absent."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.optional import optional
from mlp_xp.datasets._dataset import DatasetError
from mlp_xp.datasets._files import LIMIT, sha256_of_file

_CHUNK = 1 << 18
_TIMEOUT = (5.0, 10.0)  # seconds to connect, and between two chunks
_PATIENCE = 8.0  # seconds until the first byte; name servers can take longer
_TOO_BUSY = 429
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL = 206


class Remote(NamedTuple):
    """A file on the web, and its SHA-256."""

    url: str
    sha256: str

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]


class UnreachableError(DatasetError):
    """A download that failed: unknown host, no connection, or an error status."""


def download(remote: Remote, folder: Path, *, attempts: int = 3, pause: float = 0.5) -> Path:
    """Download a file into a folder, verify it and return its path.

    The bytes received so far stay in ``<name>.part``, from which the next attempt or call resumes.
    At most ``attempts`` attempts in a row may receive nothing; the ``pause`` before the second, in
    seconds, is doubled each time.
    """
    requests = optional("requests")
    target = folder / remote.filename
    if target.exists() and sha256_of_file(target) == remote.sha256:
        return target
    part = folder / f"{remote.filename}.part"
    failures = 0
    start = time.monotonic()
    with _progress(remote.filename) as report:
        while True:
            size = _size(part)
            try:
                _attempt(requests, remote.url, part, report)
                break
            except (requests.exceptions.RequestException, TimeoutError) as error:
                failures = 1 if _size(part) > size else failures + 1
                response = getattr(error, "response", None)
                status = 500 if response is None else response.status_code
                hopeless = status < 500 and status != _TOO_BUSY
                silent = not _size(part) and time.monotonic() - start > _PATIENCE / 2
                if failures >= attempts or hopeless or silent:
                    reason = _reason(error)
                    raise UnreachableError(f"{remote.url} cannot be reached ({reason})") from error
            time.sleep(pause * 2 ** (failures - 1))
    if (found := sha256_of_file(part)) != remote.sha256:
        part.unlink()
        raise DatasetError(
            f"{remote.url} must deliver a file with the SHA-256 {remote.sha256}, got {found}; it "
            "was deleted. Try again; if it happens again, something on the way changes the file"
        )
    return part.replace(target)


def _reason(error: Exception) -> str:
    """Return the reason for a failed request from the innermost error."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"{response.status_code} {response.reason}"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        if isinstance(inner, TimeoutError) or "timed out" in str(inner):
            return "no answer in time"
        inner = inner.__cause__ or inner.__context__
    return "no connection"


def _response(requests: Any, url: str, headers: dict[str, str]) -> Any:
    """Return a response whose body has not been read.

    A thread is used to limit the time, since resolving a host name has no timeout.
    """
    responses: list[Any] = []

    def request() -> None:
        try:
            responses.append(requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT))
        except Exception as error:
            responses.append(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if not responses:
        raise TimeoutError
    if isinstance(responses[0], Exception):
        raise responses[0]
    return responses[0]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(requests: Any, url: str, part: Path, report: Callable[[int, int], None]) -> None:
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _response(requests, url, headers) as response:
        if response.status_code == _RANGE_NOT_SATISFIABLE:
            return  # everything was received; the SHA-256 is checked later
        response.raise_for_status()
        if response.status_code != _PARTIAL:
            have = 0  # the server cannot resume and sends the whole file
        total = have + int(response.headers.get("Content-Length", 0))
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                have += file.write(chunk)
                if have > LIMIT:
                    raise DatasetError(
                        f"{url} sends more than {LIMIT} bytes, which no official file has: delete "
                        f"{part}, then check what responses at that address"
                    )
                report(have, total)
    if have < total:
        raise requests.exceptions.ConnectionError(f"cut after {have} of {total} bytes")


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    rich_progress, rich_console = optional("rich.progress"), optional("rich.console")
    with rich_progress.Progress(
        "[progress.description]{task.description}",
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
        console=rich_console.Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as bar:
        tasks: list[Any] = []

        def report(done: int, total: int) -> None:
            if not tasks:  # no bar before the first byte
                tasks.append(bar.add_task(title, total=None))
            bar.update(tasks[0], completed=done, total=total or None)

        yield report
