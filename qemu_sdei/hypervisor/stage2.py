"""Stage 2 of a guest: what it takes for physical addresses are those of the machine, but the hidden RAM is not there.

So no CPU of the guest's reaches the frame window, the monitor's stacks, the vectors of EL2 and these tables themselves:
an access comes to EL2 as an abort. What a device of the guest's reads and writes goes past it, as there is no SMMU.
Only the records of stolen time are there, to be read.

40 bits of address, 4 KiB granule, two tables of level 1 (Arm ARM D8.2). RAM and the devices below it are mapped by
blocks of 2 MiB, as far as there is room for tables, else by 1 GiB: under TCG either costs the same.
"""

from __future__ import annotations

import struct
from typing import Final

from qemu_sdei.monitor import layout

_GIB: Final = 1 << 30
BLOCK: Final = 2 << 20
_PAGE: Final = 0x1000
_ENTRIES: Final = 512
ADDRESS_BITS: Final = 40
_ROOT: Final = 0x2000
"""Offset of level 1 in the EL2 area, in bytes; its size is the same, and it is aligned to it."""
_LEVEL_2: Final = 0x4000
_LEVEL_3: Final = 0x1000
"""The one table of level 3: the block of the hidden RAM with the records of stolen time."""
TABLES: Final = (layout.EL2_SIZE - _LEVEL_2) // _PAGE
"""Tables of level 2 that there is room for."""
_HIGH_DEVICES: Final = 256 * _GIB
"""From here on QEMU's `virt` has devices again."""

_VALID, _TABLE = 1, 3
_ATTRIBUTES: Final = (
    0xF << 2  # MemAttr: normal, write-back; what stage 1 says counts where it is stricter
    | 3 << 6  # S2AP: read and write
    | 3 << 8  # SH: inner shareable
    | 1 << 10  # AF
)

_READABLE: Final = _ATTRIBUTES & ~(3 << 6) | 1 << 6 | 1 << 54 | 3
"""A page: S2AP read only, XN."""

VTCR: Final = (
    64 - ADDRESS_BITS  # T0SZ
    | 1 << 6  # SL0: begins at level 1
    | 1 << 8  # IRGN0, ORGN0: write-back
    | 1 << 10
    | 3 << 12  # SH0: inner shareable
    | 2 << 16  # PS: 40 bits
    | 1 << 31  # RES1
)


def root(window_base: int) -> int:
    """Physical address of the tables, for a frame window at `window_base`: VTTBR_EL2."""
    return window_base + layout.EL2_OFFSET + _ROOT


def pages(window_base: int) -> int:
    """Physical address of the table for the frame window's own block."""
    return window_base + layout.EL2_OFFSET + _LEVEL_3


def page_table(window_base: int) -> bytes:
    """That table, as it lies at `pages`."""
    entries = [0] * _ENTRIES
    for offset in range(layout.PV_TIME_OFFSET, layout.PV_TIME_OFFSET + layout.PV_TIME_SIZE, _PAGE):
        entries[offset // _PAGE] = window_base + offset | _READABLE
    return struct.pack(f"<{_ENTRIES}Q", *entries)


def tables(ram_base: int, window_base: int) -> bytes:
    """The tables as they lie at `root`. The guest's RAM is from `ram_base`, a multiple of 1 GiB, to `window_base`."""
    level1 = [0] * (2 * _ENTRIES)
    level2: list[list[int]] = []

    def describe(start: int, end: int) -> None:
        """Map `start` to `end`, which lie in one GiB, by blocks of 2 MiB."""
        entries = [0] * _ENTRIES
        for address in range(start, end, BLOCK):
            entries[address % _GIB // BLOCK] = address | _ATTRIBUTES | _VALID
        at = window_base + layout.EL2_OFFSET + _LEVEL_2 + len(level2) * _PAGE
        level1[start // _GIB] = at | _TABLE
        level2.append(entries)

    describe(0, _GIB)
    last = window_base // _GIB
    for number in range(ram_base // _GIB, last + 1):
        start, end = number * _GIB, min((number + 1) * _GIB, window_base)
        if number == last or len(level2) < TABLES - 1:
            describe(start, end)
            if number == last:
                level2[-1][window_base % _GIB // BLOCK] = pages(window_base) | _TABLE
        else:
            level1[number] = start | _ATTRIBUTES | _VALID
    for number in range(_HIGH_DEVICES // _GIB, len(level1)):
        level1[number] = number * _GIB | _ATTRIBUTES | _VALID
    words = [*level1, *(entry for entries in level2 for entry in entries)]
    return struct.pack(f"<{len(words)}Q", *words)
