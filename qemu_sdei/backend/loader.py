"""What fills guest RAM at a reset: the boot flow, and what QEMU must do before its memory changes behind its back.

TCG keeps what it has translated. It notices when a guest, or QEMU itself, writes over code; it does not notice this
process doing so. After a reset the same kernel lies at the same place, but the kernel that ran before had patched
itself (alternatives, static keys): stale translations of the patched code would run on. So before a second boot QEMU
clears the memory that is going to be loaded.

An ACPI boot needs QEMU's tables as well. They are read from its fw_cfg in steps, each one an exchange with the monitor:

0. clear (not at the first boot), and read the list of files;
1. select the tables, whereupon QEMU builds them anew, as they may have changed since the last reset; read the list
   again, for their sizes; read them, with their loader's script;
2. read the other files that the script places, if there are any;
3. tell QEMU the addresses that the script says it wants to know, if there are any.
"""

from __future__ import annotations

from typing import Final

from acpi.linker import SCRIPT_FILE, TABLES_FILE
from qemu_sdei.backend import fw_cfg
from qemu_sdei.backend.fw_cfg import FIRST_DIRECTORY, SECOND_DIRECTORY, Buffer, FwCfg
from qemu_sdei.boot import acpi, flat, linux
from qemu_sdei.boot.acpi import FILES, Announced
from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.errors import GuestError
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.monitor.window import Window

_START, _READ, _READ_MORE, _TELL = range(4)
_ROOM: Final = {TABLES_FILE: 0x8_0000, SCRIPT_FILE: 0x2_0000}
"""Bytes that are read of a file whose size is not known yet: with 512 CPUs QEMU 7.2 needs 0x20000 and 0x1000."""
_SMALL: Final = 0x1000


class Loader:
    """Loads what a guest boots. Files are read when it is made, while QEMU starts, and kept."""

    def __init__(self, config: BootConfig, window: Window, announced: Announced | None = None) -> None:
        """`announced`: what ACPI tables say. Raises UsageError: what the configuration names cannot be booted."""
        self._config = config
        self._window = window
        self._announced = announced or Announced()
        self._fw_cfg = FwCfg(window)
        self._sizes = {name: _ROOM.get(name, _SMALL) for name in FILES}
        self._places = fw_cfg.places(self._sizes, fw_cfg.FILES)
        (flat.check if config.kind == "flat" else linux.check)(config)

    def begin(self, again: bool) -> list[MicroOp]:
        """What QEMU must do before RAM is filled; nothing: it can be filled now.

        `again`: a guest has run from that RAM before.
        """
        transfers = []
        if again:
            code_range = flat.code_range if self._config.kind == "flat" else linux.code_range
            transfers.append(fw_cfg.clearing(*code_range(self._config)))
        if self._config.tables == "acpi":
            transfers.append(self._fw_cfg.read_directory(FIRST_DIRECTORY))
        return self._fw_cfg.operations(_START, transfers)

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """What comes after the micro-operations that `frame` (of kind OPS) brings back; nothing: RAM can be filled now.

        Raises:
            GuestError: QEMU has no ACPI tables, or they are damaged.
        """
        if self._config.tables != "acpi":
            return []
        step = self._fw_cfg.step_of(frame)
        if step == _START:
            return self._fw_cfg.operations(_READ, self._reads())
        if step == _READ and (more := self._more()):
            found = fw_cfg.find(self._directory(), more)
            reads = [self._fw_cfg.read(found[name][0], place) for name, place in more.items()]
            return self._fw_cfg.operations(_READ_MORE, reads)
        if step in (_READ, _READ_MORE):
            return self._fw_cfg.operations(_TELL, self._tells())
        return []

    def load(self) -> Entry:
        """Fill guest RAM. Returns where CPU 0 starts."""
        if self._config.tables == "acpi":
            return acpi.load(self._window.ram, self._config, self._files(), self._announced)
        load = flat.load if self._config.kind == "flat" else linux.load
        return load(self._window.ram, self._config)

    def _reads(self) -> list[fw_cfg.Transfer]:
        found = fw_cfg.find(self._fw_cfg.directory(FIRST_DIRECTORY), FILES)
        return [
            self._fw_cfg.select(found[TABLES_FILE][0]),
            self._fw_cfg.read_directory(SECOND_DIRECTORY),
            *(self._fw_cfg.read(found[name][0], place) for name, place in self._places.items()),
        ]

    def _directory(self) -> dict[str, tuple[int, int]]:
        return self._fw_cfg.directory(SECOND_DIRECTORY)

    def _contents(self, name: str) -> bytes:
        """One of `FILES`, as read."""
        size = fw_cfg.find(self._directory(), [name])[name][1]
        if size > self._sizes[name]:
            raise GuestError(f"QEMU's fw_cfg: {name} has {size} bytes; {self._sizes[name]} were expected at most")
        return self._fw_cfg.contents(self._places[name], size)

    def _more(self) -> dict[str, Buffer]:
        """Where the files are read to that only the script names."""
        names = acpi.wanted_files(self._contents(SCRIPT_FILE))
        sizes = {name: size for name, (_, size) in fw_cfg.find(self._directory(), names).items()}
        last = self._places[FILES[-1]].end
        return fw_cfg.places(sizes, Buffer(last, fw_cfg.FILES.end - last))

    def _files(self) -> dict[str, bytes]:
        more = {name: self._fw_cfg.contents(place) for name, place in self._more().items()}
        return {name: self._contents(name) for name in FILES} | more

    def _tells(self) -> list[fw_cfg.Transfer]:
        pointers = acpi.link(self._config, self._files(), self._announced).pointers
        found = fw_cfg.find(self._directory(), [pointer.file for pointer in pointers])
        last = max(place.end for place in (*self._places.values(), *self._more().values()))
        transfers = []
        for pointer in pointers:
            selector, size = found[pointer.file]
            if pointer.offset + len(pointer.data) > size:
                raise GuestError(f"QEMU's fw_cfg: the script wants to write behind the end of {pointer.file}")
            place = fw_cfg.places({pointer.file: len(pointer.data)}, Buffer(last, fw_cfg.FILES.end - last))
            self._fw_cfg.put(place[pointer.file], pointer.data)
            transfers += self._fw_cfg.write(selector, pointer.offset, place[pointer.file])
            last += 16
        return transfers
