"""The host's file of a crash dump: from a disk that a guest has written to what its user wanted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.vmcore.core_file import Core

_ROOM: Final = 16 << 20
"""Bytes below which a file system is as good as full."""


def finished(part: Path, target: Path, size: int) -> Path:
    """Have the disk `part` be the vmcore `target`, of `size` bytes as the guest says. Returns `target`.

    Raises:
        GuestError: the guest has written none.
    """
    try:
        with Core(part) as core:
            needed = core.needed
        if not 0 < needed == size <= part.stat().st_size:
            raise UsageError(f"it has {size} bytes, and its headers say {needed}")
        os.truncate(part, size)
        part.replace(target)
    except (UsageError, OSError) as error:
        raise GuestError(f"what the capture kernel has written is not a vmcore: {error}") from None
    return target


def no_room(part: Path) -> str:
    """The directory of `part`, if its file system is full; "": it is not."""
    try:
        found = os.statvfs(part.parent)
    except OSError:
        return ""
    return str(part.parent) if found.f_bavail * found.f_frsize < _ROOM else ""
