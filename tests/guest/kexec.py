"""A user program for Linux guests that starts another kernel: busybox has no kexec, and Debian's arm64 kernels no
kexec_file_load(2).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tests.guest.programs import ENTRY, elf64

_OPENAT, _EXIT, _KEXEC_LOAD, _REBOOT, _MMAP = 56, 93, 104, 142, 222
_REBOOT_KEXEC: Final = (0xFEE1_DEAD, 672274793, 0x4558_4543)
"""LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC."""
_ARCH_AARCH64: Final = 183 << 16
_ON_CRASH: Final = 1
"""KEXEC_ON_CRASH: into the memory of crashkernel=, for when this kernel panics."""
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
    words: list[int] = []
    addresses: list[tuple[int, int, int]] = []
    failures: list[int] = []

    def place(register: int, offset: int) -> None:
        addresses.append((len(words), register, offset))
        words.append(0)

    def call(number: int) -> None:
        words.extend((0xD280_0000 | number << 5 | 8, 0xD400_0001))  # movz x8, #number; svc #0
        failures.append(len(words))
        words.append(0)

    data = struct.pack(f"<{len(purgatory)}I", *purgatory)
    table_at = len(data)
    rows = 1 + len(files)
    data += bytes(32 * rows)
    for n, file in enumerate(files):
        words.append(0x9280_0000 | 99 << 5)  # movn x0, #99: AT_FDCWD
        place(1, len(data))
        data += file.path.encode() + b"\0"
        words += _constant(2, 0)
        call(_OPENAT)
        words.append(0xAA00_03E4)  # mov x4, x0
        # PROT_READ, MAP_PRIVATE | MAP_FIXED
        for register, value in enumerate((_VIEW * (n + 1), file.size, 1, 0x12)):
            words += _constant(register, value)
        words += _constant(5, 0)
        call(_MMAP)
    place(2, table_at)
    flags = _ARCH_AARCH64 | (_ON_CRASH if crash else 0)
    words += [*_constant(0, purgatory_at), *_constant(1, rows), *_constant(3, flags)]
    call(_KEXEC_LOAD)
    if not crash:
        for register, value in enumerate(_REBOOT_KEXEC):
            words += _constant(register, value)
        call(_REBOOT)
    fail = len(words)
    words += [0xCB00_03E0, 0xD280_0000 | _EXIT << 5 | 8, 0xD400_0001]  # neg x0, x0; exit(x0)
    words += [0] * (len(words) % 2)
    for at in failures:
        words[at] = 0xB7F8_0000 | (fail - at) << 5  # tbnz x0, #63, fail
    for at, register, offset in addresses:
        distance = 4 * (len(words) - at) + offset
        words[at] = 0x1000_0000 | (distance & 3) << 29 | (distance >> 2) << 5 | register  # adr
    table = [(ENTRY + 4 * len(words), table_at, purgatory_at, _PAGE)]
    table += [(_VIEW * (n + 1), f.size, f.address, -(-f.room // _PAGE) * _PAGE) for n, f in enumerate(files)]
    data = data[:table_at] + b"".join(struct.pack("<4Q", *row) for row in table) + data[table_at + 32 * rows :]
    return elf64(struct.pack(f"<{len(words)}I", *words) + data)
