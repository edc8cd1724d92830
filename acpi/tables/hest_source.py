"""The error sources that a HEST is made of (ACPI 6.5 18.3.2.1 to 18.3.2.11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, ClassVar, Final, Self

from qemu_sdei.acpi.errors import TableError
from qemu_sdei.acpi.layout import FieldValue, Struct, flags, named, octets, part, u8, u16, u24, u32, u64
from qemu_sdei.acpi.tables.gas import Gas
from qemu_sdei.acpi.tables.hest_notification import Notification

NO_SOURCE: Final = 0xFFFF
"""A `related_source_id` that names no source."""


class SourceType(IntEnum):
    """What kind of source it is (ACPI 6.5 18.3.2); 3, 4 and 5 are reserved."""

    MACHINE_CHECK = 0
    CORRECTED_MACHINE_CHECK = 1
    NMI = 2
    AER_ROOT_PORT = 6
    AER_ENDPOINT = 7
    AER_BRIDGE = 8
    GHES = 9
    GHES_V2 = 10
    DEFERRED_MACHINE_CHECK = 11


_SOURCE_WORDS: Final = {
    0: "IA-32 machine check exception", 1: "IA-32 corrected machine check", 2: "IA-32 NMI",
    6: "PCIe root port AER", 7: "PCIe device AER", 8: "PCIe bridge AER", 9: "generic hardware error source",
    10: "generic hardware error source, version 2", 11: "IA-32 deferred machine check",
}  # fmt: skip


def _enabled(value: int) -> str:
    return {0: "disabled", 1: "enabled"}.get(value, "reserved value")


_FLAGS = flags({0: "firmware first", 1: "global", 2: "GHES assist"})


def _source_id(value: int) -> str:
    return "no related source" if value == NO_SOURCE else ""


@dataclass(frozen=True, kw_only=True)
class MachineCheckBank(Struct):
    """One bank of machine-check registers: 28 bytes (ACPI 6.5 18.3.2.1.1)."""

    number: int = u8("Bank Number")
    clear_status: int = u8("Clear Status On Initialization")
    data_format: int = u8("Status Data Format")
    reserved: int = u8("Reserved")
    control_register: int = u32("Control Register")
    control_data: int = u64("Control Init Data")
    status_register: int = u32("Status Register")
    address_register: int = u32("Address Register")
    misc_register: int = u32("Misc Register")


@dataclass(frozen=True, kw_only=True)
class Source(Struct):
    """Base of the error sources."""

    TYPE: ClassVar[int] = -1
    type: int = u16("Type", words=named(SourceType, _SOURCE_WORDS))
    """A `SourceType`; each class has its own."""
    source_id: int = u16("Source ID")

    def __post_init__(self) -> None:
        if self.TYPE >= 0:
            object.__setattr__(self, "type", self.TYPE)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class _WithBanks(Source):
    banks: tuple[MachineCheckBank, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "banks", tuple(self.banks))
        if len(self.banks) > 255:
            raise TableError(f"{len(self.banks)} banks are too many", field="banks")
        object.__setattr__(self, "bank_count", len(self.banks))

    def pack(self) -> bytes:
        return super().pack() + b"".join(bank.pack() for bank in self.banks)

    @classmethod
    def unpack(cls, data: bytes, at: int, *, signature: str, path: str = "") -> Self:
        values: dict[str, Any] = cls.read(data, at, signature=signature, path=path)
        start, size = at + cls.size_of(), MachineCheckBank.size_of()
        banks = tuple(
            MachineCheckBank.unpack(data, start + number * size, signature=signature, path=f"{path}banks[{number}].")
            for number in range(values["bank_count"])
        )
        return cls(**values, banks=banks)

    def walk(self, at: int, path: str = "", title: str = "") -> Iterator[FieldValue]:
        yield from super().walk(at, path, title)
        for number, bank in enumerate(self.banks):
            start = at + self.size_of() + number * bank.size_of()
            yield from bank.walk(start, f"{path}banks[{number}].", f"{title}Bank {number}: ")


@dataclass(frozen=True, kw_only=True)
class MachineCheck(_WithBanks):
    """Type 0, IA-32 machine check exceptions: 40 bytes and 28 for each bank."""

    TYPE: ClassVar[int] = SourceType.MACHINE_CHECK
    reserved: int = u16("Reserved")
    flags: int = u8("Flags", words=_FLAGS)
    enabled: int = u8("Enabled", words=_enabled)
    records: int = u32("Records To Preallocate", default=1)
    max_sections: int = u32("Max Sections Per Record", default=1)
    global_capability: int = u64("Global Capability Init Data")
    global_control: int = u64("Global Control Init Data")
    bank_count: int = u8("Number Of Hardware Banks")
    reserved2: bytes = octets(7, "Reserved")


@dataclass(frozen=True, kw_only=True)
class CorrectedMachineCheck(_WithBanks):
    """Type 1, IA-32 corrected machine checks: 48 bytes and 28 for each bank."""

    TYPE: ClassVar[int] = SourceType.CORRECTED_MACHINE_CHECK
    reserved: int = u16("Reserved")
    flags: int = u8("Flags", words=_FLAGS)
    enabled: int = u8("Enabled", words=_enabled)
    records: int = u32("Records To Preallocate", default=1)
    max_sections: int = u32("Max Sections Per Record", default=1)
    notification: Notification = part(Notification, "Notify")
    bank_count: int = u8("Number Of Hardware Banks")
    reserved2: int = u24("Reserved")


@dataclass(frozen=True, kw_only=True)
class DeferredMachineCheck(CorrectedMachineCheck):
    """Type 11, IA-32 deferred machine checks: as type 1."""

    TYPE: ClassVar[int] = SourceType.DEFERRED_MACHINE_CHECK


@dataclass(frozen=True, kw_only=True)
class NmiSource(Source):
    """Type 2, IA-32 NMI: 20 bytes."""

    TYPE: ClassVar[int] = SourceType.NMI
    reserved: int = u32("Reserved")
    records: int = u32("Records To Preallocate", default=1)
    max_sections: int = u32("Max Sections Per Record", default=1)
    max_raw_length: int = u32("Max Raw Data Length")


@dataclass(frozen=True, kw_only=True)
class AerEndpoint(Source):
    """Type 7, AER of a PCIe device: 44 bytes."""

    TYPE: ClassVar[int] = SourceType.AER_ENDPOINT
    reserved: int = u16("Reserved")
    flags: int = u8("Flags", words=_FLAGS)
    enabled: int = u8("Enabled", words=_enabled)
    records: int = u32("Records To Preallocate", default=1)
    max_sections: int = u32("Max Sections Per Record", default=1)
    bus: int = u32("Bus")
    """Bits 7:0 are reserved, 15:8 the bus, 31:16 the segment."""
    device: int = u16("Device")
    function: int = u16("Function")
    device_control: int = u16("Device Control")
    reserved2: int = u16("Reserved")
    uncorrectable_mask: int = u32("Uncorrectable Error Mask")
    uncorrectable_severity: int = u32("Uncorrectable Error Severity")
    correctable_mask: int = u32("Correctable Error Mask")
    capabilities: int = u32("Advanced Error Capabilities And Control")


@dataclass(frozen=True, kw_only=True)
class AerRootPort(AerEndpoint):
    """Type 6, AER of a PCIe root port: 48 bytes."""

    TYPE: ClassVar[int] = SourceType.AER_ROOT_PORT
    root_error_command: int = u32("Root Error Command")


@dataclass(frozen=True, kw_only=True)
class AerBridge(AerEndpoint):
    """Type 8, AER of a PCIe bridge: 56 bytes."""

    TYPE: ClassVar[int] = SourceType.AER_BRIDGE
    secondary_mask: int = u32("Secondary Uncorrectable Error Mask")
    secondary_severity: int = u32("Secondary Uncorrectable Error Severity")
    secondary_capabilities: int = u32("Secondary Advanced Error Capabilities And Control")


@dataclass(frozen=True, kw_only=True)
class Ghes(Source):
    """Type 9, a generic hardware error source: 64 bytes (ACPI 6.5 18.3.2.7)."""

    TYPE: ClassVar[int] = SourceType.GHES
    related_source_id: int = u16("Related Source ID", default=NO_SOURCE, words=_source_id)
    flags: int = u8("Flags", words=_FLAGS)
    """Reserved before ACPI 6.3."""
    enabled: int = u8("Enabled", default=1, words=_enabled)
    records: int = u32("Records To Preallocate", default=1)
    max_sections: int = u32("Max Sections Per Record", default=1)
    max_raw_length: int = u32("Max Raw Data Length")
    """Bytes."""
    error_status_address: Gas = part(Gas, "Error Status Address")
    """A register that holds the physical address of the Generic Error Status Block."""
    notification: Notification = part(Notification, "Notify")
    block_length: int = u32("Error Status Block Length")
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class GhesV2(Ghes):
    """Type 10, the same with a register by which the OS says that it has read an error: 92 bytes (18.3.2.8)."""

    TYPE: ClassVar[int] = SourceType.GHES_V2
    read_ack: Gas = part(Gas, "Read Ack Register")
    read_ack_preserve: int = u64("Read Ack Preserve", default=~1 & (1 << 64) - 1)
    """Bits that the OS keeps as they are."""
    read_ack_write: int = u64("Read Ack Write", default=1)
    """Bits that it then sets."""


@dataclass(frozen=True, kw_only=True)
class OpaqueSource(Source):
    """A source of a type above 11: all such begin with type and length (ACPI 6.5 18.3.2.11), `rest` is unknown."""

    source_id: int = u16("Source Structure Length", default=4)
    """Of these types: the length of the structure in bytes."""
    rest: bytes = b""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.type <= max(SourceType) or self.source_id != 4 + len(self.rest):
            raise TableError(f"no source of type {self.type} with {len(self.rest)} bytes behind its length")

    def pack(self) -> bytes:
        return super().pack() + self.rest

    @classmethod
    def unpack(cls, data: bytes, at: int, *, signature: str, path: str = "") -> Self:
        values = cls.read(data, at, signature=signature, path=path)
        length = values["source_id"]
        if length < 4 or at + length > len(data):
            raise TableError(
                f"a source names a length of {length} bytes, {len(data) - at} are left",
                signature=signature, offset=at + 2, field=path + "length",
            )  # fmt: skip
        return cls(**values, rest=data[at + 4 : at + length])

    def walk(self, at: int, path: str = "", title: str = "") -> Iterator[FieldValue]:
        for each in super().walk(at, path, title):
            yield replace(each, name=each.name.replace("source_id", "length"))
        if self.rest:
            yield FieldValue(path + "rest", title + "Data", at + 4, len(self.rest), self.rest)


_CLASSES: Final[dict[int, type[Source]]] = {
    kind.TYPE: kind
    for kind in (
        MachineCheck, CorrectedMachineCheck, NmiSource, AerRootPort, AerEndpoint, AerBridge, Ghes, GhesV2,
        DeferredMachineCheck,
    )
}  # fmt: skip


def read_source(data: bytes, at: int, path: str) -> Source:
    """The source at offset `at` of the HEST `data`.

    Raises:
        TableError: it is cut short, or of a reserved type, whose length nobody knows.
    """
    head = Source.read(data, at, signature="HEST", path=path)
    kind = _CLASSES.get(head["type"])
    if kind is None:
        if head["type"] <= max(SourceType):
            raise TableError(
                f"source type {head['type']} is reserved", signature="HEST", offset=at, field=path + "type"
            )
        kind = OpaqueSource
    return kind.unpack(data, at, signature="HEST", path=path)
