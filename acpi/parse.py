"""From bytes to tables: one, or all that are in a file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.acpi.errors import AcpiError, TableError
from qemu_sdei.acpi.formats import acpidump, rows, texts
from qemu_sdei.acpi.formats.acpidump import Entry
from qemu_sdei.acpi.kinds import SOURCES, is_text, like_a_signature, what
from qemu_sdei.acpi.table import HEADER_SIZE, MAX_SIZE, Table, checksum, signature_of
from qemu_sdei.acpi.tables import KINDS
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.tables.root import RSDP_SIGNATURE, Rsdp
from qemu_sdei.acpi.tables.unparsed import Unparsed

_SIGNATURE: Final = re.compile(rb"(?=[A-Z][A-Z0-9_]{2}[A-Z0-9_!].{3}\0)", re.S)
_MAX_SUMMED: Final = 64 << 20
"""Bytes that are added up in search of tables in one file."""
_LOOK: Final = 4096
"""Bytes that are looked at to say what something is."""


def parse(data: bytes | bytearray | memoryview) -> Table:
    """The one table that `data` is: a class of `qemu_sdei.acpi.tables`, `RawTable` if there is none for it.

    The checksum is not looked at (`qemu_sdei.acpi.verify` does).

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


@dataclass(slots=True)
class Reading:
    """What a file of tables has."""

    entries: list[Entry] = field(default_factory=list)
    """The tables, whole or not, with the addresses that a dump has of them."""
    faults: list[TableError] = field(default_factory=list)
    """What else is in it; if there is no table, one item that says what the file is."""
    notes: list[str] = field(default_factory=list)
    """In what form it came, for people: `quoted mail, 12 lines`. Nothing of a file as it should be."""


def entries_of(data: bytes | bytearray | memoryview) -> tuple[list[Entry], list[TableError]]:
    """All tables in a file, with the addresses that acpidump's text has of them, and what else is in it.

    What is no table is passed over, up to the next bytes that are one, and named in the second list; offsets there
    count from the start of the file. If there is no table at all that list has one item, which says what the file is.
    """
    found = read(data)
    return found.entries, found.faults


def read(data: bytes | bytearray | memoryview) -> Reading:
    """As `entries_of`, with what was tolerated."""
    reading = Reading()
    raw = bytes(data)
    try:
        data = texts.unpacked(raw)
    except AcpiError as error:
        return Reading(faults=[TableError(f"not an ACPI table: {error}", offset=0, field="signature")])
    if data != raw:
        reading.notes.append("gzip")
    kind = what(data)
    if data[:8] != RSDP_SIGNATURE and (texts.is_utf16(data) or is_text(data) or acpidump.looks_like(data)):
        text, surrounds = texts.plain(data)
        found = _of_text(text, what(text) if surrounds else kind)
        if found is not None:
            found.notes = reading.notes + surrounds + found.notes
            return found
    if kind:
        return Reading(faults=[TableError(f"not an ACPI table: {kind}", offset=0, field="signature")])
    reading.entries, reading.faults = _binary(data)
    return reading


def _of_text(text: bytes, kind: str) -> Reading | None:
    """The tables of a text; None if it has none.

    acpidump's own text is read strictly; only where that finds a fault is it looked at as rows of any dump.
    """
    strict: Reading | None = None
    if acpidump.looks_like(text):
        entries, wrong = acpidump.scan(text)
        strict = Reading(entries, [TableError(str(fault), signature="acpidump text") for fault in wrong])
        if entries and not wrong and all(rows.sound(entry.data) for entry in entries):
            return strict
    if kind in SOURCES:
        return strict
    shown = rows.read(text.decode("latin-1"))
    if strict is not None:
        if strict.entries and (
            shown.faults
            or len(shown.entries) < len(strict.entries)
            or not all(rows.sound(entry.data) for entry in shown.entries)
        ):
            return strict
        if not shown.entries and not shown.faults:
            return strict
        shown.notes.append("an acpidump whose lines are not as acpidump writes them")
    elif not shown.entries and not shown.faults:
        shown = texts.without_offsets(text)
    return _taken(shown)


def _taken(shown: rows.Shown) -> Reading | None:
    """The tables in the bytes that a text shows; None if it shows none."""
    found = Reading(notes=shown.notes, faults=[TableError(fault, signature="text") for fault in shown.faults])
    for entry in shown.entries:
        tables, wrong = _binary(entry.data)
        if tables and entry.address:
            tables[0] = (
                entry if len(tables) == 1 and tables[0].data == entry.data else Entry(tables[0].data, entry.address)
            )
        found.entries += tables
        found.faults += (TableError(f"in the bytes of the text: {each.message}", offset=each.offset) for each in wrong)
        if len(found.entries) + len(found.faults) > acpidump.MAX_TABLES:
            del found.entries[acpidump.MAX_TABLES :], found.faults[acpidump.MAX_TABLES :]
            found.faults.append(TableError(f"more than {acpidump.MAX_TABLES} tables in the text"))
            break
    return found if found.entries or found.faults else None


def parse_file(data: bytes | bytearray | memoryview) -> list[Table]:
    """The tables in a file, as `split_file` finds them; one that is damaged is an `Unparsed` among the others.

    Raises:
        TableError: there is none, or something else between two.
    """
    return [parse_any(table) for table in split_file(data)]


def _binary(data: bytes) -> tuple[list[Entry], list[TableError]]:
    tables: list[Entry] = []
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
        tables.append(Entry(data[at : at + size]))
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
