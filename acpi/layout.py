"""Structures of little-endian fields at fixed offsets, as frozen dataclasses.

A field is declared once, with its size, its printed name and what its values mean:

    @dataclass(frozen=True, kw_only=True)
    class Gas(Struct):
        space: int = u8("Space ID", words=named(AddressSpace))

and that is what packs, parses, checks ranges, prints and compares it. Reserved fields are fields like any other, so
that bytes go through unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Self

from qemu_sdei.acpi.errors import TableError

Words = Callable[[int], str]
"""What a value means, in words; "" if there is nothing to say."""
Value = int | bytes

_KEY: Final = "acpi"


@dataclass(frozen=True, slots=True)
class _Spec:
    size: int
    title: str
    kind: type[Any]
    words: Words | None


@dataclass(frozen=True, slots=True)
class Item:
    """One field of a structure: its place and how it is read."""

    name: str
    offset: int
    size: int
    title: str
    kind: type[Any]
    words: Words | None


@dataclass(frozen=True, slots=True)
class FieldValue:
    """One field of a table as it stands there."""

    name: str
    """Path of attribute names, such as `sources[0].notification.vector`."""
    title: str
    """As it is printed: `Vector`."""
    offset: int
    """Bytes from the start of the table."""
    size: int
    value: Value
    meaning: str = ""
    """Of a number with a meaning, that in words."""


def _number(size: int, title: str, default: int, words: Words | None) -> Any:
    return field(default=default, metadata={_KEY: _Spec(size, title, int, words)})


def u8(title: str, *, default: int = 0, words: Words | None = None) -> Any:
    """A field of one byte."""
    return _number(1, title, default, words)


def u16(title: str, *, default: int = 0, words: Words | None = None) -> Any:
    """A field of two bytes, the lower first."""
    return _number(2, title, default, words)


def u24(title: str, *, default: int = 0, words: Words | None = None) -> Any:
    """A field of three bytes: some reserved ones are."""
    return _number(3, title, default, words)


def u32(title: str, *, default: int = 0, words: Words | None = None) -> Any:
    """A field of four bytes."""
    return _number(4, title, default, words)


def u64(title: str, *, default: int = 0, words: Words | None = None) -> Any:
    """A field of eight bytes."""
    return _number(8, title, default, words)


def octets(size: int, title: str, *, default: bytes | None = None) -> Any:
    """A field of `size` bytes that are no number."""
    value = bytes(size) if default is None else default
    return field(default=value, metadata={_KEY: _Spec(size, title, bytes, None)})


def part(kind: type[Struct], title: str, *, default: Struct | None = None) -> Any:
    """A structure within a structure."""
    value = kind() if default is None else default
    return field(default=value, metadata={_KEY: _Spec(kind.size_of(), title, kind, None)})


def named(values: type[IntEnum], words: Mapping[int, str] | None = None) -> Words:
    """The meaning of an enumeration's value: from `words`, or else its name."""

    def say(value: int) -> str:
        if words is not None and value in words:
            return words[value]
        return values(value).name.replace("_", " ").lower() if value in set(values) else "unknown"

    return say


def flags(bits: Mapping[int, str]) -> Words:
    """The meaning of a word of flags: what each bit that is set says."""

    def say(value: int) -> str:
        set_bits = [bit for bit in range(value.bit_length()) if value >> bit & 1]
        return ", ".join(bits.get(bit, f"bit {bit}") for bit in set_bits)

    return say


_LAYOUTS: Final[dict[type[Any], tuple[Item, ...]]] = {}


def layout(kind: type[Struct]) -> tuple[Item, ...]:
    """The fields of a structure, in their order, with offsets from its start."""
    if (known := _LAYOUTS.get(kind)) is not None:
        return known
    items: list[Item] = []
    at = 0
    for each in dataclasses.fields(kind):
        spec = each.metadata.get(_KEY)
        if spec is not None:
            items.append(Item(each.name, at, spec.size, spec.title, spec.kind, spec.words))
            at += spec.size
    return _LAYOUTS.setdefault(kind, tuple(items))


@dataclass(frozen=True, kw_only=True)
class Struct:
    """Base of all structures.

    Raises:
        TableError: a value does not fit its field.
    """

    def __post_init__(self) -> None:
        for item in layout(type(self)):
            value = getattr(self, item.name)
            if item.kind is int:
                if not isinstance(value, int) or not 0 <= value < 1 << 8 * item.size:
                    raise TableError(f"{value!r} is not a number of {8 * item.size} bits", field=item.name)
            elif item.kind is bytes:
                if not isinstance(value, bytes) or len(value) != item.size:
                    raise TableError(f"{value!r} is not {item.size} bytes", field=item.name)
            elif not isinstance(value, item.kind):
                raise TableError(f"{value!r} is no {item.kind.__name__}", field=item.name)

    @classmethod
    def size_of(cls) -> int:
        """Bytes of all fields together."""
        items = layout(cls)
        return items[-1].offset + items[-1].size if items else 0

    def pack(self) -> bytes:
        """The bytes of all fields."""
        out = bytearray()
        for item in layout(type(self)):
            value = getattr(self, item.name)
            if item.kind is int:
                out += value.to_bytes(item.size, "little")
            else:
                out += value if item.kind is bytes else value.pack()
        return bytes(out)

    @classmethod
    def read(cls, data: bytes, at: int, *, signature: str, path: str = "") -> dict[str, Any]:
        """The fields at offset `at` of the table `data`, by name.

        Raises:
            TableError: the table ends within them.
        """
        found: dict[str, Any] = {}
        for item in layout(cls):
            start = at + item.offset
            end = start + item.size
            name = path + item.name
            if issubclass(item.kind, Struct):
                found[item.name] = item.kind.unpack(data, start, signature=signature, path=name + ".")
                continue
            if end > len(data):
                raise TableError(
                    f"cut short: {item.size} bytes are needed here and {max(0, len(data) - start)} are left",
                    signature=signature, offset=start, field=name,
                )  # fmt: skip
            found[item.name] = int.from_bytes(data[start:end], "little") if item.kind is int else data[start:end]
        return found

    @classmethod
    def unpack(cls, data: bytes, at: int, *, signature: str, path: str = "") -> Self:
        """The structure at offset `at` of the table `data`.

        Raises:
            TableError: the table ends within it.
        """
        return cls(**cls.read(data, at, signature=signature, path=path))

    def walk(self, at: int, path: str = "", title: str = "") -> Iterator[FieldValue]:
        """Each field, those of inner structures in their places; offsets count from `at`."""
        for item in layout(type(self)):
            value = getattr(self, item.name)
            if isinstance(value, Struct):
                yield from value.walk(at + item.offset, f"{path}{item.name}.", f"{title}{item.title}: ")
            else:
                meaning = item.words(value) if item.words is not None else ""
                yield FieldValue(path + item.name, title + item.title, at + item.offset, item.size, value, meaning)
