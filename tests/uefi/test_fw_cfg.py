"""fw_cfg as UEFI and Linux use it: items of ours are answered here, all else goes to QEMU, and nothing leaves the
guest's RAM.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.hypervisor.accesses import Access
from qemu_sdei.uefi.fw_cfg import DATA, DMA, SELECTOR, FwCfgDevice, GuestRam, Reply, State

RAM_BASE, USABLE = 0x4000_0000, 0x2000
HIDDEN = RAM_BASE + USABLE
OURS, THEIRS = 0x25, 0x19
ITEM = bytes(range(1, 41))


def swapped(value: int, size: int) -> int:
    return int.from_bytes(value.to_bytes(size, "big"), "little")


class Cpu:
    """A CPU that uses the device, and RAM of which the last page is hidden."""

    def __init__(self) -> None:
        self.ram = memoryview(bytearray(USABLE + 0x1000))
        self.device = FwCfgDevice({OURS: ITEM}, GuestRam(self.ram, RAM_BASE, USABLE))
        self.state = State()
        self.forwarded: list[tuple[int, int, int]] = []

    def access(self, address: int, size: int, *, store: int | None = None) -> Reply:
        access = Access(address, size, store is not None, 0, False, size == 8)
        reply = self.device.access(self.state, access, store or 0)
        assert self.device.access(self.state, access, store or 0) == reply, "asked twice, it is the same"
        self.device.complete(reply)
        self.state = reply.state
        if reply.forward is not None:
            self.forwarded.append(reply.forward)
        return reply

    def select(self, item: int) -> Reply:
        return self.access(SELECTOR, 2, store=swapped(item, 2))

    def describe(self, control: int, length: int, target: int, at: int = RAM_BASE) -> None:
        struct.pack_into(">IIQ", self.ram, at - RAM_BASE, control, length, target)

    def go(self, at: int = RAM_BASE) -> Reply:
        return self.access(DMA, 8, store=swapped(at, 8))

    def control(self) -> int:
        return int.from_bytes(self.ram[:4], "big")


def test_the_data_register_gives_bytes_in_their_order() -> None:
    cpu = Cpu()
    assert cpu.select(OURS).forward is None
    found = b"".join(cpu.access(DATA, size).value.to_bytes(size, "little") for size in (1, 2, 4, 8, 8, 8, 8, 4))
    assert found == ITEM.ljust(len(found), b"\0"), "behind the end there are zeroes"
    cpu.select(OURS)
    assert cpu.access(DATA, 1).value == ITEM[0], "to select it once more begins again"
    assert cpu.access(DATA, 1, store=7).forward is None
    assert cpu.forwarded == []


def test_what_is_not_ours_goes_to_qemu_as_it_is() -> None:
    cpu = Cpu()
    cpu.select(THEIRS)
    cpu.access(DATA, 4)
    cpu.access(DMA, 8)
    assert cpu.forwarded == [(SELECTOR, 2, swapped(THEIRS, 2)), (DATA, 4, 0), (DMA, 8, 0)]


@pytest.mark.parametrize("halves", [False, True], ids=["as UEFI", "as Linux"])
def test_dma_reads_an_item_of_ours(halves: bool) -> None:
    cpu = Cpu()
    cpu.describe(OURS << 16 | 8 | 4, 2, 0)
    cpu.go()
    cpu.describe(2, 44, RAM_BASE + 0x100)
    if halves:
        cpu.access(DMA, 4, store=0)
        reply = cpu.access(DMA + 4, 4, store=swapped(RAM_BASE, 4))
    else:
        reply = cpu.go()
    assert bytes(cpu.ram[0x100 : 0x100 + 44]) == ITEM[2:].ljust(44, b"\0")
    assert cpu.control() == 0
    assert reply.descriptor == RAM_BASE
    assert cpu.forwarded == []
    assert cpu.state.offset == 46


def test_dma_of_qemus_items_is_qemus() -> None:
    cpu = Cpu()
    cpu.describe(THEIRS << 16 | 8 | 2, 16, RAM_BASE + 0x100)
    cpu.go()
    assert cpu.forwarded == [(DMA, 8, swapped(RAM_BASE, 8))]
    assert cpu.control() == THEIRS << 16 | 8 | 2, "the descriptor is still to be read by QEMU"


def test_items_of_ours_cannot_be_written() -> None:
    cpu = Cpu()
    cpu.describe(OURS << 16 | 8 | 16, 4, RAM_BASE + 0x100)
    cpu.go()
    assert cpu.control() == 1
    assert cpu.forwarded == []


@pytest.mark.parametrize("item", [OURS, THEIRS])
@pytest.mark.parametrize(
    ("target", "length"), [(HIDDEN, 16), (HIDDEN - 8, 16), (0, 16), ((1 << 64) - 8, 16), (RAM_BASE, 0xFFFF_FFFF)]
)
@pytest.mark.parametrize("what", [2, 16])
def test_dma_reaches_nothing_but_the_guests_ram(item: int, target: int, length: int, what: int) -> None:
    cpu = Cpu()
    cpu.describe(item << 16 | 8 | what, length, target)
    reply = cpu.go()
    assert "which is not the guest's RAM" in reply.refused
    assert cpu.control() == 1, "the driver sees an error"
    assert not any(cpu.ram[USABLE:])
    assert cpu.forwarded == []


@pytest.mark.parametrize("at", [0, HIDDEN, HIDDEN - 8, (1 << 64) - 1])
def test_a_descriptor_elsewhere_is_left_alone(at: int) -> None:
    cpu = Cpu()
    reply = cpu.go(at)
    assert "descriptor" in reply.refused
    assert not any(cpu.ram)
    assert cpu.forwarded == []


@given(
    st.lists(
        st.tuples(
            st.integers(DATA, DATA + 0x20),
            st.sampled_from((1, 2, 4, 8)),
            st.none() | st.integers(0, (1 << 64) - 1) | st.sampled_from((swapped(OURS, 2), swapped(RAM_BASE, 8))),
        ),
        max_size=20,
    ),
    st.binary(min_size=16, max_size=16),
)
def test_whatever_a_guest_does_its_hidden_ram_is_whole(
    steps: list[tuple[int, int, int | None]], descriptor: bytes
) -> None:
    cpu = Cpu()
    cpu.ram[:16] = descriptor
    for address, size, store in steps:
        reply = cpu.access(address, size, store=None if store is None else store & (1 << 8 * size) - 1)
        assert 0 <= reply.value < 1 << 8 * size
        assert all(0 <= word < 1 << 64 for word in reply.state)
        if reply.forward is not None:
            where, width, value = reply.forward
            assert where % width == 0
            assert DATA <= where < DATA + 0x1000
            assert 0 <= value < 1 << 8 * width
    assert not any(cpu.ram[USABLE:])
