"""Each field of a status block: where it stands in its bytes, and of which bytes it tells.

A length, a count, an offset tell of something: malforming it well needs to know of what.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from qemu_sdei.ras.block import BLOCK, Block
from qemu_sdei.ras.entry import ENTRY, Entry
from qemu_sdei.ras.fields import Bits, Field, Kind
from qemu_sdei.ras.items import Choice, Extent, Many
from qemu_sdei.ras.structure import Structure, Table

Range = tuple[int, int]
_LENGTH: Final = re.compile(r"\b(?:length|size)\b", re.IGNORECASE)
_OFFSET: Final = re.compile(r"\boffset\b", re.IGNORECASE)
_REVISION: Final = re.compile(r"\b(?:revision|version)\b", re.IGNORECASE)


class Role(Enum):
    """What a field is for a reader."""

    LENGTH = "length"
    COUNT = "count"
    OFFSET = "offset"
    REVISION = "revision"
    GUID = "GUID"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Spot:
    """One field, or the bits of one that count something. All places are bytes from the start of the block."""

    path: str
    """Such as `section[0].error_information[1].length`."""
    field: Field
    at: int
    """Where it stands."""
    role: Role
    structure: int
    """Where the structure that it is in begins: offsets count from there."""
    told: Range
    """The bytes that it tells of; empty: none."""
    least: int
    """The smallest value that is right for a reader that looks at nothing else."""
    end: int
    """Where the section, the entry or the block ends that it is in."""
    entry: int | None = None
    """Number of the entry that it is in; None: the block's head."""
    bits: Bits | None = None
    middle: int | None = None
    """The middle of what it tells of, where that is not half of its bytes."""

    @property
    def cut(self) -> int:
        """Where bytes must end so that half of what it tells of is there; of one that tells of nothing: half of it."""
        if self.middle is not None:
            return self.middle
        start, end = self.told
        return (start + end) // 2 if end > start else self.at + self.field.size // 2

    @property
    def top(self) -> int:
        """The largest number that it can hold."""
        return self.bits.top if self.bits is not None else (1 << 8 * self.field.size) - 1

    def number(self, data: bytes | bytearray) -> int:
        """Its bytes in `data` as a number."""
        whole = int.from_bytes(data[self.at : self.at + self.field.size], "little")
        return whole if self.bits is None else self.bits.of(whole)

    def put(self, data: bytearray, number: int) -> None:
        """Have its bytes in `data` be that number."""
        size = self.field.size
        if self.bits is not None:
            number = self.bits.put(int.from_bytes(data[self.at : self.at + size], "little"), number)
        data[self.at : self.at + size] = number.to_bytes(size, "little")


def spots(block: Block) -> Iterator[Spot]:
    """Each field of a block that is well-formed, in the order of its bytes."""
    bounds = list(_bounds(block))
    yield from _head(block, bounds)
    for number, (each, (start, body, end)) in enumerate(zip(block.entries, bounds, strict=True)):
        path = f"entry[{number}]"
        for spot in _fields(each.head, path, start, end, number):
            yield _of_section(spot, each, body, end) if spot.path == f"{path}.error_data_length" else spot
        yield from _fields(each.section.body, f"section[{number}]", body, end, number)


def _bounds(block: Block) -> Iterator[tuple[int, int, int]]:
    """Where each entry begins, where its section does, and where both end."""
    at = BLOCK.fixed_size
    for each in block.entries:
        body = at + len(each.head.pack())
        end = body + len(each.section.pack())
        yield at, body, end
        at = end


def _head(block: Block, bounds: list[tuple[int, int, int]]) -> Iterator[Spot]:
    whole = len(block.pack())
    none = (BLOCK.fixed_size, BLOCK.fixed_size)
    last = (bounds[-1][0], bounds[-1][2]) if bounds else none
    middle = sum(bounds[-1][1:]) // 2 if bounds else None
    raw = int(block.head["raw_data_offset"])
    raws = (raw, raw + int(block.head["raw_data_length"])) if raw else none
    for spot in _fields(block.head, "", 0, whole, None):
        if spot.path == "block_status":
            yield spot
            count = spot.field.word_for({})
            assert count is not None
            yield replace(
                spot,
                path="block_status.error_data_entry_count",
                bits=count["error_data_entry_count"],
                role=Role.COUNT,
                told=last,
                end=last[1],
                middle=middle,
            )
        elif spot.path == "data_length":
            told = (none[0], last[1])
            yield replace(spot, told=told, least=ENTRY.fixed_size, middle=middle)
        elif spot.path.startswith("raw_"):
            yield replace(spot, told=raws, least=BLOCK.fixed_size if spot.role is Role.OFFSET else 1)
        else:
            yield spot


def _of_section(spot: Spot, each: Entry, body: int, end: int) -> Spot:
    return replace(spot, told=(body, end), least=max(each.section.kind.table.fixed_size, 1))


def _fields(structure: Structure, path: str, at: int, end: int, entry: int | None) -> Iterator[Spot]:
    """The fields of a structure that begins at `at`, and of those in it."""
    own = (at, at + len(structure.pack()))
    inside = {item.name: (at + offset, value) for item, value, offset in structure.items()}
    for item, value, offset in structure.items():
        name = f"{path}.{item.name}" if path else item.name
        where = at + offset
        if isinstance(item, Field):
            role = _role(structure.table, item)
            told, least = _told(structure, item, role, own, inside)
            yield Spot(name, item, where, role, at, told, least, end, entry)
        elif isinstance(item, Many):
            for number, each in enumerate(value):
                yield from _fields(each, f"{name}[{number}]", where, end, entry)
                where += len(each.pack())
        elif isinstance(value, Structure):
            yield from _fields(value, name, where, end, entry)


def _role(table: Table, item: Field) -> Role:
    if item.kind is Kind.GUID:
        return Role.GUID
    if item.auto is not None:
        return {"count": Role.COUNT, "offset": Role.OFFSET}.get(item.auto.what, Role.LENGTH)
    if any(isinstance(other, Many) and other.count == item.name for other in table.items):
        return Role.COUNT
    if item.kind is Kind.NUMBER and not item.reserved:
        for role, words in ((Role.OFFSET, _OFFSET), (Role.LENGTH, _LENGTH), (Role.REVISION, _REVISION)):
            if words.search(item.title):
                return role
    return Role.OTHER


def _told(
    structure: Structure, item: Field, role: Role, own: Range, inside: dict[str, tuple[int, Any]]
) -> tuple[Range, int]:
    """The bytes that a field tells of, and the least that it can say."""
    table = structure.table
    least = table.fixed_size if role is Role.OFFSET else 1
    if item.auto is None:
        return (own[0], own[0]), least
    if not item.auto.of:
        return own, table.fixed_size
    if item.auto.of not in inside:
        return (own[0], own[0]), least
    start, value = inside[item.auto.of]
    of = table.by_name[item.auto.of]
    if role is Role.COUNT and isinstance(value, tuple):
        sizes = [len(each.pack()) for each in value]
        start += sum(sizes[:-1])
        return (start, start + sum(sizes[-1:])), least
    size = sum(len(each.pack()) for each in value) if isinstance(value, tuple) else _size(value)
    if role is Role.LENGTH and isinstance(of, Extent):
        inner = of.table_for(structure.values) if isinstance(of, Choice) else None
        least = max(inner.fixed_size if inner is not None else 1, 1)
    return (start, start + size), least


def _size(value: Any) -> int:
    return len(value.pack()) if isinstance(value, Structure) else len(value)
