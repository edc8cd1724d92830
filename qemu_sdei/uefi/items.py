"""What a guest's UEFI reads of us by fw_cfg: the list of files, ACPI tables with ours among them, a kernel.

The table loader's files are QEMU's own, with the selectors that QEMU gave them; ours go behind QEMU's tables, and into
an XSDT of their own. UEFI carries out the script, and so chooses where everything is.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from qemu_sdei.acpi.linker import (
    RSDP_FILE,
    SCRIPT_FILE,
    TABLES_FILE,
    AddChecksum,
    AddPointer,
    Command,
    Loaded,
    Zone,
    emit,
    execute,
    parse,
)
from qemu_sdei.acpi.tables import Fadt
from qemu_sdei.boot.machine_tables import MachineTables

DIRECTORY: Final = 0x19
KERNEL_SIZE, KERNEL = 0x08, 0x11
INITRD_SIZE, INITRD = 0x0B, 0x12
COMMAND_LINE_SIZE, COMMAND_LINE = 0x14, 0x15
_COUNT: Final = struct.Struct(">I")
_FILE: Final = struct.Struct(">IHxx56s")
"""FWCfgFile: size, select, name."""
_WORD: Final = struct.Struct("<I")
_TABLES_AT: Final = 1 << 31
_OTHERS_AT: Final = 1 << 30
"""Where the files are taken to be while ours are made: those of the machine will be where UEFI puts them."""
_RSDP_XSDT: Final = 24
_CHECKSUM: Final = 9
_ENTRIES: Final = 36
_ARM_BOOT_ARCH: Final = slice(129, 131)
"""Offsets in the RSDP, in a header, in an XSDT, and in a FADT (ACPI 6.5 5.2.5.3, 5.2.6, 5.2.8, 5.2.9)."""


def directory(files: Mapping[str, tuple[int, int]]) -> bytes:
    """The list of files: name → (selector, size in bytes). Linux and UEFI want no order."""
    entries = (_FILE.pack(size, selector, name.encode("ascii")) for name, (selector, size) in files.items())
    return _COUNT.pack(len(files)) + b"".join(entries)


def kernel(image: bytes, initrd: bytes, command_line: str) -> dict[int, bytes]:
    """The items by which UEFI boots a kernel, as QEMU's `-kernel` makes them."""
    words = command_line.encode(errors="surrogateescape") + b"\0"
    return {
        KERNEL_SIZE: _WORD.pack(len(image)),
        KERNEL: image,
        INITRD_SIZE: _WORD.pack(len(initrd)),
        INITRD: initrd,
        COMMAND_LINE_SIZE: _WORD.pack(len(words)),
        COMMAND_LINE: words,
    }


def linked(files: Mapping[str, bytes]) -> Loaded:
    """QEMU's tables, linked somewhere, so that they can be read.

    Args:
        files: those that the script places, by name.

    Raises:
        AcpiError: they are damaged.
    """
    places = {TABLES_FILE: _TABLES_AT}
    free = _OTHERS_AT

    def allocate(file: str, length: int, alignment: int, zone: Zone) -> int:
        nonlocal free
        if file in places:
            return places[file]
        address = (free + alignment - 1) & -alignment
        free = address + length
        return address

    return execute(parse(files[SCRIPT_FILE]), files, allocate)


def completed(files: Mapping[str, bytes], complete: MachineTables) -> dict[str, bytes]:
    """The table loader's files with our tables among them: as QEMU's, without addresses and without checksums.

    Args:
        files: QEMU's.
        complete: what `machine_tables.complete` has made of them where `linked` has put them.

    Raises:
        AcpiError: QEMU's tables are damaged.
    """
    before, *added = [part for part in complete.parts if part[0] >= _TABLES_AT]
    data, changed = bytearray(files[TABLES_FILE]), before[1]
    for address, table in added:
        data += bytes(address - _TABLES_AT - len(data))
        data += table
    root, xsdt = added[-1][0] - _TABLES_AT, added[-1][1]
    commands: list[Command] = []
    for at in range(root + _ENTRIES, root + len(xsdt), 8):
        place = int.from_bytes(data[at : at + 8], "little") - _TABLES_AT
        if changed[place : place + 4] == Fadt.SIGNATURE.encode():
            field = slice(place + _ARM_BOOT_ARCH.start, place + _ARM_BOOT_ARCH.stop)
            data[field] = changed[field]
        data[at : at + 8] = place.to_bytes(8, "little")
        commands.append(AddPointer(TABLES_FILE, TABLES_FILE, at, 8))
    data[root + _CHECKSUM] = 0
    commands.append(AddChecksum(TABLES_FILE, root + _CHECKSUM, root, len(xsdt)))
    rsdp = bytearray(files[RSDP_FILE])
    rsdp[_RSDP_XSDT : _RSDP_XSDT + 8] = root.to_bytes(8, "little")
    return {
        TABLES_FILE: bytes(data),
        RSDP_FILE: bytes(rsdp),
        SCRIPT_FILE: emit([*parse(files[SCRIPT_FILE]), *commands]),
    }
