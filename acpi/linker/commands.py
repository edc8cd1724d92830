"""The table loader's script: bytes to typed commands and back.

A script is a row of entries of 128 bytes: a 32-bit command number, its arguments (little-endian; file names are 56
bytes, ended by a NUL), and zeroes. What is wrong in it ends as an `AcpiError` that names the entry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from qemu_sdei.acpi.errors import AcpiError

ENTRY_SIZE: Final = 128
NAME_SIZE: Final = 56
"""Bytes of a file name in the script, the NUL included: that of a fw_cfg file."""
MAX_ENTRIES: Final = 4096
"""QEMU's own scripts have some 30. More cannot be meant, and would only cost time."""

_ALLOCATE: Final = struct.Struct("<I56sIB")
_ADD_POINTER: Final = struct.Struct("<I56s56sIB")
_ADD_CHECKSUM: Final = struct.Struct("<I56sIII")
_WRITE_POINTER: Final = struct.Struct("<I56s56sIIB")
_NUMBER: Final = struct.Struct("<I")


class Zone(IntEnum):
    """Where a file may be placed. The second has a meaning on PCs only: elsewhere it is memory like any other."""

    HIGH = 1
    FSEG = 2


@dataclass(frozen=True, slots=True)
class Allocate:
    """Place `file` in memory, at a multiple of `alignment` bytes (a power of two)."""

    file: str
    alignment: int
    zone: Zone = Zone.HIGH


@dataclass(frozen=True, slots=True)
class AddPointer:
    """Add the address of `target` to the `size` bytes (1, 2, 4 or 8) at `offset` of `file`, which hold an offset into
    `target` until then.
    """

    file: str
    target: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class AddChecksum:
    """Set the byte at `offset` of `file` so that the `length` bytes from `start` on sum to 0 (mod 256)."""

    file: str
    offset: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class WritePointer:
    """Tell the hypervisor: write the address of `target` plus `target_offset` to the `size` bytes at `offset` of
    `file`, which stays on the hypervisor's side.
    """

    file: str
    target: str
    offset: int
    target_offset: int
    size: int


Command = Allocate | AddPointer | AddChecksum | WritePointer


def parse(script: bytes | bytearray | memoryview) -> list[Command]:
    """The commands of a script, in their order.

    Entries of command 0 do nothing, as QEMU's interface has it, and are left out.

    Raises:
        AcpiError: its length is no multiple of 128, it has more than `MAX_ENTRIES` entries, or an entry is damaged.
    """
    if len(script) % ENTRY_SIZE:
        raise AcpiError(f"table loader: {len(script)} bytes are no whole number of entries of {ENTRY_SIZE} bytes")
    if len(script) > MAX_ENTRIES * ENTRY_SIZE:
        raise AcpiError(f"table loader: {len(script) // ENTRY_SIZE} entries; at most {MAX_ENTRIES} can be")
    data = bytes(script)
    found = []
    for index in range(len(data) // ENTRY_SIZE):
        command = _entry(data[index * ENTRY_SIZE :][:ENTRY_SIZE], f"table loader, entry {index}: ")
        if command is not None:
            found.append(command)
    return found


def _entry(data: bytes, where: str) -> Command | None:
    number = _NUMBER.unpack_from(data)[0]
    if number == 0:
        return None
    if number == 1:
        _, file, alignment, zone = _ALLOCATE.unpack_from(data)
        if alignment == 0 or alignment & alignment - 1:
            raise AcpiError(f"{where}alignment {alignment} is not a power of two")
        if zone not in (Zone.HIGH, Zone.FSEG):
            raise AcpiError(f"{where}there is no zone {zone}")
        return Allocate(_name(file, where), alignment, Zone(zone))
    if number == 2:
        _, file, target, offset, size = _ADD_POINTER.unpack_from(data)
        _check_size(size, where)
        return AddPointer(_name(file, where), _name(target, where), offset, size)
    if number == 3:
        _, file, offset, start, length = _ADD_CHECKSUM.unpack_from(data)
        return AddChecksum(_name(file, where), offset, start, length)
    if number == 4:
        _, file, target, offset, target_offset, size = _WRITE_POINTER.unpack_from(data)
        _check_size(size, where)
        return WritePointer(_name(file, where), _name(target, where), offset, target_offset, size)
    raise AcpiError(f"{where}there is no command {number:#x}")


def _check_size(size: int, where: str) -> None:
    if size not in (1, 2, 4, 8):
        raise AcpiError(f"{where}a pointer has 1, 2, 4 or 8 bytes, not {size}")


def _name(field: bytes, where: str) -> str:
    name, end, _ = field.partition(b"\0")
    if not end:
        raise AcpiError(f"{where}a file name has no end")
    if not name or not name.isascii() or not name.decode("ascii").isprintable():
        raise AcpiError(f"{where}{name!r} is no name of a file")
    return name.decode("ascii")


def emit(commands: Iterable[Command]) -> bytes:
    """The script of `commands`.

    Raises:
        AcpiError: a command cannot be written: `parse` would refuse it.
    """
    entries = []
    for index, command in enumerate(commands):
        where = f"table loader, entry {index}: "
        try:
            data = _pack(command, where).ljust(ENTRY_SIZE, b"\0")
        except struct.error:
            raise AcpiError(f"{where}{command} has a number that does not fit into its field") from None
        _entry(data, where)
        entries.append(data)
    if len(entries) > MAX_ENTRIES:
        raise AcpiError(f"table loader: {len(entries)} entries; at most {MAX_ENTRIES} can be")
    return b"".join(entries)


def _pack(command: Command, where: str) -> bytes:
    file = _field(command.file, where)
    if isinstance(command, Allocate):
        return _ALLOCATE.pack(1, file, command.alignment, command.zone)
    if isinstance(command, AddChecksum):
        return _ADD_CHECKSUM.pack(3, file, command.offset, command.start, command.length)
    target = _field(command.target, where)
    if isinstance(command, AddPointer):
        return _ADD_POINTER.pack(2, file, target, command.offset, command.size)
    return _WRITE_POINTER.pack(4, file, target, command.offset, command.target_offset, command.size)


def _field(name: str, where: str) -> bytes:
    data = name.encode("ascii", "replace")
    if len(data) >= NAME_SIZE:
        raise AcpiError(f"{where}the file name {name!r} has {len(data)} bytes; {NAME_SIZE - 1} fit")
    return data
