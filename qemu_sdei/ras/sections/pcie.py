"""PCI Express errors (UEFI 2.10 N.2.7)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bits, key, reserved, u8, u16, u24, u32, validation, word, x64
from qemu_sdei.ras.fields import Field, Json
from qemu_sdei.ras.items import Part
from qemu_sdei.ras.sections.aer import AER, CAPABILITY, PORT_TYPES
from qemu_sdei.ras.structure import Table


def slot(title: str = "Slot") -> Field:
    """A slot's number, in the upper 13 bits of two bytes."""
    return u16(
        title,
        word=word(bits(0, 2, "Reserved", reserved=True), bits(3, 15, "Slot Number")),
        json=Json(flat=True),
    )


DEVICE_ID: Final = Table(
    "pcie-device-id",
    "Device ID",
    (
        u16("Vendor ID", hexadecimal=True, json=key("vendorID", copy="vendorID_Hex")),
        u16("Device ID", hexadecimal=True, json=key("deviceID", copy="deviceID_Hex")),
        u24("Class Code", hexadecimal=True, json=key("classCode", copy="classCode_Hex")),
        u8("Function Number", json=key("functionNumber", copy="functionNumber_Hex")),
        u8("Device Number", json=key("deviceNumber", copy="deviceNumber_Hex")),
        u16("Segment Number", json=key("segmentNumber", copy="segmentNumber_Hex")),
        u8("Primary Bus Number", json=key("primaryOrDeviceBusNumber", copy="primaryOrDeviceBusNumber_Hex")),
        u8("Secondary Bus Number", json=key("secondaryBusNumber", copy="secondaryBusNumber_Hex")),
        slot(),
        reserved(1),
    ),
    source="UEFI 2.10 N.2.7",
    derived=frozenset({"class", "slotNumber_Hex"}),
)

PCIE: Final = Table(
    "pcie",
    "PCI Express Error Section",
    (
        validation(
            8,
            (
                "Port Type", "Version", "Command Status", "Device ID", "Device Serial Number", "Bridge Control Status",
                "Capability Structure", "AER Info",
            ),
        ),
        u32("Port Type", valid=0, names=PORT_TYPES),
        u32("Version", valid=1, word=word(bits(8, 15, "Major"), bits(0, 7, "Minor"), joined="."), hexadecimal=True),
        u32(
            "Command Status",
            valid=2,
            word=word(
                bits(0, 15, "Command Register", hexadecimal=True), bits(16, 31, "Status Register", hexadecimal=True)
            ),
            hexadecimal=True,
        ),
        reserved(4),
        Part(title="Device ID", valid=3, table=DEVICE_ID, json=key("deviceID")),
        x64("Device Serial Number", valid=4),
        u32(
            "Bridge Control Status",
            valid=5,
            word=word(
                bits(0, 15, "Secondary Status Register", hexadecimal=True),
                bits(16, 31, "Control Register", hexadecimal=True),
            ),
            hexadecimal=True,
        ),
        Part(title="Capability Structure", valid=6, table=CAPABILITY, json=key("capabilityStructure", as_bytes="data")),
        Part(title="AER Info", valid=7, table=AER, json=key("aerInfo", as_bytes="data")),
    ),
    source="UEFI 2.10 N.2.7",
    validity="validation_bits",
)  # fmt: skip
