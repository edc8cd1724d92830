"""Structures as libcper writes them in JSON: what is valid is there, what is not is left out."""

from __future__ import annotations

import base64
from typing import Any, Final

from qemu_sdei.ras import timestamps
from qemu_sdei.ras.fields import Bits, Field, Kind
from qemu_sdei.ras.items import Extent, Item, Many
from qemu_sdei.ras.structure import Structure

UNKNOWN: Final = "Unknown"
DATA: Final = "data"
"""The member that bytes stand under where nothing else is said."""
PRECISE: Final = "IsPrecise"
"""Behind the key of a timestamp: whether it is the time of the error itself."""


def written(structure: Structure) -> dict[str, Any]:
    """A structure as an object of JSON. What it does not say: reserved bits, and fields that are not valid."""
    out: dict[str, Any] = {}
    for item, value, _ in structure.items():
        left_out = item.json.unsaid or (item.json.when and not structure.values[item.json.when])
        if item.name == structure.table.validity or left_out:
            continue
        if isinstance(item, Field):
            if not item.reserved:
                _field(out, structure, item, value)
        elif structure.valid(item) and not getattr(item, "hidden", False):
            out[item.key] = _part(item, value)
    return out


def base64_text(data: bytes) -> str:
    """Base64 in one line."""
    return base64.b64encode(data).decode("ascii")


def text_of(data: bytes) -> str | None:
    """The text of a field of text; None: there is none that would give the same bytes."""
    shown = data.rstrip(b"\0")
    return shown.decode("ascii") if shown.isascii() and (not shown or shown.decode("ascii").isprintable()) else None


def _field(out: dict[str, Any], structure: Structure, item: Field, value: Any) -> None:
    """Add a field to its object."""
    valid = structure.valid(item)
    if item.word_for(structure.values) is not None:
        _bits(out, structure, item, value, valid)
    elif not valid:
        return
    elif item.kind is Kind.TIMESTAMP:
        if words := timestamps.text(value):
            out[item.key] = words
            out[item.key + PRECISE] = timestamps.precise(value)
    elif item.kind is Kind.TEXT:
        if (words_or_none := text_of(value)) is not None:
            out[item.key] = words_or_none
    elif item.kind is Kind.BYTES:
        out[item.key] = base64_text(value)
    elif item.kind is Kind.GUID:
        named = item.guids or item.json.value != "value"
        shown = str(value)
        out[item.key] = {item.json.value: shown, item.json.word: item.meaning(value) or UNKNOWN} if named else shown
    else:
        out[item.key] = _number(item, value, item.size)
        if item.json.copy:
            out[item.json.copy] = _hexadecimal(value, item.size)


def _hexadecimal(value: int, size: int) -> str:
    return f"0x{value:0{2 * size}X}"


def _number(item: Field, value: int, size: int) -> Any:
    if item.names:
        return {item.json.value: value, item.json.word: item.meaning(value) or UNKNOWN}
    return _hexadecimal(value, size) if item.json.hexadecimal else value


def _bits(out: dict[str, Any], structure: Structure, item: Field, value: int, valid: bool) -> None:
    """Add a field of which the bits have names."""
    if not valid and not item.json.whole:
        return
    word = item.word_for(structure.values)
    assert word is not None
    found = {
        bits.key: _bit(bits, number)
        for bits, number, is_valid in structure.bits(item)
        if is_valid and not bits.reserved and bits.name != word.validity
    }
    if item.json.whole and valid:
        found = {item.json.whole: value}
    if item.json.flat:
        out.update(found)
    elif found or (item.valid is not None and valid):
        out[item.key] = {word.key: found} if word.key else found


def _bit(bits: Bits, value: int) -> Any:
    name = bits.names.get(value, UNKNOWN)
    if bits.json.word_only:
        return name
    if bits.names:
        note = {bits.json.note: bits.notes[value]} if bits.json.note and value in bits.notes else {}
        return {bits.json.value: value, **note, bits.json.word: name}
    return bool(value) if bits.width == 1 else value


def _part(item: Item, value: Any) -> Any:
    if isinstance(item, Many):
        return [written(each) for each in value]
    member = item.json.as_bytes or (DATA if isinstance(value, bytes) else "")
    data = base64_text(value if isinstance(value, bytes) else value.pack()) if member else ""
    if member == ".":
        return data
    shown = {} if isinstance(value, bytes) else written(value)
    assert not isinstance(item, Extent) or not item.hidden
    return {member: data, **shown} if member else shown
