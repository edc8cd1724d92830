"""Do what a table loader's script says: firmware's half of the interface.

The script and the files come from the machine and may be damaged, or hostile: whatever is wrong ends as an `AcpiError`,
before anything was placed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.linker.commands import AddChecksum, AddPointer, Allocate, Command, WritePointer, Zone

Allocator = Callable[[str, int, int, Zone], int]
"""Called with a file's name, its size in bytes, alignment and zone; returns the address that it will have."""

MAX_TOTAL: Final = 16 << 20
"""Bytes of all files together."""
MAX_WORK: Final = 64 << 20
"""Bytes that all checksums together may run over: each byte of a table is in one or two of them."""


@dataclass(slots=True)
class Blob:
    """A file that has been placed."""

    address: int
    data: bytearray

    @property
    def end(self) -> int:
        """Address of the first byte behind it."""
        return self.address + len(self.data)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What the hypervisor is to be told: `data` goes to `offset` of `file` on its side."""

    file: str
    offset: int
    data: bytes


@dataclass(slots=True)
class Loaded:
    """What came of a script."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    """The files that were placed, by name, in the order in which they were."""
    pointers: list[Pointer] = field(default_factory=list)


def allocator(base: int, size: int) -> Allocator:
    """An allocator that fills the `size` bytes at `base` from below. It raises `AcpiError` when they are full."""
    free = base

    def allocate(file: str, length: int, alignment: int, zone: Zone) -> int:
        nonlocal free
        address = (free + alignment - 1) & -alignment
        if address + length > base + size:
            raise AcpiError(f"table loader: {file!r} of {length} bytes does not fit into {size:#x} bytes at {base:#x}")
        free = address + length
        return address

    return allocate


def execute(commands: Sequence[Command], files: Mapping[str, bytes], allocate: Allocator) -> Loaded:
    """Place the files that `commands` allocate, and link them.

    Args:
        commands: see `parse`.
        files: every file that may be allocated, by name; those that a WRITE_POINTER names stay with the hypervisor and
            need not be here.
        allocate: says where each file goes.

    Raises:
        AcpiError: a file is unknown, not placed yet, or placed twice; an offset, a pointer or a checksum's range is
            outside of its file; `allocate` gave an address that is misaligned, negative, beyond 64 bits, or inside
            another file; or the script is out of proportion.
    """
    loaded = Loaded()
    total = work = 0
    for index, command in enumerate(commands):
        where = f"table loader, command {index}: "
        if isinstance(command, Allocate):
            if command.file not in files:
                raise AcpiError(f"{where}there is no file {command.file!r}")
            total += len(files[command.file])
            if total > MAX_TOTAL:
                raise AcpiError(f"{where}the files have more than {MAX_TOTAL >> 20} MiB")
            _allocate(loaded, command, files[command.file], allocate, where)
        elif isinstance(command, AddPointer):
            blob, target = _placed(loaded, command.file, where), _placed(loaded, command.target, where)
            _add_pointer(blob, target, command, where)
        elif isinstance(command, AddChecksum):
            work += command.length
            if work > MAX_WORK:
                raise AcpiError(f"{where}checksums over more than {MAX_WORK >> 20} MiB")
            _add_checksum(_placed(loaded, command.file, where), command, where)
        else:
            loaded.pointers.append(_write_pointer(_placed(loaded, command.target, where), command, where))
    return loaded


def _placed(loaded: Loaded, file: str, where: str) -> Blob:
    blob = loaded.blobs.get(file)
    if blob is None:
        raise AcpiError(f"{where}the file {file!r} has not been placed")
    return blob


def _allocate(loaded: Loaded, command: Allocate, data: bytes, allocate: Allocator, where: str) -> None:
    if command.file in loaded.blobs:
        raise AcpiError(f"{where}the file {command.file!r} is placed twice")
    address = allocate(command.file, len(data), command.alignment, command.zone)
    blob = Blob(address, bytearray(data))
    if address < 0 or address % command.alignment or blob.end > 1 << 64:
        raise AcpiError(f"{where}{command.file!r} cannot be placed at {address:#x}")
    for name, other in loaded.blobs.items():
        if address < other.end and other.address < blob.end:
            raise AcpiError(f"{where}{command.file!r} at {address:#x} would lie over {name!r} at {other.address:#x}")
    loaded.blobs[command.file] = blob


def _add_pointer(blob: Blob, target: Blob, command: AddPointer, where: str) -> None:
    end = command.offset + command.size
    if end > len(blob.data):
        raise AcpiError(f"{where}a pointer at {command.offset:#x} is outside of {command.file!r}")
    inside = int.from_bytes(blob.data[command.offset : end], "little")
    if inside >= max(len(target.data), 1):
        raise AcpiError(f"{where}a pointer to {inside:#x} is outside of {command.target!r}")
    address = target.address + inside
    if address >= 1 << 8 * command.size:
        raise AcpiError(f"{where}the address {address:#x} of {command.target!r} does not fit into {command.size} bytes")
    blob.data[command.offset : end] = address.to_bytes(command.size, "little")


def _add_checksum(blob: Blob, command: AddChecksum, where: str) -> None:
    end = command.start + command.length
    if end > len(blob.data) or not command.start <= command.offset < end:
        raise AcpiError(
            f"{where}a checksum at {command.offset:#x} over {command.length:#x} bytes from {command.start:#x} on "
            f"is outside of {command.file!r} or of itself"
        )
    blob.data[command.offset] = 0
    blob.data[command.offset] = -sum(memoryview(blob.data)[command.start : end]) & 0xFF


def _write_pointer(target: Blob, command: WritePointer, where: str) -> Pointer:
    if command.target_offset >= max(len(target.data), 1):
        raise AcpiError(f"{where}a pointer to {command.target_offset:#x} is outside of {command.target!r}")
    address = target.address + command.target_offset
    if address >= 1 << 8 * command.size:
        raise AcpiError(f"{where}the address {address:#x} of {command.target!r} does not fit into {command.size} bytes")
    return Pointer(command.file, command.offset, address.to_bytes(command.size, "little"))
