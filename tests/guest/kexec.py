"""A user program for Linux guests that starts another kernel: busybox has no kexec, and Debian's arm64 kernels no
kexec_file_load(2).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tests.guest.programs import ENTRY, elf64

_OPENAT, _EXIT, _KEXEC_LOAD, _REBOOT, _MMAP, _KEXEC_FILE_LOAD = 56, 93, 104, 142, 222, 294
_REBOOT_KEXEC: Final = (0xFEE1_DEAD, 672274793, 0x4558_4543)
"""LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC."""
_ARCH_AARCH64: Final = 183 << 16
_ON_CRASH: Final = 1
"""KEXEC_ON_CRASH: into the memory of crashkernel=, for when this kernel panics."""
_FILE_ON_CRASH: Final = 2
"""KEXEC_FILE_ON_CRASH."""
_PAGE: Final = 4096
_VIEW: Final = 0x2000_0000
"""Where the program maps its files, this far apart from each other."""
PURGATORY: Final = 0x6000_0000
"""Physical address of what sets x0 to the device tree and goes to the kernel, where no other is given."""


class Segment(NamedTuple):
    """A file of the guest and where it goes: its size, physical address, and the room that it needs there."""

    path: str
    size: int
    address: int
    room: int


class _Program:
    """Instructions in the making; an address of data is known only when all of them are there."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self._addresses: list[tuple[int, int, int]] = []
        self._failures: list[int] = []

    def put(self, *words: int) -> None:
        self.words += words

    def constant(self, register: int, value: int) -> None:
        """movz, movk."""
        self.put(*_constant(register, value))

    def address(self, register: int, offset: int) -> None:
        """Of what is at `offset` of the data."""
        self._addresses.append((len(self.words), register, offset))
        self.put(0)

    def call(self, number: int) -> None:
        """A system call; one that fails ends the program, with the error number."""
        self.put(0xD280_0000 | number << 5 | 8, 0xD400_0001)  # movz x8, #number; svc #0
        self._failures.append(len(self.words))
        self.put(0)

    def open(self, name_at: int) -> None:
        """The file whose name is at an offset of the data: into x0."""
        self.put(0x9280_0000 | 99 << 5)  # movn x0, #99: AT_FDCWD
        self.address(1, name_at)
        self.constant(2, 0)
        self.call(_OPENAT)

    def reboot(self) -> None:
        """To the kernel that was loaded, in an orderly way."""
        for register, value in enumerate(_REBOOT_KEXEC):
            self.constant(register, value)
        self.call(_REBOOT)

    def end(self) -> int:
        """Returns where the data has to begin."""
        fail = len(self.words)
        self.put(0xCB00_03E0, 0xD280_0000 | _EXIT << 5 | 8, 0xD400_0001)  # neg x0, x0; exit(x0)
        self.put(*[0] * (len(self.words) % 2))
        for at in self._failures:
            self.words[at] = 0xB7F8_0000 | (fail - at) << 5  # tbnz x0, #63, fail
        for at, register, offset in self._addresses:
            distance = 4 * (len(self.words) - at) + offset
            self.words[at] = 0x1000_0000 | (distance & 3) << 29 | (distance >> 2) << 5 | register  # adr
        return 4 * len(self.words)

    def elf(self, data: bytes) -> bytes:
        return elf64(struct.pack(f"<{len(self.words)}I", *self.words) + data)


def _constant(register: int, value: int) -> list[int]:
    """movz, movk."""
    return [0xD280_0000 | (value & 0xFFFF) << 5 | register, 0xF2A0_0000 | (value >> 16 & 0xFFFF) << 5 | register]


def kexec_a64(
    kernel: Segment, tree: Segment, *others: Segment, purgatory_at: int = PURGATORY, crash: bool = False
) -> bytes:
    """An AArch64 ELF executable that loads these by kexec_load(2) and goes there at once, in an orderly way: the old
    kernel's reboot notifiers run. With `crash` it only loads them, for when the kernel panics, and ends with 0.
    When it fails it ends with the error number.
    """
    files = (kernel, tree, *others)
    purgatory = [*_constant(0, tree.address), *_constant(16, kernel.address), *(0xAA1F_03E0 | n for n in (1, 2, 3))]
    purgatory.append(0xD61F_0200)  # br x16
    program = _Program()
    data = struct.pack(f"<{len(purgatory)}I", *purgatory)
    table_at = len(data)
    rows = 1 + len(files)
    data += bytes(32 * rows)
    for n, file in enumerate(files):
        program.open(len(data))
        data += file.path.encode() + b"\0"
        program.put(0xAA00_03E4)  # mov x4, x0
        # PROT_READ, MAP_PRIVATE | MAP_FIXED
        for register, value in enumerate((_VIEW * (n + 1), file.size, 1, 0x12)):
            program.constant(register, value)
        program.constant(5, 0)
        program.call(_MMAP)
    program.address(2, table_at)
    flags = _ARCH_AARCH64 | (_ON_CRASH if crash else 0)
    for register, value in ((0, purgatory_at), (1, rows), (3, flags)):
        program.constant(register, value)
    program.call(_KEXEC_LOAD)
    if not crash:
        program.reboot()
    table = [(ENTRY + program.end(), table_at, purgatory_at, _PAGE)]
    table += [(_VIEW * (n + 1), f.size, f.address, -(-f.room // _PAGE) * _PAGE) for n, f in enumerate(files)]
    return program.elf(
        data[:table_at] + b"".join(struct.pack("<4Q", *row) for row in table) + data[table_at + 32 * rows :]
    )


def kexec_file_a64(kernel: str, initrd: str, command_line: str, *, crash: bool = False) -> bytes:
    """The same by kexec_file_load(2), which gets files by name, and places them itself (CONFIG_KEXEC_FILE)."""
    program = _Program()
    names = [text.encode() + b"\0" for text in (kernel, initrd, command_line)]
    for n, register in enumerate((19, 20)):
        program.open(sum(map(len, names[:n])))
        program.put(0xAA00_03E0 | register)  # mov xN, x0
    program.put(0xAA13_03E0, 0xAA14_03E1)  # mov x0, x19; mov x1, x20
    program.constant(2, len(names[2]))
    program.address(3, len(names[0] + names[1]))
    program.constant(4, _FILE_ON_CRASH if crash else 0)
    program.call(_KEXEC_FILE_LOAD)
    if not crash:
        program.reboot()
    program.end()
    return program.elf(b"".join(names))
