"""The loader of an ACPI boot, which needs QEMU's tables: they are read from its fw_cfg.

In steps, each one an exchange with the monitor:

0. clear (not at the first boot), and read the list of files;
1. select the tables, whereupon QEMU builds them anew, as they may have changed since the last reset; read the list
   again, for their sizes; read them, with their loader's script;
2. read the other files that the script places, if there are any;
3. tell QEMU the addresses that the script says it wants to know, if there are any.
"""

from __future__ import annotations

from typing import Final

from acpi.linker import SCRIPT_FILE, TABLES_FILE
from qemu_sdei.backend.reset.fw_cfg_dma import FILES as ROOM
from qemu_sdei.backend.reset.fw_cfg_dma import FIRST_DIRECTORY, SECOND_DIRECTORY, Buffer, Transfer, find, places
from qemu_sdei.backend.reset.loader import START, Loader
from qemu_sdei.boot import acpi
from qemu_sdei.boot.acpi import FILES
from qemu_sdei.boot.area import AcpiArea, Announced
from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.boot.user_tables import unpacked, unpacked_errors
from qemu_sdei.errors import GuestError
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.monitor.window import Window

_READ, _READ_MORE, _TELL = START + 1, START + 2, START + 3
_SIZES: Final = {TABLES_FILE: 0x6_0000, SCRIPT_FILE: 0x1_0000}
"""Bytes that are read of a file whose size is not known yet: QEMU 7.2 has 0x20000 and 0xc00, with 512 CPUs too."""
_SMALL: Final = 0x1000


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
        self._sizes = {name: _SIZES.get(name, _SMALL) for name in FILES}
        self._places = places(self._sizes, ROOM)

    def _first(self, again: bool) -> list[Transfer]:
        return [*super()._first(again), self._fw_cfg.read_directory(FIRST_DIRECTORY)]

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """See `Loader`."""
        step = self._fw_cfg.step_of(frame)
        if step == START:
            return self._fw_cfg.operations(_READ, self._reads())
        if step == _READ and (more := self._more()):
            found = find(self._directory(), more)
            reads = [self._fw_cfg.read(found[name][0], place) for name, place in more.items()]
            return self._fw_cfg.operations(_READ_MORE, reads)
        if step in (_READ, _READ_MORE):
            return self._fw_cfg.operations(_TELL, self._tells())
        return []

    def load(self, epoch: int) -> Entry:
        """See `Loader`."""
        return acpi.load(self._window.ram, self._config, self._files(), self._announced, self._added, epoch)

    def _reads(self) -> list[Transfer]:
        found = find(self._fw_cfg.directory(FIRST_DIRECTORY), FILES)
        return [
            self._fw_cfg.select(found[TABLES_FILE][0]),
            self._fw_cfg.read_directory(SECOND_DIRECTORY),
            *(self._fw_cfg.read(found[name][0], place) for name, place in self._places.items()),
        ]

    def _directory(self) -> dict[str, tuple[int, int]]:
        return self._fw_cfg.directory(SECOND_DIRECTORY)

    def _contents(self, name: str) -> bytes:
        """One of `FILES`, as read."""
        size = find(self._directory(), [name])[name][1]
        if size > self._sizes[name]:
            raise GuestError(f"QEMU's fw_cfg: {name} has {size} bytes; {self._sizes[name]} were expected at most")
        return self._fw_cfg.contents(self._places[name], size)

    def _more(self) -> dict[str, Buffer]:
        """Where the files are read to that only the script names."""
        names = acpi.wanted_files(self._contents(SCRIPT_FILE))
        sizes = {name: size for name, (_, size) in find(self._directory(), names).items()}
        last = self._places[FILES[-1]].end
        return places(sizes, Buffer(last, ROOM.end - last))

    def _files(self) -> dict[str, bytes]:
        more = {name: self._fw_cfg.contents(place) for name, place in self._more().items()}
        return {name: self._contents(name) for name in FILES} | more

    def _tells(self) -> list[Transfer]:
        pointers = acpi.link(self._config, self._files(), self._announced, self._added.tables).pointers
        found = find(self._directory(), [pointer.file for pointer in pointers])
        last = max(place.end for place in (*self._places.values(), *self._more().values()))
        transfers = []
        for pointer in pointers:
            selector, size = found[pointer.file]
            if pointer.offset + len(pointer.data) > size:
                raise GuestError(f"QEMU's fw_cfg: the script wants to write behind the end of {pointer.file}")
            place = places({pointer.file: len(pointer.data)}, Buffer(last, ROOM.end - last))[pointer.file]
            self._fw_cfg.put(place, pointer.data)
            transfers += self._fw_cfg.write(selector, pointer.offset, place)
            last += 16
        return transfers
