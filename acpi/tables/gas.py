"""Generic Address Structure: a register, in whatever address space (ACPI 6.5 5.2.3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from qemu_sdei.acpi.layout import Struct, named, u8, u64


class AddressSpace(IntEnum):
    """Where a register is (ACPI 6.5 table 5.1)."""

    SYSTEM_MEMORY = 0
    SYSTEM_IO = 1
    PCI_CONFIG = 2
    EMBEDDED_CONTROLLER = 3
    SMBUS = 4
    CMOS = 5
    PCI_BAR = 6
    IPMI = 7
    GPIO = 8
    GENERIC_SERIAL_BUS = 9
    PLATFORM_COMMUNICATIONS_CHANNEL = 0xA
    PLATFORM_RUNTIME_MECHANISM = 0xB
    FIXED_HARDWARE = 0x7F


class AccessSize(IntEnum):
    """How wide each access is; before ACPI 3.0 this byte was reserved."""

    UNDEFINED = 0
    BYTE = 1
    WORD = 2
    DWORD = 3
    QWORD = 4


def _space(value: int) -> str:
    return "OEM defined" if value >= 0xC0 else named(AddressSpace)(value)


@dataclass(frozen=True, kw_only=True)
class Gas(Struct):
    """A register: 12 bytes."""

    space: int = u8("Space ID", words=_space)
    """An `AddressSpace`."""
    bit_width: int = u8("Bit Width")
    bit_offset: int = u8("Bit Offset")
    access_size: int = u8("Access Size", words=named(AccessSize))
    """An `AccessSize`."""
    address: int = u64("Address")

    @classmethod
    def memory(cls, address: int, *, width: int = 64) -> Self:
        """A register of 8, 16, 32 or 64 bits in memory, at a physical address."""
        return cls(bit_width=width, access_size=width.bit_length() - 3, address=address)

    def __bool__(self) -> bool:
        """False for all zeros, which says that there is no such register."""
        return any(self.pack())
