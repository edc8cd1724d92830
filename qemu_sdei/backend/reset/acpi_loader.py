"""The loader of an ACPI boot, which needs QEMU's tables: they are read from its fw_cfg.

In steps, each one an exchange with the monitor: those of `MachineFiles`, before the first of which memory is cleared
(not at the first boot), and then one in which QEMU is told the addresses that the script says it wants to know, if
there are any.
"""

from __future__ import annotations

from qemu_sdei.backend.reset.fw_cfg_dma import Buffer, Transfer, find, places
from qemu_sdei.backend.reset.loader import Loader
from qemu_sdei.backend.reset.machine_files import READ_MORE, MachineFiles
from qemu_sdei.boot import acpi
from qemu_sdei.boot.area import AcpiArea, Announced
from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.boot.user_tables import unpacked, unpacked_errors
from qemu_sdei.errors import GuestError
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.monitor.window import Window

_TELL = READ_MORE + 1


class AcpiLoader(Loader):
    """Loads a Linux kernel, with QEMU's tables and ours."""

    def __init__(self, config: BootConfig, window: Window, announced: Announced) -> None:
        """Raises UsageError: what the configuration names cannot be booted, there are too many error sources, or a
        table of the user's cannot be.
        """
        super().__init__(config, window)
        self._added = acpi.Added(unpacked(config.acpi_tables), unpacked_errors(config.boot_errors))
        self._announced = announced
        AcpiArea.of(config).sources(announced.sources)
        self._machine = MachineFiles(self._fw_cfg)

    def _first(self, again: bool) -> list[Transfer]:
        return [*super()._first(again), self._machine.first()]

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """See `Loader`."""
        step = self._fw_cfg.step_of(frame)
        if not self._machine.is_step(step):
            return []
        return self._machine.after(step) or self._fw_cfg.operations(_TELL, self._tells())

    def load(self, epoch: int) -> Entry:
        """See `Loader`."""
        files = self._machine.files()
        return acpi.load(self._window.ram, self._config, files, self._announced, self._added, epoch)

    def _tells(self) -> list[Transfer]:
        files = self._machine.files()
        pointers = acpi.link(self._config, files, self._announced, self._added.tables).pointers
        found = find(self._machine.directory(), [pointer.file for pointer in pointers])
        free = self._machine.free()
        transfers = []
        for pointer in pointers:
            selector, size = found[pointer.file]
            if pointer.offset + len(pointer.data) > size:
                raise GuestError(f"QEMU's fw_cfg: the script wants to write behind the end of {pointer.file}")
            place = places({pointer.file: len(pointer.data)}, free)[pointer.file]
            self._fw_cfg.put(place, pointer.data)
            transfers += self._fw_cfg.write(selector, pointer.offset, place)
            free = Buffer(free.offset + 16, free.size - 16)
        return transfers
