"""Firmware error record references (UEFI 2.10 N.2.10)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import guid, key, reserved, u8, x64
from qemu_sdei.ras.structure import Table

FIRMWARE: Final = Table(
    "firmware",
    "Firmware Error Record Reference",
    (
        u8(
            "Firmware Error Record Type",
            names={
                0: "IPF SAL Error Record",
                1: "SOC Firmware Error Record (Type1 Legacy)",
                2: "SOC Firmware Error Record (Type2)",
            },
            json=key("errorRecordType"),
        ),
        u8("Revision", default=2),
        reserved(6),
        x64("Record Identifier", json=key("recordID")),
        guid("Record Identifier GUID", json=key("recordIDGUID")),
    ),
    source="UEFI 2.10 N.2.10",
    shorter=frozenset({16}),  # revisions 0 and 1 name the record by its number alone
)
"""What the SoC's firmware says of the error follows as the tail."""
