"""Memory error sections (UEFI 2.10 N.2.5 and N.2.6)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bit, bits, key, reserved, u8, u16, u32, u64, validation, word, x64
from qemu_sdei.ras.sections.error_status import ERROR_STATUS
from qemu_sdei.ras.structure import Table

ERROR_TYPES: Final = {
    0: "Unknown",
    1: "No Error",
    2: "Single-bit ECC",
    3: "Multi-bit ECC",
    4: "Single-symbol ChipKill ECC",
    5: "Multi-symbol ChipKill ECC",
    6: "Master Abort",
    7: "Target Abort",
    8: "Parity Error",
    9: "Watchdog Timeout",
    10: "Invalid Address",
    11: "Mirror Broken",
    12: "Memory Sparing",
    13: "Scrub Corrected Error",
    14: "Scrub Uncorrected Error",
    15: "Physical Memory Map-out Event",
}
_WHOLE: Final = key("bank", whole="value")

MEMORY: Final = Table(
    "memory",
    "Memory Error Section",
    (
        validation(
            8,
            (
                "Error Status", "Physical Address", "Physical Address Mask", "Node", "Card", "Module", "Bank", "Device",
                "Row", "Column", "Bit Position", "Requestor ID", "Responder ID", "Target ID", "Memory Error Type",
                "Rank Number", "Card Handle", "Module Handle", "Extended Row", "Bank Group", "Bank Address",
                "Chip Identification",
            ),
        ),
        u64("Error Status", valid=0, word=ERROR_STATUS, hexadecimal=True),
        x64("Physical Address", valid=1, json=key("physicalAddress", copy="physicalAddressHex")),
        x64("Physical Address Mask", valid=2),
        u16("Node", valid=3),
        u16("Card", valid=4),
        u16("Module", valid=5, json=key("moduleRank")),
        u16(
            "Bank",
            valid=6,
            word=word(
                bits(0, 7, "Bank Address", valid=20, json=key("address")),
                bits(8, 15, "Bank Group", valid=19, json=key("group")),
            ),
            json=_WHOLE,
        ),
        u16("Device", valid=7),
        u16("Row", valid=8),
        u16("Column", valid=9),
        u16("Bit Position", valid=10),
        x64("Requestor ID", valid=11, json=key("requestorID")),
        x64("Responder ID", valid=12, json=key("responderID")),
        x64("Target ID", valid=13, json=key("targetID")),
        u8("Memory Error Type", valid=14, names=ERROR_TYPES),
        u8(
            "Extended",
            word=word(
                bit(0, "Row Bit 16", valid=18),
                bit(1, "Row Bit 17", valid=18),
                bits(2, 4, "Reserved", reserved=True),
                bits(5, 7, "Chip Identification", valid=21),
            ),
        ),
        u16("Rank Number", valid=15),
        u16("Card Handle", valid=16, hexadecimal=True, json=key("cardSmbiosHandle")),
        u16("Module Handle", valid=17, hexadecimal=True, json=key("moduleSmbiosHandle")),
    ),
    source="UEFI 2.10 N.2.5",
    validity="validation_bits",
    shorter=frozenset({73}),  # before UEFI 2.3: it ends with the error type, and Linux takes it
)  # fmt: skip

MEMORY_2: Final = Table(
    "memory2",
    "Memory Error Section 2",
    (
        validation(
            8,
            (
                "Error Status", "Physical Address", "Physical Address Mask", "Node", "Card", "Module", "Bank", "Device",
                "Row", "Column", "Rank", "Bit Position", "Chip Identification", "Memory Error Type", "Status",
                "Requestor ID", "Responder ID", "Target ID", "Card Handle", "Module Handle", "Bank Group",
                "Bank Address",
            ),
        ),
        u64("Error Status", valid=0, word=ERROR_STATUS, hexadecimal=True),
        x64("Physical Address", valid=1, json=key("physicalAddress", copy="physicalAddressHex")),
        x64("Physical Address Mask", valid=2),
        u16("Node", valid=3),
        u16("Card", valid=4),
        u16("Module", valid=5),
        u16(
            "Bank",
            valid=6,
            word=word(
                bits(0, 7, "Bank Address", valid=21, json=key("address")),
                bits(8, 15, "Bank Group", valid=20, json=key("group")),
            ),
            json=_WHOLE,
        ),
        u32("Device", valid=7),
        u32("Row", valid=8),
        u32("Column", valid=9),
        u32("Rank", valid=10),
        u32("Bit Position", valid=11),
        u8("Chip Identification", valid=12, json=key("chipID")),
        u8("Memory Error Type", valid=13, names=ERROR_TYPES),
        u8("Status", valid=14, names={0: "Corrected", 1: "Uncorrected"}, json=key("status", word="state")),
        reserved(1),
        x64("Requestor ID", valid=15, json=key("requestorID")),
        x64("Responder ID", valid=16, json=key("responderID")),
        x64("Target ID", valid=17, json=key("targetID")),
        u32("Card Handle", valid=18, hexadecimal=True, json=key("cardSmbiosHandle")),
        u32("Module Handle", valid=19, hexadecimal=True, json=key("moduleSmbiosHandle")),
    ),
    source="UEFI 2.10 N.2.6",
    validity="validation_bits",
)  # fmt: skip
