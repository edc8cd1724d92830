"""What tables of error records are made of: fields, the bits of fields, and how both are called.

A field is declared once, by the name that the specification gives it. Its attribute (`physical_address`) and its key
in JSON (`physicalAddress`) follow from that name; `Json` says where libcper's key is another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from enum import Enum
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from qemu_sdei.errors import CperError
from qemu_sdei.ras import timestamps

Names = Mapping[int, str]
Plain = int | bytes | UUID
"""What a field holds. Text and timestamps are kept as their bytes, so that nothing of them is lost."""
NO_GUID: Final = UUID(int=0)


class Kind(Enum):
    """What the bytes of a field are."""

    NUMBER = "number"
    """Little-endian, no sign."""
    GUID = "GUID"
    """The first three parts little-endian (UEFI 2.10 A)."""
    TEXT = "text"
    """ASCII, filled up with zeroes."""
    BYTES = "bytes"
    TIMESTAMP = "timestamp"
    """Eight bytes, BCD (UEFI 2.10 table N.2)."""


@dataclass(frozen=True, kw_only=True)
class Json:
    """How a field or a bit stands in libcper's JSON."""

    key: str = ""
    """"": the name in camel case."""
    value: str = "value"
    word: str = "name"
    """Of what has names: the member with the value, and the one with the name."""
    note: str = ""
    """A member that explains the name. Not read."""
    hexadecimal: bool = False
    """As text: "0x0000000041E78000"."""
    copy: str = ""
    """The same once more as hexadecimal text, under this key. Not read."""
    flat: bool = False
    """The bits stand in the object that the field is in."""
    whole: str = ""
    """Under this member of its own object stands the field as a whole, if that is valid; else its bits are there."""
    word_only: bool = False
    """The name, and no number."""
    as_bytes: str = ""
    """Of a structure: its bytes as base64 under this member, by which it is read; "." for no object around them."""
    also: tuple[str, ...] = ()
    """Other keys under which it is read."""
    unsaid: bool = False
    """Not written: it follows from the rest."""
    when: str = ""
    """Written only where this field is not 0."""


NO_JSON: Final = Json()
"""All as the rules say."""


@dataclass(frozen=True, slots=True)
class Auto:
    """What a field is where nobody says it: about the item `of` of the same structure."""

    what: str
    """`count`: of its parts; `length`: its bytes; `offset`: where it begins, 0 if it is not there; `end`: where it
    ends, and "" is the end of the structure.
    """
    of: str = ""


def attribute(title: str) -> str:
    """The attribute of what the specification calls `title`: "Physical Address" is `physical_address`."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def camel(name: str) -> str:
    """A name as JSON's keys are written: `physical_address` is `physicalAddress`."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


@dataclass(frozen=True, kw_only=True, eq=False)
class Named:
    """What the specification gives a name to: a field, bits of one, a part."""

    title: str
    valid: int | None = None
    """Number of its validation bit; None: it is always valid. Of bits it is in their word's own mask, if that has one,
    else in the structure's.
    """
    json: Json = NO_JSON

    @cached_property
    def name(self) -> str:
        """Its attribute."""
        return attribute(self.title)

    @cached_property
    def key(self) -> str:
        """Its key in JSON."""
        return self.json.key or camel(self.name)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bits(Named):
    """Some bits of a number."""

    low: int
    width: int = 1
    names: Names = dataclass_field(default_factory=dict)
    notes: Names = dataclass_field(default_factory=dict)
    reserved: bool = False
    hexadecimal: bool = False

    @property
    def top(self) -> int:
        """The largest value."""
        return (1 << self.width) - 1

    def of(self, number: int) -> int:
        """Its value in `number`."""
        return number >> self.low & self.top

    def put(self, number: int, value: int) -> int:
        """`number` with these bits being `value`."""
        return number & ~(self.top << self.low) | value << self.low

    def taken(self, given: Any) -> int:
        """What a user or a document says, as a number. Raises `CperError`."""
        return number_of(given, self.top, self.names, self.title)


@dataclass(frozen=True, kw_only=True, eq=False)
class Word:
    """What the bits of a number are."""

    bits: tuple[Bits, ...]
    title: str = ""
    key: str = ""
    """In JSON, where it is one of several that a field may be: the member that holds its bits."""
    validity: str = ""
    """The bits that say which of the others are valid; "": the structure's validation bits do."""
    partial: bool = False
    """Others of its bits have a meaning too, which is not written down here."""
    joined: str = ""
    """People write its bits one behind the other, with this between them: 3.0."""

    @property
    def each_its_own(self) -> bool:
        """Whether all of its bits have validation bits in the structure."""
        return not self.validity and all(each.valid is not None for each in self.bits if not each.reserved)

    def __getitem__(self, name: str) -> Bits:
        for each in self.bits:
            if each.name == name:
                return each
        raise CperError(f"there are no bits {name!r}, only {', '.join(b.name for b in self.bits)}", field=name)


