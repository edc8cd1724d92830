"""Stage 2 of a guest: what it takes for physical addresses are those of the machine, but the hidden RAM is not there.

A guest with a firmware of its own (UEFI) finds that at address 0, where the machine has the EL3 monitor, and does not
find QEMU's fw_cfg: its accesses there come to EL2, and the backend answers them.

So no CPU of the guest's reaches the frame window, the monitor's stacks, the vectors of EL2 and these tables themselves:
an access comes to EL2 as an abort. What a device of the guest's reads and writes goes past it, as there is no SMMU.
Only the records of stolen time are there, to be read.

40 bits of address, 4 KiB granule, two tables of level 1 (Arm ARM D8.2). RAM and the devices below it are mapped by
blocks of 2 MiB, as far as there is room for tables, else by 1 GiB: under TCG either costs the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
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
"""The one table of level 3 that is not in the row: the block of the hidden RAM with the records of stolen time."""
DEVICE_STATE_SIZE: Final = _PAGE
DEVICE_STATE: Final = layout.EL2_SIZE - DEVICE_STATE_SIZE
"""Offset in the EL2 area of a page behind the tables, for what the backend keeps of the device that it is itself."""
TABLES: Final = (DEVICE_STATE - _LEVEL_2) // _PAGE
"""Tables of level 2 and 3 that there is room for."""
FLASH_SIZE: Final = 64 << 20
"""Bytes of the bank of flash at address 0: more than the firmware there the guest does not find."""
FW_CFG: Final = 0x0902_0000
"""Where QEMU's `virt` has its fw_cfg: a page of its own."""
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
_READ_ONLY: Final = _ATTRIBUTES & ~(2 << 6)

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


@dataclass(frozen=True, slots=True)
class Flash:
    """The firmware that a guest finds at address 0: a copy in the hidden RAM, which it can read only."""

    address: int
    """Physical, a multiple of `BLOCK`: all RAM from here on is hidden."""
    size: int
    """Bytes, a multiple of `BLOCK`; at most `FLASH_SIZE`."""


def tables(ram_base: int, window_base: int, flash: Flash | None = None) -> bytes:
    """The tables as they lie at `root`.

    The guest's RAM is from `ram_base`, a multiple of 1 GiB, to `window_base`, or to where `flash` is.
    """
    ram_end = window_base if flash is None else flash.address
    level1 = [0] * (2 * _ENTRIES)
    lower: list[list[int]] = []

    def add(entries: list[int]) -> int:
        """Have another table. Returns the entry that leads to it."""
        lower.append(entries)
        return window_base + layout.EL2_OFFSET + _LEVEL_2 + (len(lower) - 1) * _PAGE | _TABLE

    def described(start: int, end: int) -> list[int]:
        """A table that maps `start` to `end`, which lie in one GiB, by blocks of 2 MiB."""
        entries = [0] * _ENTRIES
        for address in range(start, end, BLOCK):
            entries[address % _GIB // BLOCK] = address | _ATTRIBUTES | _VALID
        return entries

    devices = described(0, _GIB)
    if flash is not None:
        for at in range(0, FLASH_SIZE, BLOCK):
            devices[at // BLOCK] = flash.address + at | _READ_ONLY | _VALID if at < flash.size else 0
        one_by_one = [FW_CFG // BLOCK * BLOCK + n * _PAGE | _ATTRIBUTES | _TABLE for n in range(_ENTRIES)]
        one_by_one[FW_CFG % BLOCK // _PAGE] = 0
        devices[FW_CFG // BLOCK] = add(one_by_one)
    level1[0] = add(devices)
    last, own = (ram_end - 1) // _GIB, window_base // _GIB
    for number in range(ram_base // _GIB, own + 1):
        start, end = number * _GIB, min((number + 1) * _GIB, ram_end)
        if number >= last or len(lower) < TABLES - 2:
            entries = described(start, end)
            if number == own:
                entries[window_base % _GIB // BLOCK] = pages(window_base) | _TABLE
            level1[number] = add(entries)
        else:
            level1[number] = start | _ATTRIBUTES | _VALID
    for number in range(_HIGH_DEVICES // _GIB, len(level1)):
        level1[number] = number * _GIB | _ATTRIBUTES | _VALID
    words = [*level1, *(entry for entries in lower for entry in entries)]
    return struct.pack(f"<{len(words)}Q", *words)
