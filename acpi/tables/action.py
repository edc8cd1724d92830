"""Instructions by which a system has its firmware act: the entries of EINJ and ERST (ACPI 6.5 18.5.1.2, 18.6.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from qemu_sdei.acpi.layout import FieldValue, Struct, flags, part, u8, u64
from qemu_sdei.acpi.tables.gas import Gas

PRESERVE_REGISTER: Final = 1 << 0
"""Bits of the register that the mask leaves out are written as they were read."""
FLAGS: Final = flags({0: "preserve register"})


@dataclass(frozen=True, kw_only=True)
class Entry(Struct):
    """What is done to one register: 32 bytes. Each table has words of its own for `action` and `instruction`."""

    action: int = u8("Action")
    instruction: int = u8("Instruction")
    flags: int = u8("Flags", words=FLAGS)
    reserved: int = u8("Reserved")
    register: Gas = part(Gas, "Register Region")
    value: int = u64("Value")
    mask: int = u64("Mask")


_E = TypeVar("_E", bound=Entry)


def read(kind: type[_E], data: bytes, at: int, count: int, *, signature: str) -> tuple[_E, ...]:
    """The `count` entries from offset `at` of the table `data` on, or as many as are there."""
    size = kind.size_of()
    count = min(count, max(0, len(data) - at) // size)
    return tuple(kind.unpack(data, at + number * size, signature=signature) for number in range(count))


def walk(entries: Iterable[Entry], at: int) -> Iterator[FieldValue]:
    """The fields of all entries, from offset `at` on."""
    for number, each in enumerate(entries):
        yield from each.walk(at + number * each.size_of(), f"entries[{number}].", f"Entry {number}: ")
