"""Whether another QEMU has an image open, by the locks that QEMU puts on it (block/file-posix.c).

A QEMU that may write has byte 101 locked, one that lets nobody else write byte 201. It would end with an error of its
own; here the user is told before anything is started.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

_WRITES: Final = 101
_ALONE: Final = 201
_FLOCK: Final = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, pid."""


def in_use(path: Path, *, read_only: bool = False) -> bool:
    """Whether another QEMU would keep one that we start from opening the image `path`; False too where it cannot be
    found out. `read_only`: ours will not write.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return any(_is_locked(fd, byte) for byte in ((_WRITES,) if read_only else (_WRITES, _ALONE)))
    except OSError:
        return False
    finally:
        os.close(fd)


def _is_locked(fd: int, byte: int) -> bool:
    """Whether somebody else has a lock there, of whatever kind."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK
