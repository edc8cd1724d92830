"""From bytes to tables: one, or all that are in a file."""

from __future__ import annotations

from typing import Final

from acpi.errors import AcpiError, TableError
from acpi.formats import acpidump
from acpi.table import HEADER_SIZE, MAX_SIZE, Table, signature_of
from acpi.tables.agdi import Agdi
from acpi.tables.bert import Bert
from acpi.tables.fadt import Fadt
from acpi.tables.hest import Hest
from acpi.tables.raw import RawTable
from acpi.tables.root import RSDP_SIGNATURE, Rsdp, Rsdt, Xsdt
from acpi.tables.sdei import Sdei

TYPES: Final[dict[str, type[Table]]] = {
    kind.SIGNATURE: kind for kind in (Agdi, Bert, Fadt, Hest, Rsdt, Sdei, Xsdt)
}  # fmt: skip
"""The signatures that have a class of their own. Those of FADT and MADT are FACP and APIC."""


def parse(data: bytes | bytearray | memoryview) -> Table:
    """The one table that `data` is: a class of `acpi.tables`, `RawTable` if there is none for it.

    The checksum is not looked at (`acpi.verify` does).

    Raises:
        TableError: it is damaged; with the offset and the field.
    """
    data = bytes(data)
    if data[:8] == RSDP_SIGNATURE:
        return Rsdp.from_bytes(data)
    return TYPES.get(signature_of(data), RawTable).from_bytes(data)


def split_file(data: bytes | bytearray | memoryview) -> list[bytes]:
    """The tables in a file, whole or not: one or several binary ones, with zeros between them, or acpidump's text.

    A binary table reaches as far as its header says; one that says more than there is takes what is left.

    Raises:
        TableError: there is no table in it, or something else between two.
    """
    entries, error = entries_of(data)
    if error is not None:
        raise error
    return [entry.data for entry in entries]


def entries_of(data: bytes | bytearray | memoryview) -> tuple[list[acpidump.Entry], TableError | None]:
    """The tables in a file as `split_file` finds them, with the addresses that acpidump's text has of them.

    Where `split_file` raises, this gives the tables before the fault, and the fault.
    """
    data = bytes(data)
    if data[:8] != RSDP_SIGNATURE and acpidump.looks_like(data):
        try:
            return acpidump.read(data), None
        except AcpiError as error:
            return [], TableError(str(error), signature="acpidump text")
    tables: list[acpidump.Entry] = []
    at = 0
    while at < len(data):
        if data[at] == 0 and tables:
            at += 1
            continue
        if len(tables) >= acpidump.MAX_TABLES:
            return tables, TableError(f"more than {acpidump.MAX_TABLES} tables", offset=at, field="signature")
        try:
            size = _size(data, at)
        except TableError as error:
            return tables, error
        tables.append(acpidump.Entry(data[at : at + size]))
        at += size
    return tables, None if tables else TableError("the file is empty", offset=0, field="signature")


def parse_file(data: bytes | bytearray | memoryview) -> list[Table]:
    """The tables in a file, as `split_file` finds them.

    Raises:
        TableError: there is none, or one is damaged; its offset counts from the start of that table.
    """
    return [parse(table) for table in split_file(data)]


def _size(data: bytes, at: int) -> int:
    head = data[at : at + HEADER_SIZE]
    if head[:8] == RSDP_SIGNATURE:
        if len(head) > 15 and head[15] < 2:
            return 20
        size = int.from_bytes(head[20:24], "little")
        return size if 20 <= size <= MAX_SIZE else len(data) - at
    try:
        name = signature_of(head)
    except TableError as error:
        raise TableError(error.message, offset=at, field="signature") from None
    if len(head) < 8:
        raise TableError("cut short in its length", signature=name, offset=at + len(head), field="length")
    size = int.from_bytes(head[4:8], "little")
    return size if 8 <= size <= MAX_SIZE else len(data) - at
