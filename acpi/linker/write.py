"""A set of tables as the files that firmware reads from QEMU's fw_cfg: the other half of the interface."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.linker.commands import AddChecksum, AddPointer, Allocate, Command, Zone, emit

TABLES_FILE: Final = "etc/acpi/tables"
RSDP_FILE: Final = "etc/acpi/rsdp"
SCRIPT_FILE: Final = "etc/table-loader"

_HEADER: Final = 36
_CHECKSUM: Final = 9
_RSDP: Final = struct.Struct("<8sB6sBIIQB3x")
_XSDT_HEADER: Final = struct.Struct("<4sIBB6s8sI4sI")
_FADT: Final = {"FACS": (36, 132), "DSDT": (40, 140)}
"""Offsets of the 32-bit and of the 64-bit pointer in a FADT (ACPI 6.5 5.2.9); the second is of revision 3 and later."""


def files_of(tables: Sequence[bytes], oem_id: bytes = b"BOCHS ", oem_table_id: bytes = b"BXPC    ") -> dict[str, bytes]:
    """`etc/acpi/tables`, `etc/acpi/rsdp` and `etc/table-loader` for `tables`, an XSDT made for them included.

    A FADT among them is made to point to the DSDT and the FACS that are there; these two are not listed in the XSDT.
    Firmware that executes the script makes every checksum again.

    Args:
        tables: whole tables, header included; at most one FADT, DSDT and FACS.
        oem_id: 6 bytes for RSDP and XSDT.
        oem_table_id: 8 bytes for the XSDT.

    Raises:
        AcpiError: a table is shorter than a header or than it says, or there are two of what there can be one of.
    """
    places: list[int] = []
    single: dict[str, int] = {}
    blob = bytearray()
    for index, table in enumerate(tables):
        signature = _check(table, index)
        blob += bytes(-len(blob) % (64 if signature == "FACS" else 8))
        if signature in ("DSDT", "FACS", "FACP"):
            if signature in single:
                raise AcpiError(f"table {index}: there are two {signature}s")
            single[signature] = len(blob)
        places.append(len(blob))
        blob += table
    commands: list[Command] = [Allocate(RSDP_FILE, 16, Zone.FSEG), Allocate(TABLES_FILE, 64)]
    listed: list[int] = []
    for at, table in zip(places, tables, strict=True):
        signature = table[:4].decode("latin-1")
        if signature == "FACP":
            commands += _link_fadt(blob, at, len(table), single)
        if signature != "FACS":
            commands.append(AddChecksum(TABLES_FILE, at + _CHECKSUM, at, len(table)))
        if signature not in ("DSDT", "FACS"):
            listed.append(at)
    blob += bytes(-len(blob) % 8)
    xsdt = len(blob)
    length = _HEADER + 8 * len(listed)
    try:
        blob += _XSDT_HEADER.pack(b"XSDT", length, 1, 0, oem_id, oem_table_id, 1, b"QSDE", 1)
        rsdp = _RSDP.pack(b"RSD PTR ", 0, oem_id, 2, 0, 36, xsdt, 0)
    except struct.error:
        raise AcpiError("OEM ids are bytes: 6 of the OEM, 8 of the table") from None
    for number, at in enumerate(listed):
        commands.append(AddPointer(TABLES_FILE, TABLES_FILE, len(blob), 8))
        blob += at.to_bytes(8, "little")
        assert len(blob) == xsdt + _HEADER + 8 * (number + 1)
    commands += [
        AddChecksum(TABLES_FILE, xsdt + _CHECKSUM, xsdt, length),
        AddPointer(RSDP_FILE, TABLES_FILE, 24, 8),
        AddChecksum(RSDP_FILE, 8, 0, 20),
        AddChecksum(RSDP_FILE, 32, 0, 36),
    ]
    return {TABLES_FILE: bytes(blob), RSDP_FILE: rsdp, SCRIPT_FILE: emit(commands)}


def _check(table: bytes, index: int) -> str:
    if len(table) < _HEADER:
        raise AcpiError(f"table {index}: {len(table)} bytes are shorter than a table's header")
    length = int.from_bytes(table[4:8], "little")
    if length != len(table):
        raise AcpiError(f"table {index}: its header says {length} bytes, there are {len(table)}")
    return table[:4].decode("latin-1")


def _link_fadt(blob: bytearray, at: int, length: int, places: dict[str, int]) -> list[Command]:
    """Make the FADT at `at` point to what is there. Of each pair of pointers one is set and the other 0."""
    commands: list[Command] = []
    for signature, (short, long) in _FADT.items():
        offset, size = (long, 8) if length >= long + 8 else (short, 4)
        for place, width in ((short, 4), (long, 8)):
            if place + width <= length:
                blob[at + place : at + place + width] = bytes(width)
        target = places.get(signature)
        if target is not None:
            blob[at + offset : at + offset + size] = target.to_bytes(size, "little")
            commands.append(AddPointer(TABLES_FILE, TABLES_FILE, at + offset, size))
    return commands
