"""Which section is of which type: GUIDs, names, tables. What is not here is bytes, or what a user's file says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from qemu_sdei.errors import CperError
from qemu_sdei.ras.fields import Json
from qemu_sdei.ras.items import Extent
from qemu_sdei.ras.sections import arm, arm_ras, cxl, firmware, memory, pcie, processor
from qemu_sdei.ras.structure import Structure, Table

RAW: Final = Table("raw", "Section", (Extent(title="Data", json=Json(as_bytes=".")),))
"""A section of which nothing is known but its type."""


@dataclass(frozen=True)
class SectionKind:
    """A type of section. Calling it makes one: `Memory(physical_address=0x41e78000, node=0)`."""

    guid: UUID
    table: Table
    key: str = "Unknown"
    """The member of libcper's JSON that a section of it stands under."""
    label: str = "Unknown"
    """What libcper calls it in a section descriptor."""
    headline: tuple[str, ...] = ()
    """Fields that say in one line what happened."""

    @property
    def name(self) -> str:
        """As it is named at a command line: `cxl-dram`."""
        return self.table.name

    def __call__(self, **given: Any) -> Section:
        return Section(self, self.table.make(given))

    def parse(self, data: bytes, path: str = "", offset: int = 0) -> Section:
        """The section that `data` is. Raises `CperError`, as `Table.parse`."""
        return Section(self, self.table.parse(data, path, offset))


@dataclass(frozen=True, slots=True)
class Section:
    """One section: what it says, and of which type it is."""

    kind: SectionKind
    body: Structure

    def __getitem__(self, name: str) -> Any:
        return self.body[name]

    def pack(self) -> bytes:
        """Its bytes."""
        return self.body.pack()


def _kind(guid: str, table: Table, key: str, label: str, *headline: str) -> SectionKind:
    return SectionKind(UUID(guid), table, key, label, headline)


Memory: Final = _kind(
    "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", memory.MEMORY, "Memory", "Platform Memory",
    "memory_error_type", "physical_address",
)  # fmt: skip
Memory2: Final = _kind(
    "61ec04fc-48e6-d813-25c9-8daa44750b12", memory.MEMORY_2, "Memory2", "Platform Memory 2",
    "memory_error_type", "physical_address",
)  # fmt: skip
Arm: Final = _kind("e19e3d16-bc11-11e4-9caa-c2051d5d46b0", arm.ARM, "ArmProcessor", "ARM", "mpidr_el1")
ArmRas: Final = _kind("bf32d4d5-b427-4025-8495-8a9e5d4030e4", arm_ras.ARM_RAS, "ArmRas", "ARM RAS", "component_type")
Processor: Final = _kind(
    "9876ccad-47b4-4bdb-b65e-16f193c4f3db", processor.PROCESSOR_GENERIC, "GenericProcessor", "Processor Generic",
    "processor_error_type", "processor_id",
)  # fmt: skip
Pcie: Final = _kind("d995e954-bbc1-430f-ad91-b44dcb3c6f35", pcie.PCIE, "Pcie", "PCIe", "port_type")
Firmware: Final = _kind(
    "81212a96-09ed-4996-9471-8d729c8e69ed", firmware.FIRMWARE, "Firmware", "Firmware Error Record Reference",
    "firmware_error_record_type",
)  # fmt: skip
CxlProtocol: Final = _kind(
    "80b9efb4-52b5-4de3-a777-68784b771048", cxl.CXL_PROTOCOL, "CxlProtocol", "CXL Protocol Error", "cxl_agent_type"
)
_COMPONENT: Final = "CxlComponent"
CxlGeneralMedia: Final = _kind(
    "fbcd0a77-c260-417f-85a9-088b1621eba6", cxl.CXL_GENERAL_MEDIA, _COMPONENT, "CXL General Media Component Error"
)
CxlDram: Final = _kind("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624", cxl.CXL_DRAM, _COMPONENT, "CXL DRAM Component Error")
CxlMemoryModule: Final = _kind(
    "fe927475-dd59-4339-a586-79bab113b774", cxl.CXL_MEMORY_MODULE, _COMPONENT, "CXL Memory Module Component Error"
)
CxlPhysicalSwitch: Final = _kind(
    "77cf9271-9c02-470b-9fe4-bc7b75f2da97", cxl.CXL_PHYSICAL_SWITCH, _COMPONENT, "CXL Physical Switch Component Error"
)
CxlVirtualSwitch: Final = _kind(
    "40d26425-3396-4c4d-a5da-3d47263af425", cxl.CXL_VIRTUAL_SWITCH, _COMPONENT, "CXL Virtual Switch Component Error"
)
CxlMldPort: Final = _kind(
    "8dc44363-0c96-4710-b7bf-04bb99534c3f", cxl.CXL_MLD_PORT, _COMPONENT, "CXL MLD Port Component Error"
)

_ALL: Final = (
    Memory, Memory2, Arm, ArmRas, Processor, Pcie, Firmware, CxlProtocol, CxlGeneralMedia, CxlDram, CxlMemoryModule,
    CxlPhysicalSwitch, CxlVirtualSwitch, CxlMldPort,
)  # fmt: skip
Kinds = Mapping[UUID, SectionKind]
KINDS: Final[Kinds] = {kind.guid: kind for kind in _ALL}
"""Those that have a table."""

_OTHERS: Final = {
    UUID("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"): "IA32/X64",
    UUID("e429faf1-3cb7-11d4-bca7-0080c73c8881"): "IPF",
    UUID("c5753963-3b84-4095-bf78-eddad3f9c9dd"): "PCI/PCI-X Bus",
    UUID("eb5e4685-ca66-4769-b6a2-26068b001326"): "PCI Component/Device",
    UUID("5b51fef7-c79d-4434-8f1b-aa62de3e2c64"): "DMAr Generic",
    UUID("71761d37-32b2-45cd-a7d0-b0fedd93e8cf"): "Intel VT for Directed I/O Specific DMAr",
    UUID("036f84e1-7f37-428c-a79e-575fdfaa84ec"): "IOMMU Specific DMAr",
    UUID("91335ef6-ebfb-4478-a6a6-88b728cf75d7"): "CCIX PER Log Error",
}
"""Types of UEFI 2.10 that have a name and no table here."""


def kind_of(guid: UUID, kinds: Kinds = KINDS) -> SectionKind:
    """The kind of sections with this type; of one that is not known, bytes."""
    return kinds.get(guid) or SectionKind(guid, RAW, label=_OTHERS.get(guid, "Unknown"))


def kind_named(name: str, kinds: Kinds = KINDS) -> SectionKind:
    """The kind that is called `name`, or has that GUID. Raises `CperError`."""
    for kind in kinds.values():
        if kind.name == name:
            return kind
    try:
        return kind_of(UUID(name), kinds)
    except ValueError:
        known = ", ".join(kind.name for kind in kinds.values())
        raise CperError(f"there is no section {name!r}; there are {known}, and any GUID") from None


def with_kinds(more: Iterable[SectionKind], kinds: Kinds = KINDS) -> Kinds:
    """`kinds` and `more`, which come first where both have a type."""
    return {**kinds, **{kind.guid: kind for kind in more}}


def raw(guid: UUID, data: bytes) -> Section:
    """A section of a type that has no table."""
    return SectionKind(guid, RAW, label=_OTHERS.get(guid, "Unknown")).parse(data)
