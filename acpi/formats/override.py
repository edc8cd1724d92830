"""Tables that Linux takes from its initrd, in place of the firmware's or in addition to them.

CONFIG_ACPI_TABLE_UPGRADE; Documentation/admin-guide/acpi/initrd_table_override.rst. An uncompressed cpio archive in
front of the initrd holds them below `kernel/firmware/acpi/`. Linux takes a fixed list of signatures and complains about
others: SDEI is not among them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.formats import file_names, signature

DIRECTORY: Final = "kernel/firmware/acpi"
MAX_TABLES: Final = 64
"""What Linux takes at most (NR_ACPI_INITRD_TABLES)."""
_SIGNATURES: Final = (
    "AEST AGDI APIC ASF_ BERT BGRT BOOT CEDT CPEP DBGP DMAR DSDT ECDT EINJ ERST FACP HEST HMAT HPET IBFT IORT IVRS "
    "MCFG MCHI MSCT NFIT NHLT PPTT PSDT RSDT SBST SLIC SLIT SPCR SPMI SRAT SSDT TCPA UEFI WAET WDAT WDDT WDRT XSDT"
)
SIGNATURES: Final = frozenset(_SIGNATURES.split())
"""`table_sigs` of drivers/acpi/tables.c in Linux 6.1 and later (AGDI since 5.18)."""


class NotOverridableError(AcpiError):
    """Linux does not take this table from an initrd."""


def files(tables: Sequence[bytes]) -> dict[str, bytes]:
    """Path in the archive to contents, for each table.

    Raises:
        NotOverridableError: Linux does not take a table with this signature, or not so many.
        AcpiError: a table's length is not that of its bytes, or its checksum is wrong: Linux would leave it out.
    """
    if len(tables) > MAX_TABLES:
        raise NotOverridableError(f"{len(tables)} tables are too many: Linux takes {MAX_TABLES} from an initrd")
    found = {}
    for name, table in zip(file_names(tables), tables, strict=True):
        if (kind := signature(table)) not in SIGNATURES:
            raise NotOverridableError(f"Linux takes no {kind} table from an initrd: its firmware has to have it")
        (length,) = struct.unpack_from("<I", table, 4) if len(table) >= 36 else (0,)
        if length != len(table):
            raise AcpiError(f"{kind}: its length field says {length} bytes, there are {len(table)}")
        if sum(table) & 0xFF:
            raise AcpiError(f"{kind}: its checksum is wrong, Linux would ignore it")
        found[f"{DIRECTORY}/{name}.aml"] = bytes(table)
    return found


def newer(table: bytes, oem_revision: int) -> bytes:
    """`table` with the given OEM revision: Linux replaces one of the same signature and OEM ids only by a newer one.

    Raises:
        AcpiError: the revision does not fit, or the table is shorter than a header.
    """
    if not 0 <= oem_revision <= 0xFFFF_FFFF:
        raise AcpiError(f"an OEM revision has 32 bits: {oem_revision:#x} is none")
    if len(table) < 36:
        raise AcpiError(f"a table has at least 36 bytes, here are {len(table)}")
    data = bytearray(table)
    struct.pack_into("<I", data, 24, oem_revision)
    data[9] = 0
    data[9] = -sum(data) & 0xFF
    return bytes(data)
