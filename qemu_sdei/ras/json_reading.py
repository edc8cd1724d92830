"""Structures from the JSON that libcper writes, ours too. It is checked: the writer is not trusted."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from qemu_sdei.errors import CperError
from qemu_sdei.ras import timestamps
from qemu_sdei.ras.fields import Bits, Field, Kind, Word
from qemu_sdei.ras.items import Choice, Item, Many, Part
from qemu_sdei.ras.json_writing import DATA, PRECISE
from qemu_sdei.ras.structure import Structure, Table
from qemu_sdei.ras.taking import number_of_word


def structure(table: Table, document: Any) -> Structure:
    """The structure that an object of JSON says: what is there is valid.

    Lengths, counts and offsets are as they are said; those that are not follow from the rest.

    Raises:
        CperError: a key that is not known, or a value that cannot be.
    """
    return table.make(said(table, document))


def said(table: Table, document: Any) -> dict[str, Any]:
    """The same as what `Table.make` takes. Raises `CperError`."""
    if not isinstance(document, dict):
        raise CperError("it is not an object")
    known = set(_keys(table))
    for key in document:
        if key not in known:
            raise CperError(f"there is no {key[:60]!r} in a {table.title}")
    given: dict[str, Any] = {}
    for item in table.items:
        if getattr(item, "reserved", False) or item.name == table.validity or getattr(item, "hidden", False):
            continue
        try:
            value = _value(item, document, given)
        except CperError as error:
            raise error.below(item.key) from None
        if value is not None:
            given[item.name] = value
    return given


def _keys(table: Table) -> Iterator[str]:
    """All keys that an object of such a structure can have."""
    yield from table.derived
    for item in table.items:
        yield item.key
        yield from item.json.also
        if item.json.copy:
            yield item.json.copy
        if isinstance(item, Field):
            if item.kind is Kind.TIMESTAMP:
                yield item.key + PRECISE
            if item.json.flat and item.word is not None:
                yield from (bits.key for bits in item.word.bits)


def _value(item: Item, document: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """What the document says of an item, as `Table.make` takes it; None: nothing."""
    if isinstance(item, Field) and item.json.flat and item.word is not None:
        return (
            _bits(item.word, {bits.key: document[bits.key] for bits in item.word.bits if bits.key in document}) or None
        )
    key = next((key for key in (item.key, *item.json.also) if key in document), None)
    if key is None:
        return None
    value = document[key]
    if isinstance(item, Field):
        if item.kind is Kind.TIMESTAMP:
            return timestamps.packed(value, is_precise=document.get(item.key + PRECISE) is True)
        return _field(item, value)
    if isinstance(item, Many):
        if not isinstance(value, list):
            raise CperError("it is not a list")
        return [_element(item.table, each, number) for number, each in enumerate(value)]
    data = _data(item, value)
    if data is not None:
        return data
    if isinstance(item, Part):
        return said(item.table, value)
    if isinstance(item, Choice):
        return _choice(item, value, given)
    raise CperError("it is not base64")


def _element(table: Table, document: Any, number: int) -> dict[str, Any]:
    try:
        return said(table, document)
    except CperError as error:
        raise error.below(f"[{number}]") from None


def _field(item: Field, value: Any) -> Any:
    """What a field of fixed size is said to be."""
    if item.kind is Kind.BYTES:
        return decoded(value)
    if item.word is not None or item.words is not None:
        if not isinstance(value, dict):
            return value
        if item.json.whole and item.json.whole in value:
            return value[item.json.whole]
        for word in item.words[1].values() if item.words is not None else ():
            if word.key and set(value) == {word.key}:
                # By its own name: libcper has other numbers for the types of Arm errors than UEFI 2.10.
                return number_of_word(item, word, _bits(word, value[word.key]))[0]
        words = [item.word] if item.word is not None else list(item.words[1].values() if item.words else ())
        return _bits(next((word for word in words if set(value) <= {b.key for b in word.bits}), words[0]), value)
    if isinstance(value, dict):
        value = value.get(item.json.value, value.get(item.json.word))
    if item.kind is Kind.NUMBER and not isinstance(value, int | str):
        raise CperError("it is not a number")
    return value


def _bits(word: Word, document: Any) -> dict[str, Any]:
    """Of the bits of a word what is said of them, by their attributes."""
    if not isinstance(document, dict):
        raise CperError("it is not an object")
    named = {bits.key: bits for bits in word.bits}
    found = {}
    for key, value in document.items():
        if key not in named:
            raise CperError(f"there is no {key[:60]!r} among its bits")
        found[named[key].name] = _bit(named[key], value)
    return found


def _bit(bits: Bits, value: Any) -> Any:
    if isinstance(value, dict):
        value = value.get(bits.json.value, value.get(bits.json.word))
    if not isinstance(value, int | str):
        raise CperError("it is neither true, false, a number nor a name", field=bits.key)
    return value


def _data(item: Item, value: Any) -> bytes | None:
    """The bytes that an item is said to be; None: it is said by its fields."""
    if isinstance(value, str):
        return decoded(value)
    member = item.json.as_bytes if item.json.as_bytes != "." else ""
    if isinstance(value, dict):
        # Libcper takes such parts from their bytes alone; what it says of them beside is for people.
        for each in (member, DATA):
            if each and isinstance(value.get(each), str):
                return decoded(value[each])
    return None


def _choice(item: Choice, value: Any, given: Mapping[str, Any]) -> Structure | bytes:
    """The structure that is chosen by another field; if that does not know the keys, one that does."""
    first = item.tables.get(given.get(item.by, 0) if item.by else 0)
    tables = [table for table in (first, *item.tables.values()) if table is not None]
    if not isinstance(value, dict) or not tables:
        raise CperError("it is neither base64 nor an object")
    fits = next((table for table in tables if set(value) <= set(_keys(table))), tables[0])
    made = structure(fits, value)
    # Of another structure than it is said to be only the bytes can be kept.
    return made if fits is first else made.pack()


def decoded(text: Any) -> bytes:
    """The bytes of base64, with or without line ends in it. Raises `CperError`."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (AttributeError, ValueError):
        raise CperError("it is not base64") from None
