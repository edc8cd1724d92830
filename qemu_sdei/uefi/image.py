"""A UEFI image for QEMU's arm64 `virt` machine: what lies in its first bank of flash.

Such an image begins with an instruction, because the CPU starts there, and has firmware volumes in it (PI 1.7 volume 3,
3.2.1). What Debian's `qemu-efi-aarch64` and others give is padded with zeroes to the size of the bank, or not.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from qemu_sdei.boot.image import read_file
from qemu_sdei.errors import UsageError
from qemu_sdei.hypervisor.stage2 import BLOCK, FLASH_SIZE

LEAST_RAM: Final = 128 << 20
"""Bytes of RAM that UEFI for this machine must find: its first stack is just below. With less it ends in an abort."""
_VOLUME: Final = b"_FVH"
_LOOK: Final = 1 << 20
_WHAT: Final = "give one for the arm64 virt machine, such as Debian's /usr/share/AAVMF/AAVMF_CODE.fd"


@lru_cache(maxsize=2)
def load(path: str) -> bytes:
    """The image, without the padding behind it, a multiple of 2 MiB. Kept for the next time.

    Raises:
        UsageError: it cannot be read, or is no such image; the message says what is wrong.
    """
    data = read_file(path, "UEFI image")
    if len(data) > FLASH_SIZE:
        raise UsageError(f"UEFI image {path}: {len(data)} bytes; it has {FLASH_SIZE >> 20} MiB at most: {_WHAT}")
    if _VOLUME not in data[:_LOOK]:
        raise UsageError(f"UEFI image {path}: it is none, as there is no firmware volume in it: {_WHAT}")
    if (other := _other_machine(data)) is not None:
        raise UsageError(f"UEFI image {path}: it is for {other}, not for arm64: {_WHAT}")
    used = len(data.rstrip(b"\0"))
    return data[:used].ljust((used + BLOCK - 1) & -BLOCK, b"\0")


def _other_machine(data: bytes) -> str | None:
    """What an image is for by its first instruction; None: arm64, a branch."""
    (word,) = struct.unpack_from("<I", data)
    if word >> 26 == 0b000101:
        return None
    if word >> 24 == 0xEA:
        return "32-bit Arm"
    if data[0x28:0x2C] == _VOLUME:
        return "another machine (x86, if anything)"
    return "another machine"
