"""MADT: the interrupt controllers and the CPUs (ACPI 6.5 5.2.12)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from qemu_sdei.acpi.layout import FieldValue, flags, octets, u8, u16, u24, u32, u64
from qemu_sdei.acpi.table import HEADER_SIZE, Header, Table
from qemu_sdei.acpi.tables import structures
from qemu_sdei.acpi.tables.structures import Structure

ENABLED: Final = 1 << 0
ONLINE_CAPABLE: Final = 1 << 3
_CPU: Final = flags({0: "enabled", 1: "online capable"})
_GICC: Final = flags({0: "enabled", 1: "performance interrupt by edge", 2: "VGIC interrupt by edge",
                      3: "online capable"})  # fmt: skip
_COHERENCE: Final = flags({0: "not coherent"})


def _mps(value: int) -> str:
    """Polarity and trigger mode of an interrupt (ACPI 6.5 table 5.26)."""
    polarity = ("polarity as the bus has it", "active high", "reserved polarity", "active low")[value & 3]
    trigger = ("trigger as the bus has it", "edge", "reserved trigger", "level")[value >> 2 & 3]
    return f"{polarity}, {trigger}"


def _version(value: int) -> str:
    return {0: "to be found out", 1: "GICv1", 2: "GICv2", 3: "GICv3", 4: "GICv4"}.get(value, "unknown")


@dataclass(frozen=True, kw_only=True)
class OtherController(Structure):
    """A structure of a type that has no class here."""


@dataclass(frozen=True, kw_only=True)
class LocalApic(Structure):
    """Type 0 (5.2.12.2)."""

    TYPE: ClassVar[int] = 0
    NAME: ClassVar[str] = "local APIC"
    uid: int = u8("ACPI Processor UID")
    apic_id: int = u8("APIC ID")
    flags: int = u32("Flags", words=_CPU)


@dataclass(frozen=True, kw_only=True)
class IoApic(Structure):
    """Type 1 (5.2.12.3)."""

    TYPE: ClassVar[int] = 1
    NAME: ClassVar[str] = "I/O APIC"
    apic_id: int = u8("I/O APIC ID")
    reserved: int = u8("Reserved")
    address: int = u32("I/O APIC Address")
    gsi_base: int = u32("Global System Interrupt Base")


@dataclass(frozen=True, kw_only=True)
class SourceOverride(Structure):
    """Type 2 (5.2.12.5)."""

    TYPE: ClassVar[int] = 2
    NAME: ClassVar[str] = "interrupt source override"
    bus: int = u8("Bus")
    source: int = u8("Source")
    gsi: int = u32("Global System Interrupt")
    flags: int = u16("Flags", words=_mps)


@dataclass(frozen=True, kw_only=True)
class NmiSource(Structure):
    """Type 3 (5.2.12.6)."""

    TYPE: ClassVar[int] = 3
    NAME: ClassVar[str] = "NMI source"
    flags: int = u16("Flags", words=_mps)
    gsi: int = u32("Global System Interrupt")


@dataclass(frozen=True, kw_only=True)
class LocalApicNmi(Structure):
    """Type 4 (5.2.12.7)."""

    TYPE: ClassVar[int] = 4
    NAME: ClassVar[str] = "local APIC NMI"
    uid: int = u8("ACPI Processor UID")
    flags: int = u16("Flags", words=_mps)
    lint: int = u8("Local APIC LINT#")


@dataclass(frozen=True, kw_only=True)
class LocalApicAddress(Structure):
    """Type 5 (5.2.12.8)."""

    TYPE: ClassVar[int] = 5
    NAME: ClassVar[str] = "local APIC address override"
    reserved: int = u16("Reserved")
    address: int = u64("Local APIC Address")


@dataclass(frozen=True, kw_only=True)
class LocalX2Apic(Structure):
    """Type 9 (5.2.12.12)."""

    TYPE: ClassVar[int] = 9
    NAME: ClassVar[str] = "local x2APIC"
    reserved: int = u16("Reserved")
    apic_id: int = u32("X2APIC ID")
    flags: int = u32("Flags", words=_CPU)
    uid: int = u32("ACPI Processor UID")


@dataclass(frozen=True, kw_only=True)
class LocalX2ApicNmi(Structure):
    """Type 0xA (5.2.12.13)."""

    TYPE: ClassVar[int] = 0xA
    NAME: ClassVar[str] = "local x2APIC NMI"
    flags: int = u16("Flags", words=_mps)
    uid: int = u32("ACPI Processor UID")
    lint: int = u8("Local x2APIC LINT#")
    reserved: int = u24("Reserved")


@dataclass(frozen=True, kw_only=True)
class Gicc(Structure):
    """Type 0xB, a GIC CPU interface: an Arm CPU (5.2.12.14). 76 bytes in ACPI 5.1, 80 since 6.0, 82 since 6.5."""

    TYPE: ClassVar[int] = 0xB
    NAME: ClassVar[str] = "GICC"
    reserved: int = u16("Reserved")
    interface: int = u32("CPU Interface Number")
    uid: int = u32("ACPI Processor UID")
    flags: int = u32("Flags", words=_GICC)
    parking_version: int = u32("Parking Protocol Version")
    performance_interrupt: int = u32("Performance Interrupt GSIV")
    parked_address: int = u64("Parked Address")
    base: int = u64("Physical Base Address")
    gicv: int = u64("GICV")
    gich: int = u64("GICH")
    maintenance_interrupt: int = u32("VGIC Maintenance Interrupt")
    gicr_base: int = u64("GICR Base Address")
    """Of a redistributor that no GICR structure covers."""
    mpidr: int = u64("MPIDR")
    efficiency: int = u8("Processor Power Efficiency Class")
    reserved2: int = u8("Reserved")
    spe_interrupt: int = u16("SPE Overflow Interrupt")
    trbe_interrupt: int = u16("TRBE Interrupt")

    @property
    def usable(self) -> bool:
        """Enabled, or online capable."""
        return bool(self.flags & (ENABLED | ONLINE_CAPABLE))


@dataclass(frozen=True, kw_only=True)
class Gicd(Structure):
    """Type 0xC, the GIC's distributor (5.2.12.15)."""

    TYPE: ClassVar[int] = 0xC
    NAME: ClassVar[str] = "GICD"
    reserved: int = u16("Reserved")
    gic_id: int = u32("GIC ID")
    base: int = u64("Physical Base Address")
    vector_base: int = u32("System Vector Base")
    version: int = u8("GIC Version", words=_version)
    reserved2: int = u24("Reserved")


