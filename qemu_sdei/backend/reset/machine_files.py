"""The files of QEMU's table loader, read from its fw_cfg, in steps, each one an exchange with the monitor:

0. read the list of files;
1. select the tables, whereupon QEMU builds them anew, as they may have changed since the last reset; read the list
   again, for their sizes; read them, with their loader's script;
2. read the other files that the script places, if there are any.
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi.linker import SCRIPT_FILE, TABLES_FILE
from qemu_sdei.backend.reset.fw_cfg_dma import FILES as ROOM
from qemu_sdei.backend.reset.fw_cfg_dma import (
    FIRST_DIRECTORY,
    SECOND_DIRECTORY,
    Buffer,
    FwCfg,
    Transfer,
    find,
    places,
)
from qemu_sdei.backend.reset.loader import START
from qemu_sdei.boot.acpi import FILES, wanted_files
from qemu_sdei.errors import GuestError
from qemu_sdei.monitor.ops import MicroOp

READ, READ_MORE = START + 1, START + 2
SIZES: Final = {TABLES_FILE: 0x6_0000, SCRIPT_FILE: 0x1_0000}
"""Bytes that are read of a file whose size is not known yet: QEMU 7.2 has 0x20000 and 0xc00, with 512 CPUs too."""
SMALL: Final = 0x1000


class MachineFiles:
    """Those of one guest, in its scratch area."""

    def __init__(self, fw_cfg: FwCfg) -> None:
        self._fw_cfg = fw_cfg
        self._sizes = {name: SIZES.get(name, SMALL) for name in FILES}
        self._places = places(self._sizes, ROOM)

    @staticmethod
    def is_step(step: int) -> bool:
        """Whether a step is one of these."""
        return step in (START, READ, READ_MORE)

    def first(self) -> Transfer:
        """The transfer of step 0."""
        return self._fw_cfg.read_directory(FIRST_DIRECTORY)

    def after(self, step: int) -> list[MicroOp]:
        """What comes after a step; nothing: all is read. Raises `GuestError`: what QEMU has given is damaged."""
        if step == START:
            return self._fw_cfg.operations(READ, self._reads())
        if step == READ and (more := self._more()):
            found = find(self.directory(), more)
            reads = [self._fw_cfg.read(found[name][0], place) for name, place in more.items()]
            return self._fw_cfg.operations(READ_MORE, reads)
        return []

    def directory(self) -> dict[str, tuple[int, int]]:
        """The list of files: name → (selector, size in bytes). Raises `GuestError`: it is damaged."""
        return self._fw_cfg.directory(SECOND_DIRECTORY)

    def files(self) -> dict[str, bytes]:
        """All that was read, by name. Raises `GuestError`: it is damaged."""
        more = {name: self._fw_cfg.contents(place) for name, place in self._more().items()}
        return {name: self._contents(name) for name in FILES} | more

    def free(self) -> Buffer:
        """What is left of the room for files."""
        last = max(place.end for place in (*self._places.values(), *self._more().values()))
        return Buffer(last, ROOM.end - last)

    def _reads(self) -> list[Transfer]:
        found = find(self._fw_cfg.directory(FIRST_DIRECTORY), FILES)
        return [
            self._fw_cfg.select(found[TABLES_FILE][0]),
            self._fw_cfg.read_directory(SECOND_DIRECTORY),
            *(self._fw_cfg.read(found[name][0], place) for name, place in self._places.items()),
        ]

    def _contents(self, name: str) -> bytes:
        """One of `FILES`, as read."""
        size = find(self.directory(), [name])[name][1]
        if size > self._sizes[name]:
            raise GuestError(f"QEMU's fw_cfg: {name} has {size} bytes; {self._sizes[name]} were expected at most")
        return self._fw_cfg.contents(self._places[name], size)

    def _more(self) -> dict[str, Buffer]:
        """Where the files are read to that only the script names."""
        names = wanted_files(self._contents(SCRIPT_FILE))
        sizes = {name: size for name, (_, size) in find(self.directory(), names).items()}
        last = self._places[FILES[-1]].end
        return places(sizes, Buffer(last, ROOM.end - last))
