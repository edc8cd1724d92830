r"""AML, as far as we write it: a few methods of a few lines (ACPI 6.5 chapter 20).

    scope(r"\_SB", method("_STA", 0, returns(number(15))))

is the bytes of what ASL calls `Scope (\_SB) { Method (_STA) { Return (0x0F) } }`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from qemu_sdei.acpi.errors import AcpiError

_SEGMENT: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,3}")
_EISA: Final = re.compile(r"[A-Z]{3}[0-9A-F]{4}")
_MAX_PACKAGE: Final = 1 << 28
_NOWHERE: Final = b"\x00"
"""The result goes nowhere."""


def arg(n: int) -> bytes:
    """`Arg0` to `Arg6`."""
    return bytes([0x68 + n])


def local(n: int) -> bytes:
    """`Local0` to `Local7`."""
    return bytes([0x60 + n])


def number(value: int) -> bytes:
    """A number of up to 64 bits, in as few bytes as it needs."""
    if value in (0, 1):
        return bytes([value])
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if 0 <= value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise AcpiError(f"{value} is not a number of AML")


def name(path: str) -> bytes:
    r"""A name such as `CDW1`, or a path such as `\_SB.PCI0`. Raises AcpiError: it is none."""
    root = path.startswith("\\")
    segments = [part for part in path.removeprefix("\\").split(".") if part]
    if not all(_SEGMENT.fullmatch(part) for part in segments) or not 0 < len(segments) < 256:
        raise AcpiError(f"{path!r} is no name of AML")
    data = b"".join(part.ljust(4, "_").encode("ascii") for part in segments)
    prefix = {1: b"", 2: b"\x2e"}.get(len(segments), b"\x2f" + bytes([len(segments)]))
    return (b"\\" if root else b"") + prefix + data


def package(data: bytes) -> bytes:
    """`data` behind its length, in which the bytes of the length count too (ACPI 6.5 20.2.4)."""
    if len(data) + 1 < 1 << 6:
        return bytes([len(data) + 1]) + data
    for more in (1, 2, 3):
        size = len(data) + 1 + more
        if size < 1 << 4 + 8 * more:
            return bytes([more << 6 | size & 15]) + (size >> 4).to_bytes(more, "little") + data
    raise AcpiError(f"{len(data)} bytes are too many for AML: {_MAX_PACKAGE} is most")


def scope(path: str, *terms: bytes) -> bytes:
    """`Scope (path) { ... }`."""
    return b"\x10" + package(name(path) + b"".join(terms))


def method(what: str, arguments: int, *terms: bytes, serialized: bool = False) -> bytes:
    """`Method (what, arguments) { ... }`."""
    return b"\x14" + package(name(what) + bytes([arguments | serialized << 3]) + b"".join(terms))


def when(predicate: bytes, *terms: bytes) -> bytes:
    """`If (predicate) { ... }`."""
    return b"\xa0" + package(predicate + b"".join(terms))


def equal(first: bytes, second: bytes) -> bytes:
    """`first == second`."""
    return b"\x93" + first + second


def differs(first: bytes, second: bytes) -> bytes:
    """`first != second`."""
    return b"\x92" + equal(first, second)


def both(first: bytes, second: bytes, target: bytes = _NOWHERE) -> bytes:
    """`target = first & second`."""
    return b"\x7b" + first + second + target


def either(first: bytes, second: bytes, target: bytes = _NOWHERE) -> bytes:
    """`target = first | second`."""
    return b"\x7d" + first + second + target


def store(value: bytes, target: bytes) -> bytes:
    """`target = value`."""
    return b"\x70" + value + target


def returns(value: bytes) -> bytes:
    """`Return (value)`."""
    return b"\xa4" + value


def buffer(data: bytes) -> bytes:
    """`Buffer () { ... }`."""
    return b"\x11" + package(number(len(data)) + data)


def uuid(text: str) -> bytes:
    """`ToUUID ("...")`."""
    return buffer(UUID(text).bytes_le)


def dword_field(source: bytes, offset: int, what: str) -> bytes:
    """`CreateDWordField (source, offset, what)`."""
    return b"\x8a" + source + number(offset) + name(what)


def device(path: str, *terms: bytes) -> bytes:
    """`Device (path) { ... }`."""
    return b"\x5b\x82" + package(name(path) + b"".join(terms))


def named(what: str, value: bytes) -> bytes:
    """`Name (what, value)`."""
    return b"\x08" + name(what) + value


def string(text: str) -> bytes:
    """A text of ASCII characters. Raises AcpiError: it has others, or a NUL."""
    if not text.isascii() or "\0" in text:
        raise AcpiError(f"{text!r} is no text of AML")
    return b"\x0d" + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """`EISAID ("PNP0C33")`: three letters and four hexadecimal digits. Raises AcpiError: it is none."""
    if not _EISA.fullmatch(text):
        raise AcpiError(f"{text!r} is no EISA id")
    letters = 0
    for letter in text[:3]:
        letters = letters << 5 | ord(letter) - 0x40
    return number(int.from_bytes((letters << 16 | int(text[3:], 16)).to_bytes(4, "big"), "little"))


def interrupts(numbers: Iterable[int]) -> bytes:
    """`ResourceTemplate () { Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { n } ... }`, one for each."""
    parts = [b"\x89\x06\x00\x03\x01" + n.to_bytes(4, "little") for n in numbers]
    return buffer(b"".join(parts) + b"\x79\x00")


def notify(path: str, value: int) -> bytes:
    """`Notify (path, value)`."""
    return b"\x86" + name(path) + number(value)
