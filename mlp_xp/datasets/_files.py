"""Read files and ``.tar.gz`` archives within size limits; nothing is extracted."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.storage.files import open_file
from mlp_xp.datasets._dataset import DatasetError

# The largest official file has 155 MB, and the largest official archive unpacks to 187 MB. Larger
# files may be decompression bombs.
LIMIT = 256 << 20
# A file may unpack to `_MAX_RATIO` times its size, or to `_MIN_LIMIT` bytes if that is more. gzip
# compresses images by a factor of 2 to 20, and zeros by 1000.
_MAX_RATIO = 32
_MIN_LIMIT = 32 << 20
_MAX_MEMBERS = 1000
_MAX_HEADER_BYTES = 1 << 20  # The maximum number of bytes of extended headers, e.g. long names.


def sha256(data: bytes | NDArray[Any]) -> str:
    """Return the SHA-256 of bytes, or of an array's values as little-endian bytes in C order."""
    if isinstance(data, np.ndarray):
        little = data.dtype.newbyteorder("<")
        return hashlib.sha256(np.ascontiguousarray(data, dtype=little).data).hexdigest()
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Capped:
    """A stream that raises an error if it unpacks to too many bytes for the file's size."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, where: Path) -> None:
        self._file = file
        self._where = where
        packed = where.stat().st_size
        self._limit = min(LIMIT, max(_MIN_LIMIT, _MAX_RATIO * packed))
        self._left = self._limit

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise DatasetError(
                f"{self._where} contains more than {self._limit} bytes, more than any official "
                "file of its size: download it again"
            )
        return data


def read_file(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if it is a gzip file."""
    try:
        with open_file(path) as file:
            if file.peek(2)[:2] == b"\x1f\x8b":
                with gzip.open(file) as unzipped:
                    return _Capped(unzipped, path).read()
            return _Capped(file, path).read()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def read_archive(path: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each member of a ``.tar.gz`` whose name is in ``names``.

    Raise DatasetError if the archive is damaged, unpacks to more than its limit, or contains a
    link, a device or a path outside its folder.
    """
    try:
        # Read the limited stream in a single pass, so headers count towards the limit, too.
        with open_file(path) as file, gzip.open(file) as unzipped:
            stream = _Capped(unzipped, path)
            with tarfile.open(
                fileobj=cast("IO[bytes]", stream), mode="r|", tarinfo=_member_class()
            ) as archive:
                for count, member in enumerate(archive):
                    _check_member(path, member, count)
                    if member.name in names:
                        yield member.name, _bytes_of(archive, member, path)
            while stream.read(1 << 20):  # Read and check gzip's checksum at the end.
                pass
    except DatasetError:
        raise
    except Exception as error:  # Hostile bytes can raise any error.
        raise _damaged(path, error) from error


def _member_class() -> type[tarfile.TarInfo]:
    """Return a class of archive members that limits the total size of all headers."""
    room = _MAX_HEADER_BYTES

    class Member(tarfile.TarInfo):
        # Overriding `frombuf` would be enough, but recent patch releases of Python no longer call
        # it.
        def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
            nonlocal room
            if not (self.isfile() or self.isdir()):  # Count long names and other metadata.
                room -= abs(self.size)
            if room < 0 or self.size < 0:
                raise tarfile.ReadError("the archive's headers are too long")
            member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
            return member

        def _raise_sparse(self, *_: object) -> NoReturn:
            raise tarfile.ReadError("the archive contains a sparse file")

        # Reject sparse files, since their maps may be as long as the archive.
        _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _raise_sparse

    return Member


def _bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise DatasetError(
            f"{path}: {member.name!r} must be a file, but is a folder: download the archive again"
        )
    return file.read()


def _check_member(path: Path, member: tarfile.TarInfo, count: int) -> None:
    name = PurePosixPath(member.name)
    plain = member.isfile() or member.isdir()
    if not plain or name.is_absolute() or ".." in name.parts or count >= _MAX_MEMBERS:
        raise DatasetError(
            f"{path} is not an official archive: its member number {count + 1}, "
            f"{member.name!r:.99}, is a link or a device, is outside the archive's folder, or "
            f"exceeds the limit of {_MAX_MEMBERS} members. Nothing was extracted; download the "
            "archive again"
        )


def _damaged(path: Path, error: Exception) -> DatasetError:
    # A system error does not mean that the file is damaged.
    if isinstance(error, OSError) and error.strerror:
        return DatasetError(
            f"{path} cannot be read ({error.strerror}): check that the path is correct and that "
            "you have permission to read it"
        )
    reason = " ".join(str(error).split())[:300]
    return DatasetError(
        f"{path} cannot be read ({type(error).__name__}: {reason}); it is truncated, damaged or of "
        "another type: download it again, or pass another path"
    )
