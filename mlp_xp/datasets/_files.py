"""Read named files from a folder or a ``.tar.gz``, within a size limit; nothing is extracted."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.files import open_file
from mlp_xp.datasets._types import DatasetError

# The largest official file has 155 MB, the largest official archive unpacks to 187 MB. Whatever is
# bigger is not one of them, and may be a small archive made to fill the memory.
LIMIT = 256 << 20
# Pictures are packed to a half of their size, simple ones to a twentieth; zeros to a thousandth.
_MOST_UNPACKED = 32  # bytes of each packed one, where they are more than
_ALWAYS_UNPACKED = 32 << 20
_MAX_MEMBERS = 1000
_MOST_HEADERS = 1 << 20  # bytes of what belongs to the members of an archive beside their content


def sha256(data: bytes | NDArray[Any]) -> str:
    """Return the SHA-256 of bytes, or of an array's values in little-endian C order."""
    if isinstance(data, np.ndarray):
        little = data.dtype.newbyteorder("<")
        return hashlib.sha256(np.ascontiguousarray(data, dtype=little).data).hexdigest()
    return hashlib.sha256(data).hexdigest()


def join(parts: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Concatenate along the first axis and empty the list on the way.

    Each part is freed once it is copied, so that two copies of CIFAR-10 are never in memory.
    """
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=np.uint8)
    end = len(joined)
    while parts:
        start = end - len(parts[-1])
        joined[start:end] = parts.pop()
        end = start
    return joined


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Capped:
    """A stream that gives at most `LIMIT` bytes, and as many of a packed file as fit its size."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, where: Path) -> None:
        self._file = file
        self._where = where
        packed = where.stat().st_size
        self._limit = min(LIMIT, max(_ALWAYS_UNPACKED, _MOST_UNPACKED * packed))
        self._left = self._limit

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise DatasetError(
                f"{self._where} holds more than {self._limit} bytes, which no official file of its "
                "size does: to replace it, fetch it again"
            )
        return data


def read_file(path: Path) -> bytes:
    """Return the bytes of a file, unzipped if it is a gzip file.

    Raises
    ------
    DatasetError
        The file is missing, damaged or larger than `LIMIT`.
    """
    try:
        with open_file(path) as file:
            if file.peek(2)[:2] == b"\x1f\x8b":
                with gzip.open(file) as unzipped:
                    return _Capped(unzipped, path).read()
            return _Capped(file, path).read()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def read_archive(path: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``(name, bytes)`` of those members of a ``.tar.gz`` that are in `names`, as they come.

    Raises
    ------
    DatasetError
        The archive is damaged, unpacks to more than `LIMIT`, or has a member that is a link, a
        device or lies outside the archive's own folder: no official archive has one.
    """
    try:
        # One forward pass over a capped stream: nothing, not even a header, can be larger than it.
        with open_file(path) as file, gzip.open(file) as unzipped:
            stream = _Capped(unzipped, path)
            with tarfile.open(
                fileobj=cast("IO[bytes]", stream), mode="r|", tarinfo=_member_kind()
            ) as archive:
                for count, member in enumerate(archive):
                    _refuse_trap(path, member, count)
                    if member.name in names:
                        yield member.name, _bytes_of(archive, member, path)
            while stream.read(1 << 20):  # to the end, where gzip keeps its checksum
                pass
    except DatasetError:
        raise
    except Exception as error:  # hostile bytes can raise anything
        raise _damaged(path, error) from error


def _member_kind() -> type[tarfile.TarInfo]:
    """Return the class of an archive's members: those whose headers take no memory."""
    room = _MOST_HEADERS

    class Member(tarfile.TarInfo):
        # Not `frombuf`, which newer patch releases of Python no longer call.
        def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
            nonlocal room
            if not (self.isfile() or self.isdir()):  # A long name, or other facts of the next.
                room -= abs(self.size)
            if room < 0 or self.size < 0:
                raise tarfile.ReadError("its headers are longer than names and dates")
            member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
            return member

        def _refuse_sparse(self, *_: object) -> NoReturn:
            raise tarfile.ReadError("it has a sparse member")

        # Their maps may be as long as the archive.
        _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse

    return Member


def _bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise DatasetError(
            f"{path}: the member {member.name!r} is a folder, expected a file. To replace "
            "the archive, fetch it again"
        )
    return file.read()


def _refuse_trap(path: Path, member: tarfile.TarInfo, count: int) -> None:
    name = PurePosixPath(member.name)
    plain = member.isfile() or member.isdir()
    if not plain or name.is_absolute() or ".." in name.parts or count >= _MAX_MEMBERS:
        raise DatasetError(
            f"{path} is not an archive that was published: its member number {count + 1}, "
            f"{member.name!r:.99}, is a link or a device, lies outside the archive's own folder, "
            f"or is one too many (at most {_MAX_MEMBERS} are read). Nothing was extracted; to "
            "replace the archive, fetch it again"
        )


def _damaged(path: Path, error: Exception) -> DatasetError:
    if isinstance(error, OSError) and error.strerror:  # The system says so, not its content.
        return DatasetError(
            f"{path} cannot be read ({error.strerror}): check that this is the path, and that you "
            "may read it"
        )
    reason = " ".join(str(error).split())[:300]
    return DatasetError(
        f"{path} cannot be read ({type(error).__name__}: {reason}); it is cut short, damaged or of "
        "another kind: fetch it again to replace it, or name another path"
    )
