"""A boot by UEFI without QEMU: what lies where, what the guest reads by fw_cfg, whichever backend answers."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.acpi import fdt
from qemu_sdei.acpi.linker import SCRIPT_FILE, TABLES_FILE
from qemu_sdei.backend.loop.device_frames import DeviceFrames
from qemu_sdei.boot.area import AcpiArea
from qemu_sdei.errors import UsageError
from qemu_sdei.hypervisor.entries import lift
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Op, Word
from qemu_sdei.uefi import items
from qemu_sdei.uefi.fw_cfg import DATA, DMA, SELECTOR, GuestRam
from tests.backend.fw_cfg_device import RAM_BASE, RAM_SIZE, BootingMachine
from tests.backend.simulated import EL1H, SimulatedGuest, records, serve
from tests.backend.simulated_hypervisor import HypervisorGuest
from tests.hypervisor.test_accesses import syndrome
from tests.uefi.test_files import firmware

MIB = 1 << 20
OURS = 0x25
ITEM = b"ITEM of ours"


class Machine(BootingMachine):
    """One that boots by UEFI."""

    def __init__(self, directory: Path, **words: Any) -> None:
        super().__init__(directory)
        (directory / "CODE.fd").write_bytes(firmware())
        self.config = replace(self.config, uefi=str(directory / "CODE.fd"), conduit="hvc", hidden_size=4 * MIB, **words)

    def items(self) -> dict[int, bytes]:
        """As a backend has them that has just been started."""
        found: dict[int, bytes] = self.loader().items()  # type: ignore[attr-defined]
        return found

    def selector(self, name: str) -> int:
        return 0x20 + sorted(self.device.files).index(name)


def names(listed: bytes) -> dict[str, int]:
    """The list of files: name -> size."""
    (count,) = struct.unpack_from(">I", listed)
    found = (struct.unpack_from(">IHxx56s", listed, 4 + 64 * n) for n in range(count))
    return {name.rstrip(b"\0").decode(): size for size, _, name in found}


def test_everything_is_where_it_is_to_be(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.boot()
    assert machine.entry == (0, RAM_BASE, 0)
    assert machine.at(RAM_BASE + RAM_SIZE - 4 * MIB, 0x2000) == firmware()
    root = fdt.parse(machine.window.ram).root
    memory = next(node for node in root.children if node.name.startswith("memory"))
    area = AcpiArea.of(machine.config)
    assert memory.properties["reg"] == struct.pack(">QQ", RAM_BASE, area.base - RAM_BASE)
    assert root.ensure("psci").text("method") == "hvc"
    (source,) = area.sources(machine.loader()._announced.sources)  # type: ignore[attr-defined]
    assert machine.at(source.address_register, 16) == struct.pack("<QQ", source.block, 1)


@pytest.mark.parametrize("again", [False, True])
def test_each_backend_has_the_same_items(tmp_path: Path, again: bool) -> None:
    machine = Machine(tmp_path)
    machine.boot(again=again)
    found = machine.items()
    assert found[items.KERNEL] == (tmp_path / "Image").read_bytes()
    assert found[items.COMMAND_LINE] == b"quiet\0"
    sizes = names(found[items.DIRECTORY])
    for name in (TABLES_FILE, SCRIPT_FILE):
        assert len(found[machine.selector(name)]) == sizes[name] > len(machine.device.files[name])
    assert b"HEST" in found[machine.selector(TABLES_FILE)]
    machine.boot(again=True)  # each exchange with a backend of its own
    assert machine.items() == found


def test_by_device_tree_there_are_no_tables(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tables="dt")
    machine.device.files["bootorder"] = b"/pci/disk\0"
    assert machine.boot() == 1
    found = machine.items()
    assert names(found[items.DIRECTORY]) == {"bootorder": 10}
    assert machine.selector(TABLES_FILE) not in found


def test_without_a_kernel_qemus_items_say_that_there_is_none(tmp_path: Path) -> None:
    machine = Machine(tmp_path, kind="uefi", kernel="")
    machine.boot()
    assert not {items.KERNEL_SIZE, items.KERNEL, items.COMMAND_LINE_SIZE} & machine.items().keys()


def test_an_image_that_has_grown_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "CODE2.fd").write_bytes(firmware(size=3 * MIB))
    machine.config = replace(machine.config, uefi=str(tmp_path / "CODE2.fd"))
    with pytest.raises(UsageError, match="larger than when the guest was started"):
        machine.loader()


@pytest.mark.parametrize("hidden", [4 * MIB - 0x1000, 4 * MIB + 0x1000, 2 * MIB, 64 * MIB + 1])
def test_a_place_that_a_stranger_has_made_up_is_refused(tmp_path: Path, hidden: int) -> None:
    machine = Machine(tmp_path)
    machine.config = replace(machine.config, hidden_size=hidden)
    with pytest.raises(UsageError):
        machine.loader()


# ---- the device


class Guest(HypervisorGuest):
    """A guest that reads fw_cfg."""

    def __init__(self, directory: Path) -> None:
        super().__init__(1, directory)
        self.backend = self.begin()
        self.reset(0)
        serve(self.backend)
        self.take(0)
        self.frame = self.window.frames[0]
        self.frame[Word.PSTATE] = EL1H

    def begin(self) -> Any:
        """Another backend."""
        server = self.server()
        ram = GuestRam(self.window.ram, self.window.ram_base, 1 << 20)
        self.device = DeviceFrames(server.guest, server.log, lambda: {OURS: ITEM}, ram)
        server.emulate(self.device)
        return server

    def abort(self, address: int, size: int, register: int, store: int | None = None) -> None:
        """The guest executes a load or a store."""
        frame = self.frame
        if store is not None:
            frame[Word.X0 + register] = store
        frame[Word.FAR_EL2], frame[Word.HPFAR_EL2] = address, address >> 12 << 4
        self.pc = frame[Word.PC]
        self.enter_el2(0, syndrome(size, register, write=store is not None, wide=True), self.pc)
        SimulatedGuest.post(self, 0, Kind.SMC)

    def access(self, address: int, size: int, register: int, store: int | None = None) -> int:
        """The same, answered at once. Returns what is in the register then."""
        self.abort(address, size, register, store)
        serve(self.backend)
        assert self.take(0)[:2] == [AnswerFlag.ALL, self.pc + 4]
        return int(self.frame[Word.X0 + register])


def test_a_guest_reads_what_is_ours(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    guest.access(SELECTOR, 2, 27, OURS << 8)
    assert guest.access(DATA, 4, 29).to_bytes(4, "little") == b"ITEM"
    guest.backend = guest.begin()  # killed, and started again
    guest.backend.recover()
    assert guest.access(DATA, 8, 3).to_bytes(8, "little") == b" of ours"


def test_the_rest_is_read_from_qemus_device(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    frame = guest.frame
    guest.abort(DMA, 8, 20)
    serve(guest.backend)
    flags = guest.take(0)[0]
    assert flags & AnswerFlag.REPOST
    assert frame[Word.OPS] & 0xFF == Op.READ_PHYS
    assert frame[Word.OPS + 1] == DMA
    frame[Word.OPS + 2] = 0x4746_4320_554D_4551
    guest.post(0, Kind.OPS)
    serve(guest.backend)
    assert guest.take(0)[:2] == [AnswerFlag.ALL, guest.pc + 4]
    assert frame[Word.X0 + 20] == 0x4746_4320_554D_4551
    assert not [each for each in records(guest.backend) if each["type"] == "reject"]


def test_who_gets_a_frame_once_more_does_the_same(tmp_path: Path) -> None:
    """A backend dies between any two stores: what it leaves is taken up by one that begins again."""
    guest = Guest(tmp_path)
    guest.access(SELECTOR, 2, 0, OURS << 8)
    guest.access(DATA, 4, 1)
    at = 0x100
    struct.pack_into(">IIQ", guest.window.ram, at, 2, 3, guest.window.ram_base + 0x200)
    address = guest.window.ram_base + at
    guest.abort(DMA, 8, 2, int.from_bytes(address.to_bytes(8, "big"), "little"))
    s = guest.window.seq[0]
    lift(guest.frame)
    first = None
    for _ in range(3):
        assert guest.begin() is not None
        assert guest.device.take(0, s, guest.frame)
        state = (guest.frame.tolist(), bytes(guest.window.ram[at : at + 16]), bytes(guest.window.ram[0x200:0x210]))
        assert first in (None, state)
        first = state
    assert bytes(guest.window.ram[0x200:0x204]) == b" of\0"
    assert guest.window.ram[at + 3] == 0, "done"


def test_dma_waits_for_ram_that_is_arriving(tmp_path: Path) -> None:
    """After a migration by postcopy: QEMU could not put in place any more what it fetches there."""
    guest = Guest(tmp_path)
    server = guest.backend
    guest.access(SELECTOR, 2, 0, OURS << 8)
    struct.pack_into(">IIQ", guest.window.ram, 0x100, 2, 4, guest.window.ram_base + 0x200)
    server.hooks.arriving = True
    address = (guest.window.ram_base + 0x100).to_bytes(8, "big")
    guest.abort(DMA, 8, 2, int.from_bytes(address, "little"))
    server.answer_as_wanted(0, guest.window.seq[0])
    assert server.paused
    assert not any(guest.window.ram[0x200:0x204])
    server.hooks.arriving = False
    server.resume()
    serve(server)
    assert guest.take(0)[:2] == [AnswerFlag.ALL, guest.pc + 4]
    assert bytes(guest.window.ram[0x200:0x204]) == ITEM[:4]


def test_a_store_to_the_flash_is_as_if_it_was_not(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    guest.access(0x1CB20, 8, 1, 0xDEAD)
    assert not [each for each in records(guest.backend) if each["type"] == "reject"]


def test_an_access_to_what_is_nowhere_is_an_abort_still(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    guest.abort(0x7FE1_0128, 8, 1)
    serve(guest.backend)
    assert guest.take(0)[0] & AnswerFlag.REPOST
    assert guest.frame[Word.OPS] & 0xFF == Op.READ_SYSREG
