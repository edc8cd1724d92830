"""Short ways to write a table down: `u16("Node", valid=3)`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from qemu_sdei.ras.fields import Bits, Field, Json, Kind, Word


def number(size: int, title: str, **more: Any) -> Field:
    """A number of `size` bytes."""
    return Field(title=title, size=size, **more)


def u8(title: str, **more: Any) -> Field:
    """A number of one byte."""
    return number(1, title, **more)


def u16(title: str, **more: Any) -> Field:
    """A number of two bytes."""
    return number(2, title, **more)


def u24(title: str, **more: Any) -> Field:
    """A number of three bytes."""
    return number(3, title, **more)


def u32(title: str, **more: Any) -> Field:
    """A number of four bytes."""
    return number(4, title, **more)


def u64(title: str, **more: Any) -> Field:
    """A number of eight bytes."""
    return number(8, title, **more)


def x16(title: str, **more: Any) -> Field:
    """A number of two bytes, printed in hexadecimal."""
    return number(2, title, hexadecimal=True, **more)


def x32(title: str, **more: Any) -> Field:
    """A number of four bytes, printed in hexadecimal."""
    return number(4, title, hexadecimal=True, **more)


def x64(title: str, **more: Any) -> Field:
    """A number of eight bytes, printed in hexadecimal: an address, a register."""
    return number(8, title, hexadecimal=True, **more)


def guid(title: str, **more: Any) -> Field:
    """A GUID."""
    return Field(title=title, size=16, kind=Kind.GUID, **more)


def text(size: int, title: str, **more: Any) -> Field:
    """Text of up to `size` characters."""
    return Field(title=title, size=size, kind=Kind.TEXT, **more)


def octets(size: int, title: str, **more: Any) -> Field:
    """Bytes that are no number."""
    return Field(title=title, size=size, kind=Kind.BYTES, **more)


def timestamp(title: str, **more: Any) -> Field:
    """A timestamp."""
    return Field(title=title, size=8, kind=Kind.TIMESTAMP, **more)


def reserved(size: int, title: str = "Reserved") -> Field:
    """Reserved bytes. Where there are several in a table, each has another title."""
    return Field(title=title, size=size, kind=Kind.BYTES, reserved=True)


def bit(low: int, title: str, **more: Any) -> Bits:
    """One bit."""
    return Bits(title=title, low=low, **more)


def bits(low: int, high: int, title: str, **more: Any) -> Bits:
    """The bits `low` to `high`, both included."""
    return Bits(title=title, low=low, width=high - low + 1, **more)


def word(*fields: Bits, **more: Any) -> Word:
    """A number's bits."""
    return Word(bits=fields, **more)


def key(name: str, **more: Any) -> Json:
    """Where a field stands in libcper's JSON."""
    return Json(key=name, **more)


def validation(size: int, items: Iterable[str | tuple[int, str]], title: str = "Validation Bits") -> Field:
    """The validation bits of a structure: what they are about, in their order."""
    named = [each if isinstance(each, tuple) else (number, each) for number, each in enumerate(items)]
    # In JSON what is there is valid, and what is not is not there.
    return Field(title=title, size=size, word=word(*(bit(low, name) for low, name in named)), hexadecimal=True)


def registers(size: int, names: Iterable[str]) -> tuple[Field, ...]:
    """Registers of `size` bytes one behind the other, called the same everywhere."""
    return tuple(number(size, name, hexadecimal=True, json=key(name.lower())) for name in names)


REVISION: Final = word(bits(8, 15, "Major"), bits(0, 7, "Minor"), joined=".")
"""A revision of two bytes."""
