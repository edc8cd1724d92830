"""Whether UEFI finds something to boot on a disk: an EFI system partition (UEFI 2.10 5.2.1, 5.3.3), or what it takes
for one (a file system of its own on the whole disk, the boot image of a CD).
"""

from __future__ import annotations

import struct
import uuid
from typing import Final

from qemu_sdei.uefi.disk_image import DiskImage

SECTOR: Final = 512
_SYSTEM_PARTITION: Final = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B").bytes_le
_OS_TYPE: Final = 0xEF
"""Of an EFI system partition in an MBR."""
_TABLE: Final = struct.Struct("<QII")
"""In a GPT's header, at 72: the entries' first block, how many, bytes of each."""
_MBR_SIGNATURE: Final = b"\x55\xaa"
_ISO: Final = 0x8001
_BOOT_RECORD: Final = 0x8801


def can_boot(disk: DiskImage) -> bool | None:
    """Whether there is such a thing on a disk; None: what is there cannot be read here. Raises `UsageError`."""
    first = disk.read(0, 2 * SECTOR)
    if first is None:
        return None
    if first[SECTOR : SECTOR + 8] == b"EFI PART":
        return _in_gpt(disk, first[SECTOR:])
    if first[510:512] == _MBR_SIGNATURE:
        types = (first[446 + 16 * n + 4] for n in range(4))
        if _OS_TYPE in types or b"FAT" in (first[54:57], first[82:85]):
            return True
    volume, boot = disk.read(_ISO, 5), disk.read(_BOOT_RECORD, 28)
    if volume is None or boot is None:
        return None
    return volume == b"CD001" and b"EL TORITO" in boot


def _in_gpt(disk: DiskImage, header: bytes) -> bool | None:
    start, count, size = _TABLE.unpack_from(header, 72)
    if not 128 <= size <= 4096 or start > disk.size // SECTOR:
        return False
    data = disk.read(start * SECTOR, min(count, 1024) * size)
    if data is None:
        return None
    return any(data[at : at + 16] == _SYSTEM_PARTITION for at in range(0, len(data) - 15, size))
