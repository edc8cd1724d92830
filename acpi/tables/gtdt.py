"""GTDT: the generic timers of Arm, and their watchdogs (ACPI 6.5 5.2.25)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue, Struct, flags, u8, u24, u32, u64
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Table
from qemu_sdei.acpi.tables import structures
from qemu_sdei.acpi.tables.structures import LongStructure

SIZES: Final = {1: 80, 2: 96, 3: 104}
"""Bytes of the fields in front of the platform timers, by revision."""
_MOST: Final = 1 << 10
"""Platform timers that are read."""
_TIMER: Final = flags({0: "edge", 1: "active low", 2: "always on"})
_INTERRUPT: Final = flags({0: "edge", 1: "active low"})


@dataclass(frozen=True, kw_only=True)
class TimerFrame(Struct):
    """One timer of a GT block: 40 bytes (ACPI 6.5 5.2.25.1)."""

    number: int = u8("GT Frame Number")
    reserved: int = u24("Reserved")
    base: int = u64("GTx Physical Address")
    el0_base: int = u64("GTx EL0 Physical Address")
    physical_interrupt: int = u32("GTx Physical Timer GSIV")
    physical_flags: int = u32("GTx Physical Timer Flags", words=_INTERRUPT)
    virtual_interrupt: int = u32("GTx Virtual Timer GSIV")
    virtual_flags: int = u32("GTx Virtual Timer Flags", words=_INTERRUPT)
    common_flags: int = u32("GTx Common Flags", words=flags({0: "secure", 1: "always on"}))


@dataclass(frozen=True, kw_only=True)
class OtherTimer(LongStructure):
    """A structure of a type that has no class here."""


@dataclass(frozen=True, kw_only=True)
class GtBlock(LongStructure):
    """Type 0: a block of timers in memory (5.2.25.1); they are in `rest`, `timers` reads them."""

    TYPE: ClassVar[int] = 0
    NAME: ClassVar[str] = "GT block"
    reserved: int = u8("Reserved")
    base: int = u64("GT Block Physical Address")
    timer_count: int = u32("GT Block Timer Count")
    timer_offset: int = u32("GT Block Timer Offset", default=20)

    @property
    def timers(self) -> tuple[TimerFrame, ...]:
        """The timers, as many as there are; none if they do not follow at once."""
        if self.timer_offset != self.size_of():
            return ()
        size = TimerFrame.size_of()
        count = min(self.timer_count, len(self.rest) // size)
        return tuple(TimerFrame.unpack(self.rest, number * size, signature="GTDT") for number in range(count))

    def walk(self, at: int, path: str = "", title: str = "") -> Iterator[FieldValue]:
        """The block's fields and those of its timers."""
        timers = self.timers
        start, size = at + self.size_of(), TimerFrame.size_of()
        for each in super().walk(at, path, title):
            if each.offset < start or not timers:
                yield each
        for number, timer in enumerate(timers):
            yield from timer.walk(start + number * size, f"{path}timers[{number}].", f"{title}Timer {number}: ")
        if timers and (left := self.rest[len(timers) * size :]):
            end = start + len(timers) * size
            yield FieldValue(f"{path}rest", f"{title}Data", end, len(left), left)


@dataclass(frozen=True, kw_only=True)
class Watchdog(LongStructure):
    """Type 1: an Arm generic watchdog (5.2.25.2)."""

    TYPE: ClassVar[int] = 1
    NAME: ClassVar[str] = "generic watchdog"
    reserved: int = u8("Reserved")
    refresh_frame: int = u64("Refresh Frame Physical Address")
    control_frame: int = u64("Watchdog Control Frame Physical Address")
    interrupt: int = u32("Watchdog Timer GSIV")
    flags: int = u32("Watchdog Timer Flags", words=flags({0: "edge", 1: "active low", 2: "secure"}))


_KINDS: Final[dict[int, type[LongStructure]]] = structures.kinds_of(GtBlock, Watchdog)


