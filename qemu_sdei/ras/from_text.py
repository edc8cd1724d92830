"""Sections from what people type: a field by its name with dashes, its value as text.

    section(Memory, {"physical-address": ["0x41e78000"], "memory-error-type": ["multi-bit-ecc"]})
    section(Arm, {"error-information": ["type=cache-error flags=overflow,propagated"]})

Which words there are for a section follows from its table (`words`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.fields import Bits, Field, Kind, Word, attribute
from qemu_sdei.ras.items import Choice, Item, Many, Part
from qemu_sdei.ras.kinds import Section, SectionKind
from qemu_sdei.ras.structure import Structure, Table

_SHOWN_NAMES: Final = 8
"""Of a long list of names only some help to see what is meant."""


@dataclass(frozen=True, slots=True)
class FieldWord:
    """One word that says something of a section."""

    name: str
    """As it is typed, without the dashes in front: `device-id.vendor-id`."""
    item: Item

    @property
    def repeated(self) -> bool:
        """Whether each use of it adds one more."""
        return isinstance(self.item, Many)

    @property
    def about(self) -> str:
        """What may follow it, in one line."""
        item = self.item
        if isinstance(item, Field):
            return f"{item.title}{_values_of(item)}"
        if isinstance(item, Many):
            return f"{item.title}, one each time: {_element_of(item.table)}"
        if isinstance(item, Choice) and item.by:
            return f"{item.title}: hexadecimal digits, or NAME=VALUE ... of the registers of its type"
        return f"{item.title}: hexadecimal digits"


def dashed(title: str) -> str:
    """A name of the specification as it is typed: "Multi-bit ECC" is `multi-bit-ecc`."""
    return attribute(title).replace("_", "-")


def words(table: Table, prefix: str = "") -> Iterator[FieldWord]:
    """All words for a structure of this table, those of its parts with a dot between them."""
    for item in table.items:
        if getattr(item, "reserved", False) or getattr(item, "hidden", False):
            continue
        name = prefix + dashed(item.title)
        yield FieldWord(name, item)
        inner = _inner(item)
        if inner is not None:
            yield from words(inner, f"{name}.")


def section(kind: SectionKind, said: Mapping[str, Sequence[str]]) -> Section:
    """The section of this kind of which that is said; what is said is valid, as with `Table.make`.

    Args:
        kind: of section.
        said: texts by the names of `words`; of those that are not repeated the last one counts.

    Raises:
        CperError: there is no such word, or it cannot be that.
    """
    return kind(**given(kind.table, said))


def given(table: Table, said: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The same as `Table.make` takes it. Raises `CperError`."""
    found: dict[str, Any] = {}
    inner: dict[str, dict[str, Sequence[str]]] = {}
    for name, texts in said.items():
        first, dot, rest = name.partition(".")
        item = table[attribute(first)]
        if dot:
            inner.setdefault(item.name, {})[rest] = texts
            continue
        try:
            found[item.name] = _value(item, texts, said, table)
        except CperError as error:
            raise error.below(item.name) from None
    for name, more in inner.items():
        below = _inner(table[name])
        if below is None:
            raise CperError("it has no fields of its own", field=name)
        if name in found:
            raise CperError("it is said as a whole and by its fields: one of both", field=name)
        try:
            found[name] = given(below, more)
        except CperError as error:
            raise error.below(name) from None
    return found


def _inner(item: Item) -> Table | None:
    """The table of a structure that there is one of, always the same one."""
    if isinstance(item, Part):
        return item.table
    return item.tables.get(0) if isinstance(item, Choice) and not item.by else None


def _value(item: Item, texts: Sequence[str], said: Mapping[str, Sequence[str]], table: Table) -> Any:
    text = texts[-1] if texts else ""
    if isinstance(item, Many):
        return [_numbered(item.table, each, number) for number, each in enumerate(texts)]
    if isinstance(item, Field):
        return _field(item, text)
    if isinstance(item, Choice) and "=" in text:
        return _chosen(item, text, said, table)
    return hexadecimal(text)


def _numbered(table: Table, text: str, number: int) -> Any:
    try:
        return _element(table, text)
    except CperError as error:
        raise error.below(f"[{number}]") from None


def _element(table: Table, text: str) -> Any:
    """A structure as `name=value name=value`, or as bytes in hexadecimal."""
    if "=" not in text:
        return hexadecimal(text)
    said: dict[str, list[str]] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not equals:
            raise CperError(f"{part[:60]!r} is no NAME=VALUE")
        said.setdefault(name, []).append(value)
    return given(table, said)


def _chosen(item: Choice, text: str, said: Mapping[str, Sequence[str]], table: Table) -> Structure:
    """A structure of which another field says what it is."""
    by = table[item.by] if item.by else None
    texts = said.get(dashed(by.title), ()) if by is not None else ()
    value = by.taken(texts[-1]) if isinstance(by, Field) and texts else 0
    found = item.tables.get(value)
    if found is None:
        raise CperError(f"its fields are not known: say {dashed(by.title) if by is not None else 'its bytes'}")
    return found.make(_element(found, text))


def hexadecimal(text: str) -> bytes:
    """Bytes of hexadecimal digits, with or without spaces between them. Raises `CperError`."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise CperError(f"{text[:60]!r} are no hexadecimal digits, two for each byte") from None


def _field(item: Field, text: str) -> Any:
    if item.kind is Kind.BYTES:
        return hexadecimal(text)
    if item.word is None and item.words is None:
        return text
    if _is_number(text):
        return text
    if item.word is not None and item.word.joined and item.word.joined in text:
        parts = text.split(item.word.joined)
        return {bits.name: part for bits, part in zip(item.word.bits, parts, strict=False)}
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        found[attribute(name)] = value if equals else True
    return found


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True


def _values_of(item: Field) -> str:
    """What a field may be, as the end of its help."""
    if item.kind is Kind.BYTES:
        return f", {item.size} bytes in hexadecimal"
    if item.kind is Kind.TEXT:
        return f", up to {item.size} characters"
    if item.kind is Kind.GUID:
        return ", a GUID" + (f", or {_listed(item.guids.values())}" if item.guids else "")
    if item.names:
        return ": " + _listed(dict.fromkeys(item.names.values()))
    if item.word is not None:
        return f": {_listed_bits(item.word)}"
    if item.words is not None:
        return f": a number, or bits by their names; which there are depends on {dashed(item.words[0])}"
    return ""


def _listed(names: Any) -> str:
    shown = [dashed(name) for name in names]
    more = f" and {len(shown) - _SHOWN_NAMES} more" if len(shown) > _SHOWN_NAMES + 1 else ""
    return ", ".join(shown[:_SHOWN_NAMES] if more else shown) + more


def _listed_bits(word: Word) -> str:
    if word.joined:
        return f"MAJOR{word.joined}MINOR" if len(word.bits) == 2 else "a number"
    shown = [_bit_word(each) for each in word.bits if not each.reserved]
    return "a number, or with commas between them " + ", ".join(shown)


def _bit_word(bits: Bits) -> str:
    if bits.width == 1 and not bits.names:
        return dashed(bits.title)
    return f"{dashed(bits.title)}=N" if not bits.names else f"{dashed(bits.title)}=NAME"


def _element_of(table: Table) -> str:
    names = [dashed(item.title) for item in table.items if not getattr(item, "reserved", False)]
    return '"' + " ".join(f"{name}=..." for name in names) + '"'
