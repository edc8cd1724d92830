"""Tables for people: printed field by field, and compared field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qemu_sdei.acpi.layout import FieldValue, Value
from qemu_sdei.acpi.parse import parse_any
from qemu_sdei.acpi.table import CHECKSUM_AT, Table
from qemu_sdei.acpi.tables.unparsed import Unparsed

Source = Table | bytes | bytearray | memoryview
_ROW: Final = 16
_SHORT: Final = 32
"""Bytes of a value that are printed in one line."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs between two tables."""

    name: str
    """Path of attribute names, such as `sources[0].notification.vector`."""
    title: str
    offset: int
    """Bytes from the start of the first table that has the field."""
    old: Value | None
    """None: the first table has no such field."""
    new: Value | None
    """None: the second table has no such field."""
    old_text: str
    """Value and meaning as they are printed; "" for a field that is not there."""
    new_text: str

    def __str__(self) -> str:
        old, new = self.old_text or "not there", self.new_text or "not there"
        if isinstance(self.old, bytes) and isinstance(self.new, bytes) and max(len(self.old), len(self.new)) > _SHORT:
            common = zip(self.old, self.new, strict=False)
            first = next((at for at, (a, b) in enumerate(common) if a != b), min(len(self.old), len(self.new)))
            place = f"the first difference is at offset {self.offset + first:#x}"
            return f"{self.name}: {len(self.old)} bytes -> {len(self.new)} bytes, {place}"
        return f"{self.name}: {old} -> {new}"


def fields(table: Source) -> list[FieldValue]:
    """Every field of a table, in the order of their offsets. Of bytes, the checksum is the one that stands there.

    Of a damaged table that are its header's, as far as they go, and one of bytes; bytes behind its end are the last.
    """
    if isinstance(table, Table):
        return list(table.fields())
    data = bytes(table)
    read = parse_any(data)
    found = [_as_it_stands(each, data) if "checksum" in each.name else each for each in read.fields()]
    if behind := data[len(read.to_bytes()) :]:
        found.append(FieldValue("behind", "Behind the Table", len(data) - len(behind), len(behind), behind))
    return found


def why_not(table: Source) -> str:
    """Why a table cannot be read field by field, for people; "" if it can."""
    read = table if isinstance(table, Table) else parse_any(table)
    return str(read.why) if isinstance(read, Unparsed) else ""


def _bytes(table: Source) -> bytes:
    return table.to_bytes() if isinstance(table, Table) else bytes(table)


def _as_it_stands(each: FieldValue, data: bytes) -> FieldValue:
    value = int.from_bytes(data[each.offset : each.offset + each.size], "little")
    wrong = each.offset == CHECKSUM_AT and value != each.value
    return FieldValue(each.name, each.title, each.offset, each.size, value, "wrong" if wrong else each.meaning)


def show(table: Source) -> str:
    """A table field by field, one line each: `[offset] Name : value`, and what the value means in words.

    Of a damaged table the first line says why it cannot be read.
    """
    found = fields(table)
    width = max((len(each.title) for each in found), default=0)
    lines = [f"cannot be read: {reason}"] if (reason := why_not(table)) else []
    for each in found:
        if isinstance(each.value, bytes) and each.size > _SHORT:
            lines.append(f"[{each.offset:#06x}] {each.title:<{width}} : {each.size} bytes")
            rows = range(0, each.size, _ROW)
            lines += [f"[{each.offset + at:#06x}]   {each.value[at : at + _ROW].hex(' ')}" for at in rows]
        else:
            lines.append(f"[{each.offset:#06x}] {each.title:<{width}} : {value_text(each)}")
    return "\n".join(lines) + "\n"


def value_text(each: FieldValue) -> str:
    """A field's value as text: numbers in hexadecimal, text in quotes, and the meaning behind it."""
    if isinstance(each.value, int):
        text = f"{each.value:#0{2 + 2 * each.size}x}"
    elif each.value.rstrip(b"\0") and all(0x20 <= byte < 0x7F for byte in each.value.rstrip(b"\0")):
        text = '"' + each.value.rstrip(b"\0").decode("ascii") + '"'
    else:
        text = each.value.hex(" ") if each.size <= _SHORT else f"{each.size} bytes"
    return f"{text} ({each.meaning})" if each.meaning else text


def compare(first: Source, second: Source, *, checksum: bool = False) -> list[Difference]:
    """The fields in which two tables differ, in their order: those of the first table, then what only the second has.

    If one of them is damaged, header and bytes of both are compared.

    Args:
        first: the old one.
        second: the new one.
        checksum: whether the checksum counts; it differs whenever anything does.
    """
    if why_not(first) or why_not(second):
        first, second = (Unparsed(data=_bytes(each)) for each in (first, second))
    old = {each.name: each for each in fields(first)}
    new = {each.name: each for each in fields(second)}
    found: list[Difference] = []
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = old.get(name), new.get(name)
        one = a or b
        if one is None or (a is not None and b is not None and a.value == b.value):
            continue
        if name.endswith("checksum") and not checksum:
            continue
        found.append(
            Difference(
                name, one.title, one.offset, None if a is None else a.value, None if b is None else b.value,
                "" if a is None else value_text(a), "" if b is None else value_text(b),
            )
        )  # fmt: skip
    return found
