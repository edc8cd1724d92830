"""Records for people: a line for each field that is valid, numbers with their names."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from qemu_sdei.printable import printable
from qemu_sdei.ras import timestamps
from qemu_sdei.ras.block import Block
from qemu_sdei.ras.entry import Entry
from qemu_sdei.ras.fields import Bits, Field, Kind
from qemu_sdei.ras.items import Item, Many
from qemu_sdei.ras.json_writing import text_of
from qemu_sdei.ras.record import Record
from qemu_sdei.ras.severity import NAMES
from qemu_sdei.ras.structure import Structure
from qemu_sdei.ras.summary import summary

_WIDTH: Final = 79
_ROW: Final = 16
"""Bytes of a line."""
_INDENT: Final = "  "
_NOT_VALID: Final = "  (not valid)"
_TITLES: Final = 40
"""Columns of titles, at most."""


def printed(found: Record | Block) -> str:
    """A record or a status block as lines of up to 80 columns."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Record | Block) -> Iterator[str]:
    count = len(found.entries)
    what = "section" if isinstance(found, Record) else "entry"
    many = {"section": "sections", "entry": "entries"}[what] if count != 1 else what
    yield f"{found.head.table.title}: {_severity(found.severity)}, {count} {many}"
    yield from structure_lines(found.head, _INDENT)
    for number, each in enumerate(found.entries):
        yield ""
        yield f"{what.capitalize()} {number}: {_severity(each.severity)}"
        yield from _entry_lines(each)
    if isinstance(found, Block) and found.rest.strip(b"\0"):
        yield ""
        yield f"Behind the entries: {_bytes(found.rest)}"
        yield from _rows(found.rest.rstrip(b"\0"), _INDENT)


def _entry_lines(each: Entry) -> Iterator[str]:
    kind = each.section.kind
    yield from structure_lines(each.head, _INDENT, {"section_type": printable(kind.label)})
    said = printable(summary(each.section))
    yield from textwrap.wrap(said, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT * 3)
    yield from structure_lines(each.section.body, _INDENT * 2)


def _severity(value: int) -> str:
    return NAMES.get(value, f"severity {value:#x}").lower()


def structure_lines(structure: Structure, indent: str, names: dict[str, str] | None = None) -> Iterator[str]:
    """Its fields, those of inner structures below them.

    Args:
        structure: what is printed.
        indent: in front of each line.
        names: what the values of fields are called, where the table does not know it.
    """
    shown = [(item, value) for item, value, _ in structure.items() if _is_shown(structure, item, value)]
    width = max((len(item.title) for item, _ in shown if isinstance(item, Field)), default=0)
    width = min(width, _TITLES) + 2
    for item, value in shown:
        behind = "" if structure.valid(item) or structure.partly_valid(item) else _NOT_VALID
        if isinstance(item, Field):
            yield from _field(structure, item, value, indent, width, behind, (names or {}).get(item.name, ""))
        elif isinstance(item, Many):
            for number, each in enumerate(value):
                yield f"{indent}{item.title} {number}{behind}"
                yield from structure_lines(each, indent + _INDENT)
        elif isinstance(value, Structure):
            named = value.table.title if value.table.title != item.title else ""
            yield f"{indent}{item.title}{': ' + named if named else ''}{behind}"
            yield from structure_lines(value, indent + _INDENT)
        else:
            yield f"{indent}{item.title}: {_bytes(value)}{behind}"
            yield from _rows(value, indent + _INDENT)
    if structure.tail:
        yield f"{indent}Then {_bytes(structure.tail)}"
        yield from _rows(structure.tail, indent + _INDENT)


def _is_shown(structure: Structure, item: Item, value: Any) -> bool:
    """Whether there is something to say: it is valid, or not what it is where nobody says anything."""
    if isinstance(item, Field):
        if item.reserved or not (structure.valid(item) or structure.partly_valid(item)):
            return bool(value != item.zero)
        return True
    if isinstance(value, Structure):
        return structure.valid(item) or any(value.pack())
    return bool(value)


def _field(
    structure: Structure, item: Field, value: Any, indent: str, width: int, behind: str, name: str
) -> Iterator[str]:
    start = f"{indent}{item.title:<{width}}"
    if item.kind is Kind.BYTES and len(value) > _ROW:
        yield f"{indent}{item.title}: {_bytes(value)}{behind}"
        yield from _rows(value, indent + _INDENT)
        return
    flags, others = ("", []) if item.name == structure.table.validity else _bits(structure, item)
    text = plain(item, value)
    if item.word is not None and item.word.joined:
        text = item.word.joined.join(str(number) for _, number, _ in structure.bits(item))
        others = []
    if name or item.meaning(value):
        text += f" ({name or item.meaning(value)})"
    yield from _wrapped(start, text + (f" {flags}" if flags else "") + behind, indent)
    for bits, number in others:
        yield f"{indent}{_INDENT}{bits.title}: {_bit(bits, number)}"


def _wrapped(start: str, text: str, indent: str) -> Iterator[str]:
    """One line, or where that is too long, lines below it."""
    if len(start) + len(text) <= _WIDTH or " " not in text:
        yield start + text
        return
    first, _, more = text.partition(" ")
    yield start + first
    yield from textwrap.wrap(more, _WIDTH, initial_indent=indent + _INDENT, subsequent_indent=indent + _INDENT)


def plain(item: Field, value: Any) -> str:
    """A field's value without its name: addresses in hexadecimal, text in quotes."""
    if item.kind is Kind.TIMESTAMP:
        words = timestamps.text(value)
        return words + (" (precise)" if timestamps.precise(value) else "") if words else value.hex(" ")
    if item.kind is Kind.TEXT:
        shown = text_of(value)
        return (
            f'"{printable(shown)}"' if shown is not None else str(value.hex(" ") if len(value) <= _ROW else value.hex())
        )
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, int):
        return f"{value:#0{2 + 2 * item.size}x}" if item.hexadecimal else str(value)
    return str(value)


def _bits(structure: Structure, item: Field) -> tuple[str, list[tuple[Bits, int]]]:
    """The flags that are set, and the bits that are more than flags."""
    flags, others = [], []
    word = item.word_for(structure.values)
    masks = {word.validity} if word is not None else set()
    for bits, number, valid in structure.bits(item):
        if bits.name in masks or not valid or (bits.reserved and not number):
            continue
        if bits.width == 1 and bits.valid is None and not bits.names:
            flags += [bits.title] if number else []
        elif number or bits.valid is not None or not bits.reserved:
            others.append((bits, number))
    return f"({', '.join(flags)})" if flags else "", others


def _bit(bits: Bits, number: int) -> str:
    name = bits.names.get(number, "")
    if bits.width == 1 and not name:
        return "yes" if number else "no"
    note = bits.notes.get(number, "")
    shown = f"{number:#x}" if bits.hexadecimal else str(number)
    return shown + (f" ({name}{': ' + note if note else ''})" if name else "")


def _bytes(data: bytes) -> str:
    return f"{len(data)} byte{'s' if len(data) != 1 else ''}"


def _rows(data: bytes, indent: str) -> Iterator[str]:
    for at in range(0, len(data), _ROW):
        yield f"{indent}{at:#06x}  {data[at : at + _ROW].hex(' ')}"
