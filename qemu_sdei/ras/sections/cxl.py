"""CXL protocol errors and component events (UEFI 2.10 N.2.13 and N.2.14)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bits, key, reserved, u8, u16, u32, validation, word, x64
from qemu_sdei.ras.fields import Auto, Word
from qemu_sdei.ras.items import Choice, Extent, Part
from qemu_sdei.ras.sections.aer import CAPABILITY
from qemu_sdei.ras.sections.cxl_events import DRAM, GENERAL_MEDIA, MEMORY_MODULE, OTHER_EVENT, RAS_CAPABILITY
from qemu_sdei.ras.sections.pcie import slot
from qemu_sdei.ras.structure import Table

AGENTS: Final = {
    0: "CXL 1.1 Device",
    1: "CXL 1.1 Host Downstream Port",
    2: "CXL Device",
    3: "CXL Logical Device",
    4: "CXL Fabric Manager Managed Logical Device",
    5: "CXL Root Port",
    6: "CXL Downstream Switch Port",
    7: "CXL Upstream Switch Port",
}
_HOST_PORT: Final = 1
_DEVICE_ADDRESS: Final = word(
    bits(0, 7, "Function Number"),
    bits(8, 15, "Device Number"),
    bits(16, 23, "Bus Number"),
    bits(24, 39, "Segment Number"),
    bits(40, 63, "Reserved", reserved=True),
    title="Device Address",
)
_PORT_ADDRESS: Final = word(
    bits(0, 63, "RCRB Base Address", hexadecimal=True, json=key("value")), title="RCRB Base Address"
)
_ADDRESSES: Final[dict[int, Word]] = {kind: _PORT_ADDRESS if kind == _HOST_PORT else _DEVICE_ADDRESS for kind in AGENTS}

DEVICE_ID: Final = Table(
    "cxl-device-id",
    "Device ID",
    (
        u16("Vendor ID", hexadecimal=True, json=key("vendorID")),
        u16("Device ID", hexadecimal=True, json=key("deviceID")),
        u16("Subsystem Vendor ID", hexadecimal=True, json=key("subsystemVendorID")),
        u16("Subsystem Device ID", hexadecimal=True, json=key("subsystemDeviceID")),
        u16("Class Code", hexadecimal=True),
        slot(),
        reserved(4),
    ),
    source="UEFI 2.10 N.2.13",
)

CXL_PROTOCOL: Final = Table(
    "cxl-protocol",
    "CXL Protocol Error Section",
    (
        validation(
            8,
            (
                "CXL Agent Type", "CXL Agent Address", "Device ID", "Device Serial Number", "Capability Structure",
                "CXL DVSEC", "CXL Error Log",
            ),
        ),
        u8("CXL Agent Type", valid=0, names=AGENTS, json=key("agentType")),
        reserved(7),
        x64("CXL Agent Address", valid=1, words=("cxl_agent_type", _ADDRESSES)),
        Part(title="Device ID", valid=2, table=DEVICE_ID, json=key("deviceID")),
        x64("Device Serial Number", valid=3, json=key("deviceSerial")),
        Part(title="Capability Structure", valid=4, table=CAPABILITY, json=key("capabilityStructure", as_bytes=".")),
        u16("CXL DVSEC Length", auto=Auto("length", "cxl_dvsec"), json=key("dvsecLength")),
        u16("CXL Error Log Length", auto=Auto("length", "cxl_error_log"), json=key("errorLogLength")),
        reserved(4, "Reserved 2"),
        Extent(title="CXL DVSEC", valid=5, length="cxl_dvsec_length", json=key("cxlDVSEC", as_bytes=".")),
        Choice(
            title="CXL Error Log",
            valid=6,
            tables={0: RAS_CAPABILITY},
            length="cxl_error_log_length",
            json=key("cxlErrorLog", as_bytes="."),
        ),
    ),
    source="UEFI 2.10 N.2.13",
    validity="validation_bits",
)  # fmt: skip

COMPONENT_DEVICE_ID: Final = Table(
    "cxl-component-device-id",
    "Device ID",
    (
        u16("Vendor ID", hexadecimal=True, json=key("vendorID")),
        u16("Device ID", hexadecimal=True, json=key("deviceID")),
        u8("Function Number"),
        u8("Device Number"),
        u8("Bus Number"),
        u16("Segment Number"),
        slot(),
        reserved(1),
    ),
    source="UEFI 2.10 N.2.14",
)


def _component(name: str, title: str, log: Table) -> Table:
    """A component event section: they differ in the record of the event."""
    return Table(
        name,
        f"{title} Section",
        (
            u32("Length", auto=Auto("end")),
            validation(8, ("Device ID", "Device Serial Number", "CXL Component Event Log")),
            Part(title="Device ID", valid=0, table=COMPONENT_DEVICE_ID, json=key("deviceID")),
            x64("Device Serial Number", valid=1, json=key("deviceSerial")),
            Choice(
                title="CXL Component Event Log",
                valid=2,
                tables={0: log},
                length="length",
                from_start=True,
                json=key("cxlComponentEventLog", as_bytes="data"),
            ),
        ),
        source="UEFI 2.10 N.2.14",
        validity="validation_bits",
    )


CXL_GENERAL_MEDIA: Final = _component("cxl-general-media", "CXL General Media Event", GENERAL_MEDIA)
CXL_DRAM: Final = _component("cxl-dram", "CXL DRAM Event", DRAM)
CXL_MEMORY_MODULE: Final = _component("cxl-memory-module", "CXL Memory Module Event", MEMORY_MODULE)
CXL_PHYSICAL_SWITCH: Final = _component("cxl-physical-switch", "CXL Physical Switch Event", OTHER_EVENT)
CXL_VIRTUAL_SWITCH: Final = _component("cxl-virtual-switch", "CXL Virtual Switch Event", OTHER_EVENT)
CXL_MLD_PORT: Final = _component("cxl-mld-port", "CXL MLD Port Event", OTHER_EVENT)
