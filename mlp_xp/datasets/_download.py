"""HTTP downloads that are resumed, retried and verified."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.optional import optional
from mlp_xp.datasets._dataset import DatasetError
from mlp_xp.datasets._files import LIMIT, sha256_of_file

_CHUNK = 1 << 18
_TIMEOUT = (5.0, 10.0)  # The time limits for connecting and between chunks, in seconds.
_PATIENCE = 8.0  # The time limit for the first byte, in seconds; name servers can take longer.


class Remote(NamedTuple):
    """A URL, and the SHA-256 of its file."""

    url: str
    sha256: str

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]


class UnreachableError(DatasetError):
    """The error for a failed download: unknown host, no connection, or an error status."""


def download(remote: Remote, folder: Path, *, attempts: int = 3, pause: float = 0.5) -> Path:
    """Download a file into a folder, verify it and return its path.

    Received bytes are kept in ``<name>.part``, from which the next attempt or call resumes. After
    ``attempts`` consecutive attempts without data, the download fails. ``pause`` is the number of
    seconds before the second attempt, and doubles for each further attempt.
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
                hopeless = status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS
                silent = not _size(part) and time.monotonic() - start > _PATIENCE / 2
                if failures >= attempts or hopeless or silent:
                    reason = _reason(error)
                    raise UnreachableError(f"{remote.url} cannot be reached ({reason})") from error
            time.sleep(pause * 2 ** (failures - 1))
    if (found := sha256_of_file(part)) != remote.sha256:
        part.unlink()
        raise DatasetError(
            f"the file at {remote.url} must have the SHA-256 {remote.sha256}, got {found}; it was "
            "deleted. Try again; if this happens again, a proxy may be changing the file"
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

    The request runs in a thread to limit its time, because host name resolution has no timeout.
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
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # The file is complete; its SHA-256 is checked later.
        response.raise_for_status()
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            have = 0  # The server cannot resume and sends the whole file.
        total = have + int(response.headers.get("Content-Length", 0))
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                have += file.write(chunk)
                if have > LIMIT:
                    raise DatasetError(
                        f"{url} sends more than {LIMIT} bytes, more than any official file: delete "
                        f"{part}, and check that the address is correct"
                    )
                report(have, total)
    if have < total:
        raise requests.exceptions.ConnectionError(f"the server sent {have} of {total} bytes")


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
            if not tasks:  # The bar appears with the first byte.
                tasks.append(bar.add_task(title, total=None))
            bar.update(tasks[0], completed=done, total=total or None)

        yield report
