"""The file that a guest's UEFI variables are kept in: what lies in the second bank of flash of QEMU's `virt` machine.

Erased, as it is made, UEFI formats it at its first boot. After that a firmware volume is at its start, with the store
of the variables in it (PI 1.7 volume 3, 3.2.1; the store's form is EDK II's).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from qemu_sdei import paths
from qemu_sdei.errors import UsageError
from qemu_sdei.uefi.image_locks import in_use

SIZE: Final = 64 << 20
"""Bytes of the bank, and of the file."""
_HEADER: Final = struct.Struct("<16x16sQ4sIHHHBB")
"""EFI_FIRMWARE_VOLUME_HEADER: file system, length, signature, attributes, header's length, checksum, ..."""
_SIGNATURE: Final = b"_FVH"
_LOOK: Final = 0x1000
_AGAIN: Final = "delete it, and an empty one is made"


def check(name: str | Path, *, arriving: bool = False) -> Path:
    """The absolute path of a file of variables; it is not touched. `arriving`: another QEMU may have it still, from
    which the guest comes.

    Raises:
        UsageError: it is damaged, in use, or can neither be used nor made.
    """
    path = paths.absolute(name)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_LOOK)
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK):
            raise UsageError(f"UEFI variables {path} cannot be made: {path.parent} is not writable") from None
        return path
    except OSError as error:
        raise UsageError(f"UEFI variables {path} cannot be read: {error.strerror}") from None
    if size != SIZE:
        raise UsageError(f"UEFI variables {path}: {size} bytes are not the {SIZE >> 20} MiB of such a file: {_AGAIN}")
    if not _is_sound(head):
        raise UsageError(f"UEFI variables {path} are damaged, or of something else: {_AGAIN}")
    if not os.access(path, os.W_OK):
        raise UsageError(f"UEFI variables {path} cannot be written: make the file writable")
    if not arriving and in_use(path):
        raise UsageError(f"UEFI variables {path} are in use by another QEMU: give each guest a file of its own")
    return path


def create(path: Path) -> None:
    """Make an empty file of variables, mode 0600, unless there is something. Raises `OSError`."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with os.fdopen(fd, "wb") as file:
        file.truncate(SIZE)


def _is_sound(head: bytes) -> bool:
    """Whether it is erased, or begins with a volume whose header is whole."""
    if head in (bytes(len(head)), b"\xff" * len(head)):
        return True
    _, length, signature, _, header, _, _, _, _ = _HEADER.unpack_from(head)
    if signature != _SIGNATURE or not _HEADER.size <= header <= len(head) or header % 2 or length > SIZE:
        return False
    words: tuple[int, ...] = struct.unpack(f"<{header // 2}H", head[:header])
    return sum(words) & 0xFFFF == 0