@dataclass(frozen=True, kw_only=True)
class Gtdt(Table):
    """The timers of the CPUs, and `timers` of the platform: blocks in memory, watchdogs. Revisions 1 to 3."""

    SIGNATURE: ClassVar[str] = "GTDT"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 3)
    ONCE: ClassVar[bool] = True

    revision: int = 3
    size: int = SIZES[3]
    """Bytes, with the header, of the fields that are there; platform timers are not counted."""
    control_base: int = u64("CntControlBase Physical Address")
    reserved: int = u32("Reserved")
    """Global flags in revision 1."""
    secure_el1_interrupt: int = u32("Secure EL1 Timer GSIV")
    secure_el1_flags: int = u32("Secure EL1 Timer Flags", words=_TIMER)
    el1_interrupt: int = u32("Non-Secure EL1 Timer GSIV")
    el1_flags: int = u32("Non-Secure EL1 Timer Flags", words=_TIMER)
    virtual_interrupt: int = u32("Virtual EL1 Timer GSIV")
    virtual_flags: int = u32("Virtual EL1 Timer Flags", words=_TIMER)
    el2_interrupt: int = u32("EL2 Timer GSIV")
    el2_flags: int = u32("EL2 Timer Flags", words=_TIMER)
    read_base: int = u64("CntReadBase Physical Address")
    """From revision 2 on, as the next two."""
    timer_count: int = u32("Platform Timer Count")
    timer_offset: int = u32("Platform Timer Offset")
    el2_virtual_interrupt: int = u32("Virtual EL2 Timer GSIV")
    """From revision 3 on, as the next."""
    el2_virtual_flags: int = u32("Virtual EL2 Timer Flags", words=_TIMER)
    gap: bytes = b""
    """What is in front of the first platform timer and no field."""
    timers: tuple[LongStructure, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, int) or not HEADER_SIZE <= self.size <= SIZES[3]:
            raise TableError(
                f"its fields have {SIZES[3]} bytes at most, not {self.size!r}", signature="GTDT", field="size"
            )
        if any(self.pack()[self.size - HEADER_SIZE :]):
            raise TableError(f"a table of {self.size} bytes has no such field", signature="GTDT", field="size")

    def body(self) -> bytes:
        """The fields that are there and the platform timers."""
        return self.pack()[: self.size - HEADER_SIZE] + self.gap + structures.packed(self.timers)

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        full = SIZES[3]
        values: dict[str, Any] = cls.read(data[:full].ljust(full, b"\0"), HEADER_SIZE, signature="GTDT")
        count, start = values["timer_count"], values["timer_offset"]
        size = min(len(data), full)
        if len(data) < SIZES[1]:
            raise TableError(
                f"cut short: no GTDT has less than {SIZES[1]} bytes, this one {len(data)}",
                signature="GTDT", offset=4, field="length",
            )  # fmt: skip
        found: tuple[LongStructure, ...] = ()
        end = start
        if count and SIZES[2] <= start <= len(data):
            found, end = structures.read(data, start, _KINDS, OtherTimer, signature="GTDT", most=min(count, _MOST))
        if not found:  # none, or an offset that cannot be theirs
            return cls(revision=header.revision, oem=header.oem, size=size, tail=data[full:], **values)
        if start < full:  # what follows is the first timer's
            size = SIZES[2]
            values["el2_virtual_interrupt"] = values["el2_virtual_flags"] = 0
        return cls(
            revision=header.revision, oem=header.oem, size=size, gap=data[size:start], timers=found, tail=data[end:],
            **values,
        )  # fmt: skip

    def body_fields(self) -> Iterator[FieldValue]:
        """The fields that are there, and those of the platform timers."""
        end = HEADER_SIZE
        for each in self.walk(HEADER_SIZE):
            if each.offset + each.size <= self.size:
                yield each
                end = each.offset + each.size
        start = self.size + len(self.gap)
        if end < start:
            left = self.to_bytes()[end:start]
            yield FieldValue("gap", "Data", end, len(left), left)
        yield from structures.walk(self.timers, start)
