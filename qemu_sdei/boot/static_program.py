"""Programs for Linux in our own initramfs: an ELF header in front of a flat image that `guest/` builds."""

from __future__ import annotations

import struct
from typing import Final

BASE: Final = 0x40_0000
"""Where the file begins in memory."""
START: Final = 0x1000
"""Offset of the image, whose first instruction is the program's first."""
_HEADER: Final = struct.Struct("<4s5B7x2HI3QI6H")
_SEGMENT: Final = struct.Struct("<2I6Q")
_EXECUTABLE, _AARCH64, _LOADED = 2, 183, 1
_READ_EXECUTE: Final = 5
_ALIGNED: Final = 0x1_0000


def elf(image: bytes) -> bytes:
    """An AArch64 executable that is one segment, read and executed, with `image` at `BASE + START`."""
    size = START + len(image)
    header = _HEADER.pack(
        b"\x7fELF", 2, 1, 1, 0, 0, _EXECUTABLE, _AARCH64, 1, BASE + START, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = _SEGMENT.pack(_LOADED, _READ_EXECUTE, 0, BASE, BASE, size, size, _ALIGNED)
    return (header + segment).ljust(START, b"\0") + image
