"""Sections of vendors, described in a TOML file; `qemu_sdei/data/ras/example-sram.toml` is one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from qemu_sdei.errors import CperError
from qemu_sdei.printable import printable
from qemu_sdei.ras.fields import Auto, Bits, Field, Json, Kind, Word, attribute
from qemu_sdei.ras.items import Extent, Item
from qemu_sdei.ras.kinds import SectionKind
from qemu_sdei.ras.structure import Table

MAX_FILE_SIZE: Final = 1 << 20
_MAX_FIELDS: Final = 1024
_MAX_FIELD_SIZE: Final = 1 << 16
_MAX_NAME: Final = 80
_KINDS: Final = {
    "number": Kind.NUMBER,
    "guid": Kind.GUID,
    "text": Kind.TEXT,
    "bytes": Kind.BYTES,
    "time": Kind.TIMESTAMP,
}
_SIZES: Final = {Kind.GUID: 16, Kind.TIMESTAMP: 8}
_SECTION_KEYS: Final = {"name", "title", "guid", "json", "source", "validation", "headline"}
_FIELD_KEYS: Final = {
    "title", "size", "kind", "valid", "names", "bits", "hexadecimal", "reserved", "length", "length_of", "json",
}  # fmt: skip
_BIT_KEYS: Final = {"title", "low", "width", "names", "valid", "reserved", "hexadecimal", "json"}
_TAKEN: Final = {"message", "otherBytes", "Unknown"}
"""Members of a section in JSON that are not its kind."""
_NAME: Final = re.compile(r"[a-z][a-z0-9-]*")


def described(data: bytes, where: str = "the file") -> SectionKind:
    """The kind of section that a TOML file describes.

    Args:
        data: the file, up to `MAX_FILE_SIZE` bytes.
        where: its name, for errors.

    Raises:
        CperError: it is no TOML, it has a key that is not known, or it describes what cannot be.
    """
    try:
        if len(data) > MAX_FILE_SIZE:
            raise CperError(f"it has {len(data)} bytes, {MAX_FILE_SIZE} is most")
        document = tomllib.loads(data.decode())
        return _kind(document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CperError(f"{where} is no TOML: {error}") from None
    except CperError as error:
        raise CperError(f"{where}: {error}") from None


def _kind(document: Mapping[str, Any]) -> SectionKind:
    _known(document, {"section", "field"}, "")
    section = document.get("section")
    if not isinstance(section, dict):
        raise CperError("there is no [section]")
    _known(section, _SECTION_KEYS, "section")
    name, title = _text(section, "name", "section"), _text(section, "title", "section")
    if not _NAME.fullmatch(name):
        raise CperError(f"{name!r} is not of small letters, digits and hyphens", field="section.name")
    try:
        guid = UUID(_text(section, "guid", "section"))
    except ValueError:
        raise CperError("it is not a GUID", field="section.guid") from None
    fields = document.get("field")
    if not isinstance(fields, list) or not 0 < len(fields) <= _MAX_FIELDS:
        raise CperError(f"there must be 1 to {_MAX_FIELDS} [[field]]", field="field")
    items = tuple(_item(each, f"field[{number}]") for number, each in enumerate(fields))
    _consistent(items)
    validity = attribute(_text(section, "validation", "section", ""))
    found = next((item for item in items if item.name == validity), None)
    if validity and not (isinstance(found, Field) and found.kind is Kind.NUMBER):
        raise CperError("there is no such number among the fields", field="section.validation")
    if not validity and any(_valid_numbers(items)):
        raise CperError("fields say `valid`, and the section no `validation`", field="section")
    top = 8 * found.size if isinstance(found, Field) and validity else 0
    for number, path in _valid_numbers(items):
        if number >= top:
            raise CperError(f"there is no validation bit {number}", field=path)
    headline = section.get("headline", [])
    if not isinstance(headline, list) or not all(isinstance(each, str) for each in headline):
        raise CperError("it is not a list of titles", field="section.headline")
    key = _text(section, "json", "section", "".join(part.capitalize() for part in name.split("-")))
    if key in _TAKEN:
        raise CperError(f"{key!r} means something else", field="section.json")
    table = Table(name, title, items, _text(section, "source", "section", "a file of the user's"), validity)
    for each in headline:
        if attribute(each) not in table.by_name:
            raise CperError(f"there is no field {each[:_MAX_NAME]!r}", field="section.headline")
    return SectionKind(guid, table, key, title, tuple(map(attribute, headline)))


def _item(given: Any, path: str) -> Item:
    if not isinstance(given, dict):
        raise CperError("it is not a table", field=path)
    _known(given, _FIELD_KEYS, path)
    title = _text(given, "title", path)
    if not attribute(title):
        raise CperError(f"{title!r} has neither letters nor digits", field=f"{path}.title")
    word = _text(given, "kind", path, "number")
    if word not in _KINDS:
        raise CperError(f"{word!r} is not one of {', '.join(_KINDS)}", field=f"{path}.kind")
    kind = _KINDS[word]
    json, valid = Json(key=_text(given, "json", path, "")), _number(given, "valid", path, None, 63)
    if kind is Kind.BYTES and "size" not in given:
        length = attribute(_text(given, "length", path, ""))
        return Extent(title=title, length=length, valid=valid, json=json)
    reserved = _flag(given, "reserved", path)
    top = 8 if kind is Kind.NUMBER and not reserved else _MAX_FIELD_SIZE
    size = _SIZES.get(kind) or _number(given, "size", path, 0, top)
    if not size:
        raise CperError("it needs a size in bytes", field=path)
    of = attribute(_text(given, "length_of", path, ""))
    bits = given.get("bits", [])
    if not isinstance(bits, list) or (bits and kind is not Kind.NUMBER):
        raise CperError("it is not a list of bits of a number", field=f"{path}.bits")
    parts = tuple(_bits(each, f"{path}.bits[{number}]", size) for number, each in enumerate(bits))
    if len({each.name for each in parts}) != len(parts):
        raise CperError("two bits have one title", field=f"{path}.bits")
    return Field(
        title=title, size=size, kind=Kind.BYTES if reserved else kind, valid=valid, names=_names(given, path),
        word=Word(bits=parts) if parts else None, reserved=reserved, hexadecimal=_flag(given, "hexadecimal", path),
        auto=Auto("length", of) if of else None, json=json,
    )  # fmt: skip


def _bits(given: Any, path: str, size: int) -> Bits:
    if not isinstance(given, dict):
        raise CperError("it is not a table", field=path)
    _known(given, _BIT_KEYS, path)
    low, width = _number(given, "low", path, 0, 63) or 0, _number(given, "width", path, 1, 64) or 1
    if low + width > 8 * size:
        raise CperError(f"bits {low} to {low + width - 1} are not within {size} bytes", field=path)
    return Bits(
        title=_text(given, "title", path), low=low, width=width, names=_names(given, path),
        valid=_number(given, "valid", path, None, 63), reserved=_flag(given, "reserved", path),
        hexadecimal=_flag(given, "hexadecimal", path), json=Json(key=_text(given, "json", path, "")),
    )  # fmt: skip


def _consistent(items: tuple[Item, ...]) -> None:
    """Refuse names that are there twice, and lengths by fields that are not there."""
    before: dict[str, Item] = {}
    keys: set[str] = set()
    extents = {item.name for item in items if isinstance(item, Extent)}
    for number, item in enumerate(items):
        path = f"field[{number}]"
        if item.name in before:
            raise CperError(f"{item.title!r} is there twice", field=path)
        if item.key in keys:
            raise CperError(f"two fields are {item.key!r} in JSON", field=path)
        keys.add(item.key)
        if isinstance(item, Extent) and item.length:
            by = before.get(item.length)
            if not isinstance(by, Field) or by.kind is not Kind.NUMBER:
                raise CperError(f"no number {item.length!r} is before it", field=f"{path}.length")
        if isinstance(item, Field) and item.auto is not None and item.auto.of not in extents:
            raise CperError(f"there are no bytes {item.auto.of!r}", field=f"{path}.length_of")
        before[item.name] = item


def _valid_numbers(items: tuple[Item, ...]) -> Iterator[tuple[int, str]]:
    """Each validation bit that something says it has, and where."""
    for number, item in enumerate(items):
        if item.valid is not None:
            yield item.valid, f"field[{number}].valid"
        for each in item.word.bits if isinstance(item, Field) and item.word is not None else ():
            if each.valid is not None:
                yield each.valid, f"field[{number}].bits"


def _known(given: Mapping[str, Any], keys: set[str], path: str) -> None:
    for key in given:
        if key not in keys:
            raise CperError(f"there is no key {key[:_MAX_NAME]!r}, only {', '.join(sorted(keys))}", field=path)


def _text(given: Mapping[str, Any], key: str, path: str, default: str | None = None) -> str:
    value = given.get(key, default)
    where = f"{path}.{key}"
    if value is None:
        raise CperError("it is missing", field=where)
    if not isinstance(value, str) or len(value) > _MAX_NAME or printable(value) != value:
        raise CperError(f"it is no text of up to {_MAX_NAME} printable characters", field=where)
    return value


def _number(given: Mapping[str, Any], key: str, path: str, default: int | None, top: int) -> int | None:
    value = given.get(key, default)
    if value is not None and (type(value) is not int or not 0 <= value <= top):
        raise CperError(f"it is not a number up to {top}", field=f"{path}.{key}")
    return value


def _flag(given: Mapping[str, Any], key: str, path: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise CperError("it is neither true nor false", field=f"{path}.{key}")
    return value


def _names(given: Mapping[str, Any], path: str) -> dict[int, str]:
    names = given.get("names", {})
    where = f"{path}.names"
    if not isinstance(names, dict):
        raise CperError("it is not a table", field=where)
    try:
        return {int(value, 0): _text(names, value, where) for value in names}
    except ValueError:
        raise CperError("it has not only numbers before the names", field=where) from None
