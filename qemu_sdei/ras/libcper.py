"""Records as JSON of the shape that libcper has, and back; nothing of a record is lost on the way.

libcper leaves out what is not valid, and what is reserved. Where that stood in a record, `otherBytes` says it beside:
offsets in the structure, and the bytes there. A record as it should be has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from qemu_sdei.errors import CperError
from qemu_sdei.ras import json_reading
from qemu_sdei.ras.block import BLOCK, MAX_SIZE, Block, block
from qemu_sdei.ras.differing import Difference, differences, patched
from qemu_sdei.ras.entry import DESCRIPTOR, ENTRY, OLD_ENTRY, REVISION_WITH_TIMESTAMP, Entry
from qemu_sdei.ras.json_writing import base64_text, written
from qemu_sdei.ras.kinds import KINDS, RAW, Kinds, Section, SectionKind, kind_of
from qemu_sdei.ras.record import RECORD, Record
from qemu_sdei.ras.severity import worst
from qemu_sdei.ras.structure import Structure, Table
from qemu_sdei.ras.summary import summary

OTHER: Final = "otherBytes"
_LENGTH: Final = "length"
_MESSAGE: Final = "message"
_UNKNOWN: Final = "Unknown"


def to_json(found: Record | Block) -> dict[str, Any]:
    """A record, or a status block, as an object of JSON."""
    sections = [_section(each.section) for each in found.entries]
    heads = [_head(each) for each in found.entries]
    if isinstance(found, Block):
        out = {"errorStatusBlock": _exact(found.head), "dataEntries": heads, "sections": sections}
        return {**out, "rest": base64_text(found.rest)} if found.rest else out
    out = {"header": _exact(found.head), "sectionDescriptors": heads, "sections": sections}
    return {**out, OTHER: _other(found.others)} if found.others else out


def _section(section: Section) -> dict[str, Any]:
    shape = written(section.body)
    out: dict[str, Any] = {_MESSAGE: summary(section), section.kind.key: shape}
    return _with_other(out, section.body, json_reading.structure(section.kind.table, shape).pack())


def _exact(head: Structure) -> dict[str, Any]:
    shape = written(head)
    return _with_other(shape, head, json_reading.structure(head.table, shape).pack())


def _head(each: Entry) -> dict[str, Any]:
    shape = _exact(each.head)
    shape["sectionType"]["type"] = each.section.kind.label
    return shape


def _with_other(shape: dict[str, Any], wanted: Structure, made: bytes) -> dict[str, Any]:
    data = wanted.pack()
    fitted = made[: len(data)].ljust(len(data), b"\0")
    other: dict[str, Any] = {_LENGTH: len(data)} if len(made) != len(data) else {}
    other |= _other(differences(fitted, data))
    return {**shape, OTHER: other} if other else shape


def _other(others: tuple[Difference, ...]) -> dict[str, str]:
    return {f"{at:#x}": data.hex() for at, data in others}


def from_json(document: Any, kinds: Kinds = KINDS) -> Record | Block:
    """The record or status block that an object of JSON says.

    Of a record header and descriptors may be left out, or parts of them: they follow from the sections then. One
    section with its descriptor, as libcper writes them alone, is a record too.

    Args:
        document: as `json.loads` gives it.
        kinds: of sections.

    Raises:
        CperError: it says none; its `field` is the path of the fault.
    """
    if not isinstance(document, dict):
        raise CperError("it is not an object")
    if "section" in document:
        document = {"sections": [document["section"]], "sectionDescriptors": [document.get("sectionDescriptor", {})]}
    is_block = "errorStatusBlock" in document or "dataEntries" in document
    names = ("errorStatusBlock", "dataEntries") if is_block else ("header", "sectionDescriptors")
    known = {*names, "sections", "rest" if is_block else OTHER}
    for name in document:
        if name not in known:
            raise CperError(f"there is no {name[:60]!r} in a {'status block' if is_block else 'record'}")
    sections = _list(document, "sections")
    heads = _list(document, names[1]) if names[1] in document else [{} for _ in sections]
    if len(heads) != len(sections):
        raise CperError(f"there are {len(heads)} of them and {len(sections)} sections", field=names[1])
    head = document.get(names[0], {})
    found: list[Section] = []
    total = 0
    for number, (each, wanted) in enumerate(zip(sections, heads, strict=True)):
        found.append(_section_from(each, wanted, number, names[1], kinds))
        total += len(found[-1].pack())
        if total > MAX_SIZE:
            raise CperError(f"the sections have more than {MAX_SIZE} bytes", field=f"sections[{number}]")
    if is_block:
        return _block(head, found, heads, json_reading.decoded(document.get("rest", "")))
    return _record(head, found, heads, _from_other(document.get(OTHER, {})))


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise CperError("it is not a list" if name in document else "it is not there", field=name)
    return value


def _section_from(document: Any, head: Any, number: int, heads: str, kinds: Kinds) -> Section:
    path = f"sections[{number}]"
    try:
        if not isinstance(document, dict):
            raise CperError("it is not an object")
        shapes = [key for key in document if key not in (_MESSAGE, OTHER)]
        if len(shapes) != 1:
            raise CperError("it has not one member that says which section it is")
        kind = _kind(shapes[0], _type_of(head, f"{heads}[{number}]"), kinds)
        try:
            made = json_reading.structure(kind.table, document[shapes[0]]).pack()
        except CperError as error:
            raise error.below(shapes[0]) from None
        return kind.parse(_restored(made, document.get(OTHER, {})))
    except CperError as error:
        raise error.below(path) from None


def _type_of(head: Any, path: str) -> UUID | None:
    """The type that a head says its section is of; None: it says none."""
    value = head.get("sectionType") if isinstance(head, dict) else None
    if isinstance(value, dict):
        value = value.get("data")
    if value is None:
        return None
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise CperError("it is not a GUID", field=f"{path}.sectionType") from None


def _kind(key: str, guid: UUID | None, kinds: Kinds) -> SectionKind:
    """The kind of section that stands under `key`, of the type that is said beside it."""
    if guid is not None:
        kind = kind_of(guid, kinds)
        if key == _UNKNOWN:  # bytes, whether we know more of them or not
            return SectionKind(guid, RAW, label=kind.label)
        if kind.key == key:
            return kind
        if kind.key == _UNKNOWN:
            raise CperError(
                f'{kind.label} ({guid}) has no table here: give its bytes, as {{"Unknown": {{"data": BASE64}}}}'
            )
        raise CperError(f"a section of type {guid} is {kind.key!r} and not {key[:60]!r}")
    named = [kind for kind in kinds.values() if kind.key == key]
    if len(named) == 1:
        return named[0]
    known = ", ".join(sorted({kind.key for kind in kinds.values()}))
    reason = "several types have it: say sectionType" if named else f"there are {known}"
    raise CperError(f"{key[:60]!r} does not say which section it is: {reason}")


def _from_other(document: Any) -> tuple[Difference, ...]:
    if not isinstance(document, dict):
        raise CperError("it is not an object", field=OTHER)
    try:
        found = [(int(at, 16), bytes.fromhex(data)) for at, data in document.items() if at != _LENGTH]
    except (ValueError, TypeError):
        raise CperError('it has not only offsets and bytes: "0x10": "00ff"', field=OTHER) from None
    if any(at < 0 for at, _ in found):
        raise CperError("an offset is less than 0", field=OTHER)
    return tuple(found)


def _restored(made: bytes, document: Any) -> bytes:
    """The bytes with what `otherBytes` says of them."""
    others = _from_other(document)
    length = document.get(_LENGTH, len(made))
    if type(length) is not int or not 0 <= length <= MAX_SIZE:
        raise CperError("it is not a number of bytes", field=f"{OTHER}.{_LENGTH}")
    return patched(made[:length].ljust(length, b"\0"), others)


def _made(table: Table, document: Any, missing: Mapping[str, Any], path: str) -> Structure:
    """A head as it is said, and what it does not say as in `missing`."""
    if not isinstance(document, dict):
        raise CperError("it is not an object", field=path)
    other = document.get(OTHER, {})
    try:
        said = json_reading.said(table, {key: value for key, value in document.items() if key != OTHER})
        return table.parse(_restored(table.make({**missing, **said}).pack(), other))
    except CperError as error:
        raise error.below(path) from None


def _block(head: Any, sections: list[Section], heads: list[Any], rest: bytes) -> Block:
    made = []
    for number, (section, document) in enumerate(zip(sections, heads, strict=True)):
        missing = {"section_type": section.kind.guid, "error_data_length": len(section.pack()), "error_severity": 2}
        table = OLD_ENTRY if _is_old(document) else ENTRY
        made.append(Entry(_made(table, document, missing, f"dataEntries[{number}]"), section))
    usual = block(made)
    return Block(_made(BLOCK, head, dict(usual.head.values), "errorStatusBlock"), tuple(made), rest)


def _is_old(document: Any) -> bool:
    """Whether an entry says that it is of a revision without timestamp."""
    revision = document.get("revision") if isinstance(document, dict) else None
    if isinstance(revision, dict):
        major = revision.get("major")
        return type(major) is int and major < REVISION_WITH_TIMESTAMP >> 8
    return type(revision) is int and revision < REVISION_WITH_TIMESTAMP


def _record(head: Any, sections: list[Section], heads: list[Any], others: tuple[Difference, ...]) -> Record:
    at = RECORD.fixed_size + DESCRIPTOR.fixed_size * len(sections)
    made = []
    for number, (section, document) in enumerate(zip(sections, heads, strict=True)):
        size = len(section.pack())
        missing = {
            "section_type": section.kind.guid,
            "section_offset": at,
            "section_length": size,
            "section_severity": 2,
        }
        made.append(Entry(_made(DESCRIPTOR, document, missing, f"sectionDescriptors[{number}]"), section))
        at += size
    missing = {
        "section_count": len(sections),
        "error_severity": int(worst(*(each.severity for each in made))),
        "record_length": at,
    }
    found = Record(_made(RECORD, head, missing, "header"), tuple(made), others)
    found.pack()  # that it can be a record
    return found
