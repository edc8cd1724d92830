"""Files of a directory that somebody may have sent: regular ones of no more than they can be, and no links.

A FIFO would hold the reader for ever, a link would have a file of this host put into the guest, and a sparse file of
petabytes costs its maker nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from io import BufferedReader
from pathlib import Path

from qemu_sdei.errors import UsageError


def opened(path: Path, limit: int) -> BufferedReader:
    """Open the regular file `path` of at most `limit` bytes for reading. Raises `UsageError`: it is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise UsageError(f"{path} cannot be read: {reason}") from None
    status = os.fstat(fd)
    wrong = None
    if not stat.S_ISREG(status.st_mode):
        wrong = "it is not a regular file"
    elif status.st_size > limit:
        wrong = f"it has {status.st_size} bytes, more than it can have"
    if wrong is not None:
        os.close(fd)
        raise UsageError(f"{path} cannot be read: {wrong}")
    return os.fdopen(fd, "rb")


def read(path: Path, limit: int) -> bytes:
    """All of such a file. Raises `UsageError`."""
    with opened(path, limit) as file:
        try:
            return file.read(limit)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def sha256(path: Path, limit: int) -> str:
    """SHA-256 of such a file, in hex digits. Raises `UsageError`."""
    with opened(path, limit) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def copy(path: Path, to: Path, limit: int) -> None:
    """Copy such a file. Raises `UsageError`: it is none; `OSError`: `to` cannot be written."""
    with opened(path, limit) as file, to.open("wb") as target:
        shutil.copyfileobj(file, target, 1 << 20)


def copy_end(path: Path, to: Path, size: int) -> None:
    """Copy the last `size` bytes of such a file, however long it is. Raises as `copy`."""
    with opened(path, 1 << 62) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        to.write_bytes(file.read(size))
