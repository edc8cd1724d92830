"""Stage 2 as a CPU walks it: all that is the guest's is where it was, and the hidden RAM is nowhere, but for records
that the guest may read.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.config import MAX_RAM, MIN_RAM, RAM_BASE
from qemu_sdei.hypervisor import stage2
from qemu_sdei.monitor import layout

GIB = 1 << 30
RECORDS = range(layout.PV_TIME_OFFSET, layout.PV_TIME_OFFSET + layout.PV_TIME_SIZE)
SIZES = [64 << 20, GIB, GIB + 8192, 2 * GIB, 2 * GIB + (2 << 20), 11 * GIB, 12 * GIB, 16 * GIB + 8192, 255 * GIB]


class Walker:
    """Reads tables as the architecture has it (Arm ARM D8.2)."""

    def __init__(self, ram_size: int) -> None:
        self.window = layout.window_base(RAM_BASE, ram_size)
        self.root = stage2.root(self.window)
        self.data = stage2.tables(RAM_BASE, self.window)
        self.pages = stage2.page_table(self.window)

    def _entry(self, table: int, index: int) -> int:
        return int(struct.unpack_from("<Q", self.data, table - self.root + 8 * index)[0])

    def walk(self, address: int) -> int | None:
        """Where an address leads to; None: to a fault."""
        assert address < 1 << stage2.ADDRESS_BITS
        table = self.root
        for shift, entries in ((30, 1024), (21, 512)):
            entry = self._entry(table, address >> shift & entries - 1)
            table = entry & 0xFF_FFFF_F000
            if not entry & 1:
                return None
            if not entry & 2:
                size = 1 << shift
                assert entry >> 10 & 1, "the access flag"
                assert entry >> 6 & 3 == 3, "read and write"
                return table & -size | address & size - 1
        assert table == stage2.pages(self.window), f"{address:#x}: the walk goes on below level 2"
        entry = int(struct.unpack_from("<Q", self.pages, 8 * (address >> 12 & 511))[0])
        if not entry & 1:
            return None
        assert entry & 2
        assert entry >> 10 & 1, "the access flag"
        assert entry >> 6 & 3 == 1, "read only"
        assert entry >> 54 & 1, "no instructions"
        return entry & 0xFF_FFFF_F000 | address & 0xFFF


@pytest.mark.parametrize("size", SIZES)
def test_what_is_the_guests_is_where_it_was(size: int) -> None:
    walker = Walker(size)
    inside = [0x0800_0000, 0x0900_0000, 0x3EFF_0000, 0x40_1000_0000, 0x80_0000_0000, (1 << 40) - 1]
    ram = [RAM_BASE, walker.window - 1, (RAM_BASE + walker.window) // 2, walker.window - (2 << 20)]
    for address in (*inside, *ram):
        assert walker.walk(address) == address, hex(address)


@pytest.mark.parametrize("size", SIZES)
def test_the_hidden_ram_is_not_there(size: int) -> None:
    walker = Walker(size)
    hidden = range(walker.window, RAM_BASE + size, 4096)
    assert len(hidden) >= 512
    for address in hidden:
        shown = address - walker.window in RECORDS
        assert walker.walk(address) == (address if shown else None), hex(address)
    assert walker.walk(RAM_BASE + size - 1) is None


@pytest.mark.parametrize("size", SIZES)
def test_the_tables_lie_in_the_hidden_ram_and_in_their_room(size: int) -> None:
    walker = Walker(size)
    assert walker.root % 0x2000 == 0
    start = walker.window + layout.EL2_OFFSET
    assert start + 0x800 <= stage2.pages(walker.window)
    assert stage2.pages(walker.window) + len(walker.pages) <= walker.root
    assert walker.root + len(walker.data) <= start + layout.EL2_SIZE
    assert start + layout.EL2_SIZE <= RAM_BASE + size


@given(
    st.integers(MIN_RAM // 4096, MAX_RAM // 4096).map(lambda pages: pages * 4096),
    st.integers(0, (1 << stage2.ADDRESS_BITS) - 1),
)
def test_each_address_leads_to_itself_or_nowhere(size: int, address: int) -> None:
    walker = Walker(size)
    found = walker.walk(address)
    guests = address < GIB or RAM_BASE <= address < walker.window or address >= 256 * GIB
    guests = guests or address - walker.window in RECORDS
    assert found == (address if guests else None)
