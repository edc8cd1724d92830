"""fw_cfg as the guest has it: items of ours in front of QEMU's device.

UEFI reads there what QEMU tells it of the machine: ACPI tables, a kernel, the order to boot in. Some of that is ours
(`items.py`): an access that concerns such an item is answered here, and any other goes to QEMU's device as it is.

What an access does is computed from a `State`, and the state after it is given back. All that is written on the way is
what a DMA descriptor wants to have read; that a descriptor is done is written by `complete`. So whoever asks twice
before that gets the same answer twice.

Interface: QEMU's docs/specs/fw_cfg, memory-mapped. Its registers are big-endian; the data register gives bytes in
their order.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from qemu_sdei.hypervisor.accesses import Access
from qemu_sdei.hypervisor.stage2 import FW_CFG

DATA, SELECTOR, DMA = FW_CFG, FW_CFG + 8, FW_CFG + 16
END: Final = FW_CFG + 0x1000
"""Where the page of the registers ends."""
_ERROR, _READ, _SKIP, _SELECT, _WRITE = 1, 2, 4, 8, 16
_DESCRIPTOR: Final = struct.Struct(">IIQ")
"""FWCfgDmaAccess: control, length, address."""
_M32: Final = 0xFFFF_FFFF


class State(NamedTuple):
    """The registers of the device; all 0 after a reset, which selects an item of QEMU's."""

    selector: int = 0
    offset: int = 0
    """Bytes of the item that were read. Of an item of QEMU's, only QEMU knows."""
    high: int = 0
    """Upper half of the address of a DMA descriptor, which is written first."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an access comes to."""

    state: State
    value: int = 0
    """Of a load: what is loaded."""
    forward: tuple[int, int, int] | None = None
    """The access goes to QEMU's device: address, size in bytes, value to store. A load's value is what comes back."""
    descriptor: int = 0
    """Physical address of the DMA descriptor that is done; 0: none was."""
    outcome: int = 0
    """What its control becomes."""
    refused: str = ""
    """Why nothing was done, for the trace."""


class GuestRam:
    """The RAM that a guest's DMA may read and write."""

    def __init__(self, ram: memoryview, ram_base: int, usable: int) -> None:
        """`ram`: all of guest RAM, format "B", from the physical address `ram_base` on; `usable`: bytes of it."""
        self._ram = ram[:usable]
        self._base = ram_base

    def part(self, address: int, size: int) -> memoryview | None:
        """The `size` bytes at a physical address; None: not all of them are the guest's RAM."""
        start = address - self._base
        return self._ram[start : start + size] if 0 <= start <= start + size <= len(self._ram) else None


class FwCfgDevice:
    """The device of one guest."""

    def __init__(self, items: Mapping[int, bytes], ram: GuestRam) -> None:
        """`items`: what is ours, by selector."""
        self._items = items
        self._ram = ram

    def access(self, state: State, access: Access, stored: int) -> Reply:
        """Carry out an access to the page of the registers. `stored`: what a store has put there."""
        address, size = access.address, access.size
        if access.write and address == SELECTOR and size == 2:
            selector = _swapped(stored, 2)
            reply = Reply(State(selector, 0, state.high))
            return reply if selector in self._items else _forwarded(reply, access, stored)
        if access.write and address == DMA and size == 4:
            return Reply(state._replace(high=_swapped(stored, 4)))
        if access.write and address == DMA + 4 and size == 4:
            return self._transfer(state._replace(high=0), state.high << 32 | _swapped(stored, 4))
        if access.write and address == DMA and size == 8:
            return self._transfer(state, _swapped(stored, 8))
        if address == DATA and state.selector in self._items:
            if access.write:
                return Reply(state)  # read-only, as QEMU's are by this register
            data = self._items[state.selector][state.offset : state.offset + size]
            return Reply(
                state._replace(offset=state.offset + size), value=int.from_bytes(data.ljust(size, b"\0"), "little")
            )
        if address % size or address + size > END:
            return Reply(state, refused=f"{size} bytes at {address:#x} of fw_cfg")
        return _forwarded(Reply(state), access, stored)

    def _transfer(self, state: State, address: int) -> Reply:
        """Carry out the DMA descriptor at `address`."""
        descriptor = self._ram.part(address, _DESCRIPTOR.size)
        if descriptor is None:
            return Reply(state, refused=f"a descriptor of fw_cfg at {address:#x}, which is not the guest's RAM")
        control, length, target = _DESCRIPTOR.unpack(descriptor)
        if control & _SELECT:
            state = state._replace(selector=control >> 16, offset=0)
        memory = self._ram.part(target, length) if control & (_READ | _WRITE) else None
        if control & (_READ | _WRITE) and memory is None:
            why = f"DMA of {length} bytes to {target:#x} by fw_cfg, which is not the guest's RAM"
            return Reply(state, descriptor=address, outcome=_ERROR, refused=why)
        if state.selector not in self._items:
            return Reply(state, forward=(DMA, 8, _swapped(address, 8)))
        outcome = 0
        if control & _READ and memory is not None:
            self._read(state, memory)
        elif control & _WRITE:
            outcome = _ERROR
        if control & (_READ | _SKIP):
            state = state._replace(offset=min(state.offset + length, _M32))
        return Reply(state, descriptor=address, outcome=outcome)

    def complete(self, reply: Reply) -> None:
        """Tell the guest that its descriptor is done; as often as one likes."""
        descriptor = self._ram.part(reply.descriptor, _DESCRIPTOR.size) if reply.descriptor else None
        if descriptor is not None:
            descriptor[:4] = struct.pack(">I", reply.outcome)

    def _read(self, state: State, memory: memoryview) -> None:
        item = memoryview(self._items[state.selector])[state.offset : state.offset + len(memory)]
        memory[: len(item)] = item
        if len(item) < len(memory):
            memory[len(item) :] = bytes(len(memory) - len(item))


def _forwarded(reply: Reply, access: Access, stored: int) -> Reply:
    return replace(reply, forward=(access.address, access.size, stored))


def _swapped(value: int, size: int) -> int:
    return int.from_bytes(value.to_bytes(size, "big"), "little")
