"""ERST: how error records are kept over a reset (ACPI 6.5 18.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

from qemu_sdei.acpi.layout import FieldValue, named, u8, u32
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Table
from qemu_sdei.acpi.tables import action


class ErstAction(IntEnum):
    """What an entry is part of (ACPI 6.5 table 18.16)."""

    BEGIN_WRITE_OPERATION = 0
    BEGIN_READ_OPERATION = 1
    BEGIN_CLEAR_OPERATION = 2
    END_OPERATION = 3
    SET_RECORD_OFFSET = 4
    EXECUTE_OPERATION = 5
    CHECK_BUSY_STATUS = 6
    GET_COMMAND_STATUS = 7
    GET_RECORD_IDENTIFIER = 8
    SET_RECORD_IDENTIFIER = 9
    GET_RECORD_COUNT = 0xA
    BEGIN_DUMMY_WRITE_OPERATION = 0xB
    GET_ERROR_LOG_ADDRESS_RANGE = 0xD
    GET_ERROR_LOG_ADDRESS_RANGE_LENGTH = 0xE
    GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES = 0xF
    GET_EXECUTE_OPERATION_TIMINGS = 0x10


class ErstInstruction(IntEnum):
    """What is done to the register (ACPI 6.5 table 18.20)."""

    READ_REGISTER = 0
    READ_REGISTER_VALUE = 1
    WRITE_REGISTER = 2
    WRITE_REGISTER_VALUE = 3
    NOOP = 4
    LOAD_VAR1 = 5
    LOAD_VAR2 = 6
    STORE_VAR1 = 7
    ADD = 8
    SUBTRACT = 9
    ADD_VALUE = 0xA
    SUBTRACT_VALUE = 0xB
    STALL = 0xC
    STALL_WHILE_TRUE = 0xD
    SKIP_NEXT_INSTRUCTION_IF_TRUE = 0xE
    GOTO = 0xF
    SET_SRC_ADDRESS_BASE = 0x10
    SET_DST_ADDRESS_BASE = 0x11
    MOVE_DATA = 0x12


@dataclass(frozen=True, kw_only=True)
class ErstEntry(action.Entry):
    """One instruction: 32 bytes."""

    action: int = u8("Action", words=named(ErstAction))
    """An `ErstAction`."""
    instruction: int = u8("Instruction", words=named(ErstInstruction))
    """An `ErstInstruction`."""


@dataclass(frozen=True, kw_only=True)
class Erst(Table):
    """The `entries`, each an instruction of 32 bytes on a register."""

    SIGNATURE: ClassVar[str] = "ERST"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 1)
    ONCE: ClassVar[bool] = True

    header_size: int = u32("Serialization Header Size", default=48)
    """Bytes, with those of the table's header."""
    reserved: int = u32("Reserved")
    entry_count: int = u32("Instruction Entry Count")
    entries: tuple[ErstEntry, ...] = ()

    def body(self) -> bytes:
        """The fields and the entries."""
        return self.pack() + b"".join(each.pack() for each in self.entries)

    @classmethod
    def of(cls, *entries: ErstEntry) -> Self:
        """A table of these entries."""
        return cls(entries=entries, entry_count=len(entries))

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        values = cls.read(data, HEADER_SIZE, signature=cls.SIGNATURE)
        start = HEADER_SIZE + cls.size_of()
        found = action.read(ErstEntry, data, start, values["entry_count"], signature=cls.SIGNATURE)
        end = start + len(found) * ErstEntry.size_of()
        return cls(revision=header.revision, oem=header.oem, entries=found, tail=data[end:], **values)

    def body_fields(self) -> Iterator[FieldValue]:
        """The fields and those of all entries."""
        yield from self.walk(HEADER_SIZE)
        yield from action.walk(self.entries, HEADER_SIZE + self.size_of())
