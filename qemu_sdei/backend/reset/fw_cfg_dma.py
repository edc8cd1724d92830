"""Files of QEMU's fw_cfg, read by its DMA interface while CPU 0 waits in a RESET frame.

One write to a register starts a transfer, and it is over when the write is: so the monitor's micro-operation that
writes physical memory is all that is needed, with descriptors and buffers in the window's scratch area. How much there
is to read is known only step by step (the directory, then the files, then those that the script names), and each step
is an exchange with the monitor.

Nothing is remembered between the steps but what lies in the scratch area: which step a frame belongs to is told by the
descriptors that its micro-operations name. So a backend that is started again goes on where another was killed, and
each step leaves alone what the steps before it have read.

Interface: QEMU's docs/specs/fw_cfg. Everything in it is big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import GuestError
from qemu_sdei.monitor.layout import MAX_OPS, OP_WORDS, SCRATCH_OFFSET, SCRATCH_SIZE, Word
from qemu_sdei.monitor.ops import MicroOp, write_phys
from qemu_sdei.monitor.window import Window

_DMA_REGISTER: Final = 0x0902_0010
"""fw_cfg of the `virt` machine: 64-bit, big-endian; writing it starts the transfer, which is done when the write is."""
_DIRECTORY_ITEM: Final = 0x19
_NO_ITEM: Final = 0x3FFF
_READ, _SKIP, _SELECT, _WRITE = 2, 4, 8, 16
_ACCESS: Final = struct.Struct(">IIQ")
"""FWCfgDmaAccess: control, length, address."""
_FILE: Final = struct.Struct(">IHxx56s")
"""FWCfgFile: size, select, name."""
_COUNT: Final = struct.Struct(">I")
_DESCRIPTORS: Final = 0x1000
"""Bytes at the start of the scratch area: room for 16 steps of 16 descriptors."""
_DIRECTORY_SIZE: Final = 0x8000


@dataclass(frozen=True, slots=True)
class Transfer:
    """One DMA transfer."""

    control: int
    length: int
    """Bytes."""
    address: int = 0
    """Physical."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Where in the scratch area something is read to: offset and size in bytes."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.size


FIRST_DIRECTORY: Final = Buffer(_DESCRIPTORS, _DIRECTORY_SIZE)
SECOND_DIRECTORY: Final = Buffer(FIRST_DIRECTORY.end, _DIRECTORY_SIZE)
FILES: Final = Buffer(SECOND_DIRECTORY.end, SCRATCH_SIZE - SECOND_DIRECTORY.end)
"""What is left for contents of files."""


def clearing(address: int, size: int) -> Transfer:
    """Have QEMU write zeroes: that is how an item reads that does not exist."""
    return Transfer(_NO_ITEM << 16 | _SELECT | _READ, size, address)


class FwCfg:
    """The scratch area of a window, used for fw_cfg."""

    def __init__(self, window: Window) -> None:
        self._ram = window.ram
        self._at = window.base - window.ram_base + SCRATCH_OFFSET
        self._address = window.base + SCRATCH_OFFSET

    def operations(self, step: int, transfers: Sequence[Transfer]) -> list[MicroOp]:
        """Micro-operations that carry out `transfers`, 16 at most, one after another. `step` is 0..15."""
        if len(transfers) > MAX_OPS:
            raise GuestError(f"QEMU's fw_cfg: {len(transfers)} files are wanted at once; {MAX_OPS} can be read")
        found = []
        for index, transfer in enumerate(transfers):
            offset = (step * MAX_OPS + index) * _ACCESS.size
            _ACCESS.pack_into(
                self._ram, self._at + offset, transfer.control, transfer.length & 0xFFFF_FFFF, transfer.address
            )
            found.append(write_phys(_DMA_REGISTER, _swapped(self._address + offset)))
        return found

    def step_of(self, frame: memoryview) -> int:
        """The step whose micro-operations a frame of kind OPS brings back; -1 if they are none of ours."""
        offset = _swapped(frame[Word.OPS + OP_WORDS - 1]) - self._address
        if frame[Word.OPS + 1] != _DMA_REGISTER or not 0 <= offset < _DESCRIPTORS:
            return -1
        return offset // _ACCESS.size // MAX_OPS

    def read_directory(self, buffer: Buffer) -> Transfer:
        """The transfer that reads the list of files."""
        return Transfer(_DIRECTORY_ITEM << 16 | _SELECT | _READ, buffer.size, self._address + buffer.offset)

    def directory(self, buffer: Buffer) -> dict[str, tuple[int, int]]:
        """What was read there: name → (selector, size in bytes).

        Raises:
            GuestError: it is damaged.
        """
        data = self.contents(buffer)
        (count,) = _COUNT.unpack_from(data)
        if count == 0:
            raise GuestError("QEMU's fw_cfg has no files")
        if _COUNT.size + count * _FILE.size > len(data):
            raise GuestError(f"QEMU's fw_cfg claims to have {count} files")
        found = {}
        for index in range(count):
            size, selector, name = _FILE.unpack_from(data, _COUNT.size + index * _FILE.size)
            found[name.split(b"\0")[0].decode("ascii", "replace")] = (selector, size)
        return found

    def select(self, selector: int) -> Transfer:
        """The transfer that selects a file and reads nothing of it: QEMU then brings the file up to date."""
        return Transfer(selector << 16 | _SELECT | _READ, 0, self._address)

    def read(self, selector: int, buffer: Buffer) -> Transfer:
        """The transfer that reads a file; what is left of the buffer becomes zero."""
        return Transfer(selector << 16 | _SELECT | _READ, buffer.size, self._address + buffer.offset)

    def write(self, selector: int, offset: int, buffer: Buffer) -> list[Transfer]:
        """The transfers that write a buffer to `offset` of a file."""
        return [
            Transfer(selector << 16 | _SELECT | _SKIP, offset),
            Transfer(_WRITE, buffer.size, self._address + buffer.offset),
        ]

    def contents(self, buffer: Buffer, size: int | None = None) -> bytes:
        """The first `size` bytes of what was read; all of it without."""
        start = self._at + buffer.offset
        return bytes(self._ram[start : start + (buffer.size if size is None else size)])

    def put(self, buffer: Buffer, data: bytes) -> None:
        """Write `data` into a buffer."""
        self._ram[self._at + buffer.offset :][: len(data)] = data


def places(sizes: Mapping[str, int], room: Buffer) -> dict[str, Buffer]:
    """A buffer for each file, one behind the other, in `room`.

    Raises:
        GuestError: they do not fit.
    """
    found = {}
    at = room.offset
    for name, size in sizes.items():
        found[name] = Buffer(at, size)
        at += (size + 15) & -16
        if at > room.end:
            raise GuestError(f"QEMU's fw_cfg: {name} of {size} bytes does not fit with the files read before it")
    return found


def find(directory: Mapping[str, tuple[int, int]], names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """(selector, size) of files that must be there. Raises GuestError: one is not."""
    found = {}
    for name in names:
        if name not in directory:
            raise GuestError(f"QEMU's fw_cfg has no file {name}: is the machine built with acpi=off?")
        found[name] = directory[name]
    return found


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "big"), "little")
