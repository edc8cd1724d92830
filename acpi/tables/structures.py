"""Lists of structures that begin with their type and their own length: what MADT, SRAT and GTDT are made of.

Newer revisions of ACPI add fields at the end of a structure. So a structure has as many of its fields as its length
says, and what is behind the last known one is kept as bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self, TypeVar

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue, Struct, layout, u8, u16

MAX_STRUCTURES: Final = 1 << 16
"""Structures of one table; what is behind them is kept as bytes."""


@dataclass(frozen=True, kw_only=True)
class Sized(Struct):
    """Base: fields as far as `present` says, then `rest`. Its `length` is computed.

    Raises:
        TableError: a field that is not there has a value, or there are bytes behind fields that are not there.
    """

    TYPE: ClassVar[int] = -1
    NAME: ClassVar[str] = "structure"
    """As it is printed, and in lower case part of the names of its fields: `gicc[2].mpidr`."""
    present: int = -1
    """Bytes of the known fields that are there; -1: all."""
    rest: bytes = b""
    """What follows the last known field."""

    def __post_init__(self) -> None:
        full = self.size_of()
        if self.TYPE >= 0:
            object.__setattr__(self, "type", self.TYPE)
        if self.present == -1:
            object.__setattr__(self, "present", full)
        if not self.head_size() <= self.present <= full or (self.rest and self.present != full):
            raise TableError(
                f"no {self.NAME} has {self.present} bytes and {len(self.rest)} behind them", field="length"
            )
        object.__setattr__(self, "length", self.present + len(self.rest))
        super().__post_init__()
        if any(super().pack()[self.present :]):
            raise TableError(f"a {self.NAME} of {self.present} bytes has no such field", field="length")

    @classmethod
    def head_size(cls) -> int:
        """Bytes of type and length, which each has."""
        return next(item.offset + item.size for item in layout(cls) if item.name == "length")

    def pack(self) -> bytes:
        """The bytes that are there."""
        return super().pack()[: self.present] + self.rest

    @classmethod
    def of_bytes(cls, data: bytes, *, signature: str) -> Self:
        """The structure that all of `data` is; its length field is right."""
        full = cls.size_of()
        values: dict[str, Any] = cls.read(data[:full].ljust(full, b"\0"), 0, signature=signature)
        return cls(**values, present=min(len(data), full), rest=data[full:])

    def walk(self, at: int, path: str = "", title: str = "") -> Iterator[FieldValue]:
        """The fields that are there; of one that is cut, and behind the last, bytes."""
        end = at
        for each in super().walk(at, path, title):
            if each.offset + each.size > at + self.present:
                break
            yield each
            end = each.offset + each.size
        if left := self.pack()[end - at :]:
            yield FieldValue(f"{path}rest", f"{title}Data", end, len(left), left)


@dataclass(frozen=True, kw_only=True)
class Structure(Sized):
    """A structure whose length has one byte: of MADT and SRAT."""

    type: int = u8("Type")
    length: int = u8("Length")


@dataclass(frozen=True, kw_only=True)
class LongStructure(Sized):
    """A structure whose length has two bytes: of GTDT."""

    type: int = u8("Type")
    length: int = u16("Length")


_S = TypeVar("_S", bound=Sized)


def kinds_of(*kinds: type[_S]) -> dict[int, type[_S]]:
    """The classes by their types."""
    return {kind.TYPE: kind for kind in kinds}


def read(
    data: bytes,
    at: int,
    kinds: Mapping[int, type[_S]],
    unknown: type[_S],
    *,
    signature: str,
    most: int = MAX_STRUCTURES,
) -> tuple[tuple[_S, ...], int]:
    """The structures from offset `at` of the table `data` on, and where what is none begins (the end, if all are).

    Args:
        data: the table.
        at: offset of the first.
        kinds: the class for each type.
        unknown: the class for all others.
        signature: of the table.
        most: how many at most.
    """
    found: list[_S] = []
    head = unknown.head_size()
    while at + head <= len(data) and len(found) < most:
        length = int.from_bytes(data[at + 1 : at + head], "little")
        if length < head or at + length > len(data):
            break
        kind = kinds.get(data[at], unknown)
        try:
            found.append(kind.of_bytes(data[at : at + length], signature=signature))
        except TableError:
            break
        at += length
    return tuple(found), at


def walk(structures: Iterable[Sized], at: int) -> Iterator[FieldValue]:
    """The fields of all structures, from offset `at` on. Those of one kind are numbered by themselves."""
    seen: Counter[str] = Counter()
    for each in structures:
        number = seen[each.NAME]
        seen[each.NAME] += 1
        yield from each.walk(at, f"{name_of(each)}[{number}].", f"{each.NAME} {number}: ")
        at += len(each.pack())


def name_of(structure: Sized) -> str:
    """The part of its fields' names that says its kind: `gic_msi_frame`."""
    return structure.NAME.lower().replace(" ", "_").replace("/", "")


def packed(structures: Iterable[Sized]) -> bytes:
    """The bytes of all."""
    return b"".join(each.pack() for each in structures)