@dataclass(frozen=True, kw_only=True, eq=False)
class Field(Named):
    """A field of fixed size."""

    size: int
    """In bytes."""
    kind: Kind = Kind.NUMBER
    names: Names = dataclass_field(default_factory=dict)
    otherwise: str = ""
    """The name of any other value."""
    guids: Mapping[UUID, str] = dataclass_field(default_factory=dict)
    """Names of GUIDs."""
    word: Word | None = None
    words: tuple[str, Mapping[int, Word]] | None = None
    """Another field, and for each of its values the word that this one is then."""
    default: Plain | None = None
    """None: zeroes."""
    reserved: bool = False
    hexadecimal: bool = False
    """Printed as an address, not as a count."""
    auto: Auto | None = None

    @property
    def zero(self) -> Plain:
        """What it is if nobody says anything."""
        if self.default is not None:
            return self.default
        if self.kind is Kind.NUMBER:
            return 0
        return NO_GUID if self.kind is Kind.GUID else bytes(self.size)

    def meaning(self, value: Plain) -> str:
        """The value's name; "" if it has none."""
        if isinstance(value, UUID):
            return self.guids.get(value, "")
        return self.names.get(value, self.otherwise) if isinstance(value, int) else ""

    def word_for(self, values: Mapping[str, Any]) -> Word | None:
        """What its bits are, in a structure of these values."""
        if self.words is None:
            return self.word
        return self.words[1].get(values.get(self.words[0], -1))

    def pack(self, value: Plain) -> bytes:
        """Its bytes."""
        if isinstance(value, int):
            return value.to_bytes(self.size, "little")
        return value.bytes_le if isinstance(value, UUID) else value

    def unpack(self, data: bytes) -> Plain:
        """What `data`, of its size, is."""
        if self.kind is Kind.NUMBER:
            return int.from_bytes(data, "little")
        return UUID(bytes_le=data) if self.kind is Kind.GUID else data

    def taken(self, given: Any) -> Plain:
        """What a user or a document says, as the field holds it.

        Args:
            given: a number, also as text, or the name of one; a GUID, also as text; text; bytes; a `datetime`.

        Raises:
            CperError: it is no value for this field.
        """
        if self.kind is Kind.NUMBER:
            return number_of(given, (1 << 8 * self.size) - 1, self.names, self.title)
        if self.kind is Kind.GUID:
            return guid_of(given, self.guids)
        if self.kind is Kind.TIMESTAMP and not isinstance(given, bytes):
            return timestamps.packed(given)
        if self.kind is Kind.TEXT and isinstance(given, str):
            if not given.isascii():
                raise CperError(f"{given!r} is not ASCII")
            given = given.encode("ascii")
            if len(given) > self.size:
                raise CperError(f"{given.decode()!r} has {len(given)} characters, {self.size} is most")
            given = given.ljust(self.size, b"\0")
        if not isinstance(given, bytes) or len(given) != self.size:
            raise CperError(f"{_short(given)} is not {self.size} bytes")
        return given


def number_of(given: Any, top: int, names: Names, title: str) -> int:
    """A number that was given as such, as text, or by its name. Raises `CperError`."""
    number = given
    if isinstance(given, bool):
        number = int(given)
    elif isinstance(given, str):
        named = [value for value, name in names.items() if _plain(name) == _plain(given)]
        try:
            number = named[0] if named else int(given, 0)
        except ValueError:
            known = "; its names: " + ", ".join(repr(name) for name in names.values()) if names else ""
            raise CperError(f"{_short(given)} is not a number{known}") from None
    if not isinstance(number, int):
        raise CperError(f"{_short(given)} is not a number")
    if not 0 <= number <= top:
        raise CperError(
            f"{_short(given)} is too large for {title!r}, {top:#x} is most" if number > 0 else f"{number} < 0"
        )
    return number


def guid_of(given: Any, names: Mapping[UUID, str]) -> UUID:
    """A GUID that was given as such, as text, or by its name. Raises `CperError`."""
    if isinstance(given, UUID):
        return given
    if isinstance(given, str):
        for guid, name in names.items():
            if _plain(name) == _plain(given):
                return guid
        if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", given):
            return UUID(given)
    raise CperError(f"{_short(given)} is not a GUID")


def _plain(name: str) -> str:
    """A name without what people write in different ways."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."
