"""From bytes to tables: one, or all that are in a file."""

from __future__ import annotations

import re
from typing import Final

from acpi.errors import AcpiError, TableError
from acpi.formats import acpidump, texts
from acpi.kinds import SOURCES, is_text, like_a_signature, what
from acpi.table import HEADER_SIZE, MAX_SIZE, Table, checksum, signature_of
from acpi.tables import KINDS
from acpi.tables.raw import RawTable
from acpi.tables.root import RSDP_SIGNATURE, Rsdp
from acpi.tables.unparsed import Unparsed

_SIGNATURE: Final = re.compile(rb"(?=[A-Z][A-Z0-9_]{2}[A-Z0-9_!].{3}\0)", re.S)
_MAX_SUMMED: Final = 64 << 20
"""Bytes that are added up in search of tables in one file."""
_LOOK: Final = 4096
"""Bytes that are looked at to say what something is."""


def parse(data: bytes | bytearray | memoryview) -> Table:
    """The one table that `data` is: a class of `acpi.tables`, `RawTable` if there is none for it.

    The checksum is not looked at (`acpi.verify` does).

    Raises:
        TableError: it is damaged; with the offset and the field.
    """
    data = bytes(data)
    if data[:8] == RSDP_SIGNATURE:
        return Rsdp.from_bytes(data)
    return KINDS.get(signature_of(data), RawTable).from_bytes(data)


def parse_any(data: bytes | bytearray | memoryview) -> Table:
    """What `data` is, whatever it is: as `parse`, but a damaged table is an `Unparsed`, which says why.

    Bytes behind the end that the table itself names are left out; an operating system does not look at them either.
    """
    data = bytes(data)
    try:
        return parse(own_bytes(data))
    except TableError as error:
        return Unparsed(data=data, why=error)


def own_bytes(data: bytes) -> bytes:
    """As much of `data` as the table says it has; all of it if its length field cannot be right."""
    least = 20 if data[:8] == RSDP_SIGNATURE else 8 if data[:4] == b"FACS" else HEADER_SIZE
    try:
        size = _size(data, 0)
    except TableError:
        return data
    return data[:size] if least <= size <= len(data) else data


def split_file(data: bytes | bytearray | memoryview) -> list[bytes]:
    """The tables in a file, whole or not: one or several binary ones, with zeros between them, or text.

    Text is acpidump's, hexadecimal (xxd, hexdump -C, acpiview, digits alone) or C arrays, also in gzip, UTF-16, with
    marks of quotation or a log's times before each line.

    A binary table reaches as far as its header says; one that says more than there is takes what is left.

    Raises:
        TableError: there is no table in it, or something else between two (`entries_of` gives the tables all the same).
    """
    entries, faults = entries_of(data)
    if faults:
        raise faults[0]
    return [entry.data for entry in entries]


def entries_of(data: bytes | bytearray | memoryview) -> tuple[list[acpidump.Entry], list[TableError]]:
    """All tables in a file, with the addresses that acpidump's text has of them, and what else is in it.

    What is no table is passed over, up to the next bytes that are one, and named in the second list; offsets there
    count from the start of the file. If there is no table at all that list has one item, which says what the file is.
    """
    try:
        data = texts.unpacked(bytes(data))
    except AcpiError as error:
        return [], [TableError(f"not an ACPI table: {error}", offset=0, field="signature")]
    kind = what(data)
    if data[:8] != RSDP_SIGNATURE and (texts.is_utf16(data) or is_text(data) or acpidump.looks_like(data)):
        text = texts.plain(data)
        if acpidump.looks_like(text):
            entries, faults = acpidump.scan(text)
            return entries, [TableError(str(fault), signature="acpidump text") for fault in faults]
        if (shown := _shown(text, kind)) is not None:
            return shown
    if kind:
        return [], [TableError(f"not an ACPI table: {kind}", offset=0, field="signature")]
    return _binary(data)


def parse_file(data: bytes | bytearray | memoryview) -> list[Table]:
    """The tables in a file, as `split_file` finds them; one that is damaged is an `Unparsed` among the others.

    Raises:
        TableError: there is none, or something else between two.
    """
    return [parse_any(table) for table in split_file(data)]


def _shown(text: bytes, kind: str) -> tuple[list[acpidump.Entry], list[TableError]] | None:
    """The tables that a text shows byte by byte; None if it shows none."""
    if kind in SOURCES or not is_text(text):
        return None
    tables: list[acpidump.Entry] = []
    faults: list[TableError] = []
    for data in texts.binaries(text):
        if like_a_signature(data[:4]) or data[:8] == RSDP_SIGNATURE:
            found, wrong = _binary(data)
            tables += found
            faults += (TableError(f"in the bytes of the text: {each.message}", offset=each.offset) for each in wrong)
        if len(tables) + len(faults) > acpidump.MAX_TABLES:
            del tables[acpidump.MAX_TABLES :], faults[acpidump.MAX_TABLES :]
            faults.append(TableError(f"more than {acpidump.MAX_TABLES} tables in the text"))
            break
    return (tables, faults) if tables else None


def _binary(data: bytes) -> tuple[list[acpidump.Entry], list[TableError]]:
    tables: list[acpidump.Entry] = []
    faults: list[TableError] = []
    sums = _Sums(data)
    at = 0
    while at < len(data):
        if data[at] == 0 and tables:
            at += 1
            continue
        if len(tables) >= acpidump.MAX_TABLES:
            faults.append(TableError(f"more than {acpidump.MAX_TABLES} tables", offset=at, field="signature"))
            break
        try:
            size = _size(data, at)
            if not like_a_signature(data[at : at + 4]) and not sums.right(at, size):
                kind = what(data[at : at + _LOOK])
                raise TableError(f"not an ACPI table{kind and f': {kind}'}", offset=at, field="signature")
        except TableError as error:
            faults.append(error)
            following = sums.table(at + 1, len(data))
            if following is None:
                break
            at = following
            continue
        # A table whose length is wrong must not swallow those behind it.
        if not sums.right(at, size) and (following := sums.table(at + 4, min(at + size, len(data)))) is not None:
            size = following - at
        tables.append(acpidump.Entry(data[at : at + size]))
        at += size
    return tables, faults


class _Sums:
    """Looks for whole tables in bytes. What it adds up is bounded, whatever the bytes are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = _MAX_SUMMED

    def right(self, at: int, size: int) -> bool:
        """Whether the checksum of the table at `at` is right; if there was too much to add up, it is taken for it."""
        self._budget -= size
        return self._budget < 0 or not checksum(self._data[at : at + size])

    def table(self, start: int, end: int) -> int | None:
        """Where, from `start` to before `end`, the next table with a right length and checksum begins."""
        for match in _SIGNATURE.finditer(self._data, start, end):
            at = match.start()
            size = int.from_bytes(self._data[at + 4 : at + 8], "little")
            if HEADER_SIZE <= size <= len(self._data) - at and self._budget >= size and self.right(at, size):
                return at
        return None


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
    if len(head) < (8 if name == "FACS" else HEADER_SIZE):
        raise TableError(
            f"cut short: {len(head)} bytes are no table", signature=name, offset=at + len(head), field="length"
        )
    size = int.from_bytes(head[4:8], "little")
    return size if 8 <= size <= MAX_SIZE else len(data) - at
