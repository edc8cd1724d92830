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

    def __init__(self, ram_size: int, flash: int = 0) -> None:
        """`flash`: bytes of a firmware of the guest's own."""
        self.window = layout.window_base(RAM_BASE, ram_size)
        self.end = self.window - flash
        self.root = stage2.root(self.window)
        self.data = stage2.tables(RAM_BASE, self.window, stage2.Flash(self.end, flash) if flash else None)
        self.pages = stage2.page_table(self.window)
        self.writable = self.executable = True
        """Whether the place of the last walk may be written, and fetched from."""

    def _entry(self, table: int, index: int) -> int:
        if table == stage2.pages(self.window):
            return int(struct.unpack_from("<Q", self.pages, 8 * index)[0])
        return int(struct.unpack_from("<Q", self.data, table - self.root + 8 * index)[0])

    def walk(self, address: int) -> int | None:
        """Where an address leads to; None: to a fault."""
        assert address < 1 << stage2.ADDRESS_BITS
        table = self.root
        for shift, entries in ((30, 1024), (21, 512), (12, 512)):
            entry = self._entry(table, address >> shift & entries - 1)
            table = entry & 0xFF_FFFF_F000
            if not entry & 1:
                return None
            if not entry & 2 or shift == 12:
                size = 1 << shift
                assert shift > 12 or entry & 2, "a page"
                assert entry >> 10 & 1, "the access flag"
                assert entry >> 6 & 1, "read"
                self.writable, self.executable = bool(entry >> 7 & 1), not entry >> 54 & 1
                return table & -size | address & size - 1
        raise AssertionError(f"{address:#x}: the walk goes on below level 3")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_the_guests_is_where_it_was(size: int) -> None:
    walker = Walker(size)
    inside = [0x0800_0000, 0x0900_0000, 0x3EFF_0000, 0x40_1000_0000, 0x80_0000_0000, (1 << 40) - 1]
    ram = [RAM_BASE, walker.window - 1, (RAM_BASE + walker.window) // 2, walker.window - (2 << 20)]
    for address in (*inside, *ram):
        assert walker.walk(address) == address, hex(address)
        assert walker.writable


@pytest.mark.parametrize("size", SIZES)
def test_the_hidden_ram_is_not_there(size: int) -> None:
    walker = Walker(size)
    hidden = range(walker.window, RAM_BASE + size, 4096)
    assert len(hidden) >= 512
    for address in hidden:
        shown = address - walker.window in RECORDS
        assert walker.walk(address) == (address if shown else None), hex(address)
        if shown:
            assert not walker.writable
            assert not walker.executable
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


FIRMWARE = 6 << 20
FW_CFG = 0x0902_0000


@pytest.mark.parametrize("size", [128 << 20, GIB, 12 * GIB + 8192, 255 * GIB])
def test_a_firmware_of_the_guests_own_is_at_0_and_hidden_where_it_lies(size: int) -> None:
    walker = Walker(size, FIRMWARE)
    for offset in (0, 0x1000, FIRMWARE - 1):
        assert walker.walk(offset) == walker.end + offset
        assert not walker.writable
        assert walker.walk(walker.end + offset) is None
    for address in (FIRMWARE, (64 << 20) - 1, walker.window, RAM_BASE + size - 1):
        assert walker.walk(address) is None, hex(address)
    for address in (64 << 20, 0x0800_0000, FW_CFG - 1, FW_CFG + 0x1000, RAM_BASE, walker.end - 1, 0x40_1000_0000):
        assert walker.walk(address) == address, hex(address)
        assert walker.writable
    for address in (FW_CFG, FW_CFG + 16, FW_CFG + 0xFFF):
        assert walker.walk(address) is None, "fw_cfg is answered by the backend"
    for offset in RECORDS:
        assert walker.walk(walker.window + offset) == walker.window + offset, "records of stolen time"
    state = walker.window + layout.EL2_OFFSET + stage2.DEVICE_STATE
    assert walker.root + len(walker.data) <= state <= walker.window + layout.EL2_OFFSET + layout.EL2_SIZE - 0x1000


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
