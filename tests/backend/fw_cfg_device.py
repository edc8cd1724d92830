"""QEMU's fw_cfg in Python, and the exchanges of a boot: what stands in for QEMU and for the monitor."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from qemu_sdei.acpi.linker import files_of
from qemu_sdei.acpi.tables import Fadt, RawTable, Sdei
from qemu_sdei.backend.firmware.machine_boot import Boot
from qemu_sdei.backend.reset.choice import loader_for
from qemu_sdei.boot.area import Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.monitor.ops import MicroOp, encode
from qemu_sdei.monitor.window import Window
from qemu_sdei.ras.source import Source, numbered
from tests.acpi.trees import qemu_tree
from tests.boot.kernels import MIB, arm64_image

RAM_BASE = 0x4000_0000
RAM_SIZE = 128 * MIB
DMA = 0x0902_0010
GHES, AGDI = 0x324, 0x325


def machine_files() -> dict[str, bytes]:
    """Tables as QEMU gives them: a FADT that knows no PSCI, a DSDT, and something else."""
    dsdt = RawTable.from_bytes(Sdei().to_bytes().replace(b"SDEI", b"DSDT", 1))
    mcfg = RawTable.from_bytes(Sdei().to_bytes().replace(b"SDEI", b"MCFG", 1))
    return files_of([dsdt.to_bytes(), Fadt().to_bytes(), mcfg.to_bytes()])


class FwCfgDevice:
    """The device: files by name, and DMA into RAM."""

    def __init__(self, window: Window, files: dict[str, bytes]) -> None:
        self.window = window
        self.files = files
        self.written: list[tuple[str, int, bytes]] = []
        self.selected: list[str] = []
        self._item = 0
        self._offset = 0

    def _name(self, item: int) -> str:
        names = sorted(self.files)
        return names[item - 0x20] if 0x20 <= item < 0x20 + len(names) else ""

    def _data(self) -> bytes:
        if self._item == 0x19:
            entries = [
                struct.pack(">IHxx56s", len(self.files[name]), 0x20 + n, name.encode())
                for n, name in enumerate(sorted(self.files))
            ]
            return struct.pack(">I", len(entries)) + b"".join(entries)
        return self.files.get(self._name(self._item), b"")

    def transfer(self, descriptor: int) -> None:
        """Carry out the transfer that the descriptor at this physical address describes."""
        ram, base = self.window.ram, self.window.ram_base
        at = descriptor - base
        control, length, address = struct.unpack_from(">IIQ", ram, at)
        if control & 8:
            self._item, self._offset = control >> 16, 0
            self.selected.append(self._name(self._item))
        if control & 2:
            data = self._data()[self._offset :][:length].ljust(length, b"\0")
            ram[address - base :][:length] = data
        elif control & 16:
            self.written.append((self._name(self._item), self._offset, bytes(ram[address - base :][:length])))
        self._offset += length
        struct.pack_into(">I", ram, at, 0)


class BootingMachine:
    """RAM, fw_cfg and a frame: a machine whose CPU 0 waits for its boot."""

    def __init__(self, directory: Path, files: dict[str, bytes] | None = None) -> None:
        (directory / "Image").write_bytes(arm64_image())
        self.config = BootConfig(
            "linux", str(directory / "Image"), append="quiet", tables="acpi", ram_size=RAM_SIZE, nr_cpus=2
        )
        fd = os.memfd_create("test-ram")
        os.ftruncate(fd, RAM_SIZE)
        self.window = Window(fd, RAM_BASE, RAM_SIZE, 2)
        os.close(fd)
        tree = qemu_tree(2)
        self.window.ram[: len(tree)] = tree
        self.device = FwCfgDevice(self.window, machine_files() if files is None else files)
        self.frame = self.window.frames[0]

    def loader(self) -> Boot:
        """A loader as a backend makes it when it starts."""
        return loader_for(self.config, self.window, Announced(numbered([Source(name="ghes", event=GHES)]), AGDI))

    def carry_out(self, ops: list[MicroOp]) -> None:
        """What the monitor does with an answer that says REPOST."""
        encode(self.frame, ops)
        for op in ops:
            assert op.argument == DMA
            self.device.transfer(int.from_bytes(op.value.to_bytes(8, "little"), "big"))
        self.frame[Word.KIND] = Kind.OPS

    def boot(self, loader: Callable[[], Boot] | None = None, again: bool = False, epoch: int = 0) -> int:
        """All exchanges of a boot, each with the loader that `loader` gives. Returns how many there were."""
        epoch = epoch or (2 if again else 1)
        again = epoch > 1
        get = loader or self.loader
        ops, exchanges = get().begin(again), 0
        while ops:
            self.carry_out(ops)
            exchanges += 1
            ops = get().proceed(self.frame)
        self.entry = get().load(epoch)
        return exchanges

    def at(self, address: int, size: int) -> bytes:
        """Bytes of RAM."""
        return bytes(self.window.ram[address - RAM_BASE :][:size])