@dataclass(frozen=True, kw_only=True)
class GicMsiFrame(Structure):
    """Type 0xD (5.2.12.16)."""

    TYPE: ClassVar[int] = 0xD
    NAME: ClassVar[str] = "GIC MSI frame"
    reserved: int = u16("Reserved")
    frame_id: int = u32("GIC MSI Frame ID")
    base: int = u64("Physical Base Address")
    flags: int = u32("Flags", words=flags({0: "SPI count and base as they stand here"}))
    spi_count: int = u16("SPI Count")
    spi_base: int = u16("SPI Base")


@dataclass(frozen=True, kw_only=True)
class Gicr(Structure):
    """Type 0xE, a range of redistributors (5.2.12.17)."""

    TYPE: ClassVar[int] = 0xE
    NAME: ClassVar[str] = "GICR"
    flags: int = u8("Flags", words=_COHERENCE)
    """Reserved in ACPI 6.5; bit 0 came with 6.6."""
    reserved: int = u8("Reserved")
    base: int = u64("Discovery Range Base Address")
    range_length: int = u32("Discovery Range Length")
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class GicIts(Structure):
    """Type 0xF, an interrupt translation service (5.2.12.18)."""

    TYPE: ClassVar[int] = 0xF
    NAME: ClassVar[str] = "GIC ITS"
    flags: int = u8("Flags", words=_COHERENCE)
    """Reserved in ACPI 6.5; bit 0 came with 6.6."""
    reserved: int = u8("Reserved")
    its_id: int = u32("GIC ITS ID")
    base: int = u64("Physical Base Address")
    reserved2: int = u32("Reserved")


@dataclass(frozen=True, kw_only=True)
class Wakeup(Structure):
    """Type 0x10, multiprocessor wakeup (5.2.12.19)."""

    TYPE: ClassVar[int] = 0x10
    NAME: ClassVar[str] = "multiprocessor wakeup"
    version: int = u16("Mailbox Version")
    reserved: bytes = octets(4, "Reserved")
    mailbox: int = u64("Mailbox Address")


_KINDS: Final[dict[int, type[Structure]]] = structures.kinds_of(
    LocalApic, IoApic, SourceOverride, NmiSource, LocalApicNmi, LocalApicAddress, LocalX2Apic, LocalX2ApicNmi, Gicc,
    Gicd, GicMsiFrame, Gicr, GicIts, Wakeup,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Madt(Table):
    """The `controllers`: CPUs and interrupt controllers of Arm (`Gicc`, `Gicd`, `Gicr`, ...) and x86, others as bytes.

    From the first that is no structure on, bytes are kept in `tail`.
    """

    SIGNATURE: ClassVar[str] = "APIC"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 6)
    ONCE: ClassVar[bool] = True

    revision: int = 6
    local_apic: int = u32("Local Interrupt Controller Address")
    """Of x86; Arm has 0."""
    flags: int = u32("Flags", words=flags({0: "PCAT_COMPAT"}))
    controllers: tuple[Structure, ...] = ()

    def body(self) -> bytes:
        """The two fields and the structures."""
        return self.pack() + structures.packed(self.controllers)

    @classmethod
    def _from_body(cls, data: bytes, header: Header) -> Self:
        values = cls.read(data, HEADER_SIZE, signature=cls.SIGNATURE)
        found, end = structures.read(
            data, HEADER_SIZE + cls.size_of(), _KINDS, OtherController, signature=cls.SIGNATURE
        )
        return cls(revision=header.revision, oem=header.oem, controllers=found, tail=data[end:], **values)

    def body_fields(self) -> Iterator[FieldValue]:
        """The two fields and those of all structures."""
        yield from self.walk(HEADER_SIZE)
        yield from structures.walk(self.controllers, HEADER_SIZE + self.size_of())
