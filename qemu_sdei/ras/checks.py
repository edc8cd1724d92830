"""What is wrong with a record that can be read: by its tables, and by what its heads say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from qemu_sdei.ras import timestamps
from qemu_sdei.ras.block import Block
from qemu_sdei.ras.entry import Entry
from qemu_sdei.ras.fields import Field, Kind
from qemu_sdei.ras.items import Many
from qemu_sdei.ras.json_writing import text_of
from qemu_sdei.ras.record import Record
from qemu_sdei.ras.severity import NAMES, uncorrected, worst
from qemu_sdei.ras.structure import Structure


class Level(Enum):
    """How bad a fault is."""

    ERROR = "error"
    """A reader may refuse the record, or read something else than was meant."""
    WARNING = "warning"
    """The specification does not allow it, or gives it no meaning."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault."""

    level: Level
    field: str
    """Its path, such as `sections[0].error_information[1].type`."""
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.level.value, self.field, self.message)))


def check(found: Record | Block) -> list[Finding]:
    """All faults of a record or a status block, in the order of its fields."""
    own, heads = ("", "entries") if isinstance(found, Block) else ("header", "sectionDescriptors")
    out = list(structure_faults(found.head, own))
    for number, each in enumerate(found.entries):
        out += structure_faults(each.head, f"{heads}[{number}]")
        out += _head_faults(each, f"{heads}[{number}]")
        out += structure_faults(each.section.body, f"sections[{number}]")
    out += _block_faults(found) if isinstance(found, Block) else _record_faults(found)
    return out


def structure_faults(structure: Structure, path: str) -> Iterator[Finding]:
    """Faults of one structure, and of those in it."""
    places = {item.name: (at, _size(value)) for item, value, at in structure.items()}
    short = any(isinstance(item, Field) and item.name not in structure.values for item in structure.table.items)
    for item, value, _ in structure.items():
        name = f"{path}.{item.name}" if path else item.name
        if isinstance(item, Field):
            yield from _field_faults(structure, item, value, name)
            if item.auto is not None and not short:
                yield from _automatic_faults(structure, item, value, name, places)
        elif isinstance(item, Many):
            for number, each in enumerate(value):
                yield from structure_faults(each, f"{name}[{number}]")
        elif isinstance(value, Structure) and structure.valid(item):
            yield from structure_faults(value, name)


def _size(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(len(each.pack()) for each in value)
    return len(value.pack()) if isinstance(value, Structure) else len(value) if isinstance(value, bytes) else 0


def _field_faults(structure: Structure, item: Field, value: Any, name: str) -> Iterator[Finding]:
    if item.reserved:
        if value != item.zero:
            yield Finding(Level.WARNING, name, "reserved bytes are not 0")
        return
    if not structure.valid(item) and not structure.partly_valid(item):
        return
    if item.names and not item.meaning(value):
        yield Finding(Level.WARNING, name, f"{value} has no meaning")
    if item.kind is Kind.TIMESTAMP and not timestamps.text(value):
        yield Finding(Level.WARNING, name, f"{value.hex()} is no time in BCD")
    if item.kind is Kind.TEXT and text_of(value) is None:
        yield Finding(Level.WARNING, name, "it is no printable ASCII that is filled up with zeroes")
    word = item.word_for(structure.values)
    if word is None:
        return
    known = 0
    for bits, number, valid in structure.bits(item):
        known |= bits.top << bits.low
        if bits.reserved:
            if number:
                yield Finding(Level.WARNING, name, f"reserved bits are {number:#x}")
        elif bits.names and valid and number not in bits.names:
            yield Finding(Level.WARNING, f"{name}.{bits.name}", f"{number} has no meaning")
    if value & ~known and not word.partial:
        yield Finding(Level.WARNING, name, f"bits {value & ~known:#x} have no meaning")


def _automatic_faults(
    structure: Structure, item: Field, value: int, name: str, places: dict[str, tuple[int, int]]
) -> Iterator[Finding]:
    """A count, length or offset that is not that of what is there."""
    assert item.auto is not None
    start, size = places.get(item.auto.of, (0, 0))
    if item.auto.what == "count":
        actual = len(structure.values.get(item.auto.of, ()))
    elif item.auto.what == "end":
        actual = len(structure.pack()) if not item.auto.of else start + size
    else:
        actual = start if item.auto.what == "offset" else size
    if value != actual:
        yield Finding(Level.ERROR, name, f"it is {value}, and should be {actual}")


def _head_faults(each: Entry, path: str) -> Iterator[Finding]:
    if each.severity not in NAMES:
        return  # a value without a meaning is said already
    size = len(each.section.pack())
    for name in ("error_data_length", "section_length"):
        if name in each.head.values and each.head[name] != size:
            yield Finding(Level.ERROR, f"{path}.{name}", f"it is {each.head[name]}, and the section has {size} bytes")


def _block_faults(found: Block) -> Iterator[Finding]:
    count = len(found.entries)
    if found.count != count:
        yield Finding(Level.ERROR, "block_status", f"it counts {found.count} entries, and there are {count}")
    if not count:
        yield Finding(Level.WARNING, "block_status", "there is no entry: Linux takes it for no error")
        return
    status = found.head["block_status"]
    if uncorrected(found.severity) and not status & 1:
        yield Finding(Level.WARNING, "block_status", "the error is uncorrected, and the bit that says so is not set")
    yield from _severity_faults(found, "error_severity")


def _severity_faults(found: Record | Block, name: str) -> Iterator[Finding]:
    expected = worst(*(each.severity for each in found.entries))
    if found.entries and found.severity in NAMES and found.severity != expected:
        words = NAMES[found.severity].lower(), NAMES[expected].lower()
        yield Finding(Level.WARNING, name, f"it is {words[0]}, and the worst section is {words[1]}")


def _record_faults(found: Record) -> Iterator[Finding]:
    if found.head["section_count"] != len(found.entries):
        yield Finding(
            Level.ERROR, "header.section_count",
            f"it is {found.head['section_count']}, and there are {len(found.entries)}",
        )  # fmt: skip
    yield from _severity_faults(found, "header.error_severity")
    placed = sorted(
        (each.head["section_offset"], each.head["section_length"], number) for number, each in enumerate(found.entries)
    )
    heads = len(found.head.pack()) + sum(len(each.head.pack()) for each in found.entries)
    end, before = heads, "the descriptors"
    for start, size, number in placed:
        if start < end:
            yield Finding(Level.ERROR, f"sectionDescriptors[{number}].section_offset", f"it overlaps {before}")
        end, before = max(end, start + size), f"section {number}"
    for at, data in found.others:
        yield Finding(Level.WARNING, "", f"{len(data)} bytes at {at:#x} are in no section")
