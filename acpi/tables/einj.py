"""EINJ: how errors are injected (ACPI 6.5 18.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

from qemu_sdei.acpi.layout import FieldValue, named, u8, u24, u32
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Table
from qemu_sdei.acpi.tables import action


class EinjAction(IntEnum):
    """What an entry is part of (ACPI 6.5 table 18.24)."""

    BEGIN_INJECTION_OPERATION = 0
    GET_TRIGGER_ERROR_ACTION_TABLE = 1
    SET_ERROR_TYPE = 2
    GET_ERROR_TYPE = 3
    END_OPERATION = 4
    EXECUTE_OPERATION = 5
    CHECK_BUSY_STATUS = 6
    GET_COMMAND_STATUS = 7
    SET_ERROR_TYPE_WITH_ADDRESS = 8
    GET_EXECUTE_OPERATION_TIMINGS = 9
    EINJV2_SET_ERROR_TYPE = 0x10
    EINJV2_GET_ERROR_TYPE = 0x11
    TRIGGER_ERROR = 0xFF


class EinjInstruction(IntEnum):
    """What is done to the register (ACPI 6.5 table 18.27)."""

    READ_REGISTER = 0
    READ_REGISTER_VALUE = 1
    WRITE_REGISTER = 2
    WRITE_REGISTER_VALUE = 3
    NOOP = 4


@dataclass(frozen=True, kw_only=True)
class EinjEntry(action.Entry):
    """One instruction: 32 bytes."""

    action: int = u8("Action", words=named(EinjAction))
    """An `EinjAction`."""
    instruction: int = u8("Instruction", words=named(EinjInstruction))
    """An `EinjInstruction`."""


@dataclass(frozen=True, kw_only=True)
class Einj(Table):
    """The `entries`, each an instruction of 32 bytes on a register."""

    SIGNATURE: ClassVar[str] = "EINJ"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 2)
    ONCE: ClassVar[bool] = True

    header_size: int = u32("Injection Header Size", default=12)
    """Bytes."""
    flags: int = u8("Injection Flags")
    reserved: int = u24("Reserved")
    entry_count: int = u32("Injection Entry Count")
    entries: tuple[EinjEntry, ...] = ()

    def body(self) -> bytes:
        """The fields and the entries."""
        return self.pack() + b"".join(each.pack() for each in self.entries)

    @classmethod
    def of(cls, *entries: EinjEntry) -> Self:
        """A table of these entries."""
        return cls(entries=entries, entry_count=len(entries))

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        values = cls.read(data, HEADER_SIZE, signature=cls.SIGNATURE)
        start = HEADER_SIZE + cls.size_of()
        found = action.read(EinjEntry, data, start, values["entry_count"], signature=cls.SIGNATURE)
        end = start + len(found) * EinjEntry.size_of()
        return cls(revision=header.revision, oem=header.oem, entries=found, tail=data[end:], **values)

    def body_fields(self) -> Iterator[FieldValue]:
        """The fields and those of all entries."""
        yield from self.walk(HEADER_SIZE)
        yield from action.walk(self.entries, HEADER_SIZE + self.size_of())
