"""Write files and folders completely or not at all, even if the power fails.

Everything is written under a unique temporary name, flushed to disk, and renamed once. A killed
writer leaves only files with temporary names, which `sweep` removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
# Errors raised by file systems that cannot flush folders.
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_IS_WINDOWS = sys.platform == "win32"
# The exceptions raised if another process holds the lock.
_IN_USE = (PermissionError, FileExistsError) if _IS_WINDOWS else (BlockingIOError,)
# Seconds between attempts to rename on Windows, where virus scanners briefly open new files.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8) if _IS_WINDOWS else ()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    is_folder = path.is_dir()
    if is_folder and _IS_WINDOWS:
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents."""
    if not path.is_dir():
        if not path.parent.exists():
            make_folder(path.parent)
        path.mkdir(exist_ok=True)
        flush(path.parent)


@contextlib.contextmanager
def replacing(path: Path, *, flushes: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end, the new file atomically replaces `path`.

    Flushing takes milliseconds; without it, the file may be incomplete after a power failure.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        if flushes:
            flush(temporary)
        _rename(temporary, path)
        if flushes:
            flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to write to; at the end, the folder replaces `path`."""
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        _flush_all(temporary)
        if path.exists():  # A rename cannot replace a folder that is not empty.
            remove_folder(path)
        _rename(temporary, path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Rename a folder, then remove it, so that readers never see it partly removed."""
    old = _temporary(path)
    _rename(path, old)
    shutil.rmtree(old, ignore_errors=True)


def rename_folder(path: Path, name: Path) -> None:
    """Flush the folder's files to disk, then rename it."""
    _flush_all(path)
    _rename(path, name)
    flush(name.parent)


def _rename(path: Path, name: Path) -> None:
    for pause in _PAUSES:
        with contextlib.suppress(PermissionError):
            path.replace(name)
            return
        time.sleep(pause)
    path.replace(name)


def _flush_all(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for file in files:
            flush(Path(root, file))
        flush(Path(root))


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed writers from a folder that the caller has `locked`."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Lock an existing folder against other writers, including other threads of this process.

    If the folder is already locked, wait (``waits=True``) or raise BlockingIOError. If the process
    is killed, the system releases the lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            _lock(folder, stack, waits)
        except _IN_USE as error:
            raise BlockingIOError(
                errno.EAGAIN,
                "another process or thread is writing to this folder: wait until it has finished, "
                "or choose another folder",
                str(folder),
            ) from error
        yield


if sys.platform == "win32":

    def _lock(folder: Path, stack: contextlib.ExitStack, waits: bool) -> None:
        # Beside the folder: Windows does not rename a folder that contains an open file.
        file = (place := folder.absolute()).with_name(f".{place.name}.lock")
        while True:
            try:
                # On Windows, this fails if another process has the file open.
                file.unlink(missing_ok=True)
                descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR)
                break
            except _IN_USE:
                if not waits:
                    raise
                time.sleep(0.1)
        # A waiting process may have the file open.
        stack.enter_context(contextlib.suppress(PermissionError))
        stack.callback(file.unlink, missing_ok=True)
        stack.callback(os.close, descriptor)

else:
    import fcntl

    def _lock(folder: Path, stack: contextlib.ExitStack, waits: bool) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            # Closing is not enough to unlock: a process forked meanwhile has a copy of the
            # descriptor.
            stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        except OSError as error:
            # The file system does not support locks; saving without a lock is better than not
            # saving.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
