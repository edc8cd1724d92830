"""SRAT: which CPUs, memory and devices are near each other (ACPI 6.5 5.2.16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from qemu_sdei.acpi.layout import FieldValue, flags, octets, u8, u16, u24, u32, u64
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Table
from qemu_sdei.acpi.tables import structures
from qemu_sdei.acpi.tables.structures import Structure

ENABLED: Final = 1 << 0
HOT_PLUGGABLE: Final = 1 << 1
_CPU: Final = flags({0: "enabled"})
_MEMORY: Final = flags({0: "enabled", 1: "hot pluggable", 2: "non-volatile"})
_INITIATOR: Final = flags({0: "enabled", 1: "architectural transactions"})


def _handle(value: int) -> str:
    return {0: "ACPI device", 1: "PCI device"}.get(value, "reserved value")


@dataclass(frozen=True, kw_only=True)
class OtherAffinity(Structure):
    """A structure of a type that has no class here."""


@dataclass(frozen=True, kw_only=True)
class ApicAffinity(Structure):
    """Type 0, a CPU by its local APIC (5.2.16.1)."""

    TYPE: ClassVar[int] = 0
    NAME: ClassVar[str] = "APIC affinity"
    domain_low: int = u8("Proximity Domain [7:0]")
    apic_id: int = u8("APIC ID")
    flags: int = u32("Flags", words=_CPU)
    sapic_eid: int = u8("Local SAPIC EID")
    domain_high: int = u24("Proximity Domain [31:8]")
    clock_domain: int = u32("Clock Domain")


@dataclass(frozen=True, kw_only=True)
class MemoryAffinity(Structure):
    """Type 1, a range of memory (5.2.16.2)."""

    TYPE: ClassVar[int] = 1
    NAME: ClassVar[str] = "memory affinity"
    domain: int = u32("Proximity Domain")
    reserved: int = u16("Reserved")
    base: int = u64("Base Address")
    size: int = u64("Memory Length")
    """Bytes."""
    reserved2: int = u32("Reserved")
    flags: int = u32("Flags", words=_MEMORY)
    reserved3: int = u64("Reserved")


@dataclass(frozen=True, kw_only=True)
class X2ApicAffinity(Structure):
    """Type 2, a CPU by its x2APIC (5.2.16.3)."""

    TYPE: ClassVar[int] = 2
    NAME: ClassVar[str] = "x2APIC affinity"
    reserved: int = u16("Reserved")
    domain: int = u32("Proximity Domain")
    apic_id: int = u32("X2APIC ID")
    flags: int = u32("Flags", words=_CPU)
    clock_domain: int = u32("Clock Domain")
    reserved2: int = u32("Reserved")


@dataclass(frozen=True, kw_only=True)
class GiccAffinity(Structure):
    """Type 3, an Arm CPU by its UID in the MADT (5.2.16.4)."""

    TYPE: ClassVar[int] = 3
    NAME: ClassVar[str] = "GICC affinity"
    domain: int = u32("Proximity Domain")
    uid: int = u32("ACPI Processor UID")
    flags: int = u32("Flags", words=_CPU)
    clock_domain: int = u32("Clock Domain")


@dataclass(frozen=True, kw_only=True)
class ItsAffinity(Structure):
    """Type 4, an interrupt translation service (5.2.16.5)."""

    TYPE: ClassVar[int] = 4
    NAME: ClassVar[str] = "GIC ITS affinity"
    domain: int = u32("Proximity Domain")
    reserved: int = u16("Reserved")
    its_id: int = u32("ITS ID")


@dataclass(frozen=True, kw_only=True)
class InitiatorAffinity(Structure):
    """Type 5, a device that reads and writes memory (5.2.16.6)."""

    TYPE: ClassVar[int] = 5
    NAME: ClassVar[str] = "generic initiator affinity"
    reserved: int = u8("Reserved")
    handle_type: int = u8("Device Handle Type", words=_handle)
    domain: int = u32("Proximity Domain")
    handle: bytes = octets(16, "Device Handle")
    flags: int = u32("Flags", words=_INITIATOR)
    reserved2: int = u32("Reserved")


@dataclass(frozen=True, kw_only=True)
class PortAffinity(InitiatorAffinity):
    """Type 6, a port to devices with memory of their own (5.2.16.7)."""

    TYPE: ClassVar[int] = 6
    NAME: ClassVar[str] = "generic port affinity"


_KINDS: Final[dict[int, type[Structure]]] = structures.kinds_of(
    ApicAffinity, MemoryAffinity, X2ApicAffinity, GiccAffinity, ItsAffinity, InitiatorAffinity, PortAffinity
)


@dataclass(frozen=True, kw_only=True)
class Srat(Table):
    """The `affinities`: CPUs, memory, devices, each with its proximity domain; others as bytes.

    From the first that is no structure on, bytes are kept in `tail`.
    """

    SIGNATURE: ClassVar[str] = "SRAT"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 3)
    ONCE: ClassVar[bool] = True

    revision: int = 3
    reserved: int = u32("Reserved (1)", default=1)
    reserved2: int = u64("Reserved")
    affinities: tuple[Structure, ...] = ()

    def body(self) -> bytes:
        """The reserved fields and the structures."""
        return self.pack() + structures.packed(self.affinities)

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        values = cls.read(data, HEADER_SIZE, signature=cls.SIGNATURE)
        found, end = structures.read(data, HEADER_SIZE + cls.size_of(), _KINDS, OtherAffinity, signature=cls.SIGNATURE)
        return cls(revision=header.revision, oem=header.oem, affinities=found, tail=data[end:], **values)

    def body_fields(self) -> Iterator[FieldValue]:
        """The reserved fields and those of all structures."""
        yield from self.walk(HEADER_SIZE)
        yield from structures.walk(self.affinities, HEADER_SIZE + self.size_of())
