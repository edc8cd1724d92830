"""What CXL sections carry: event records, and the RAS capability (CXL 3.1, 8.2.9.2.1 and 8.2.4.17)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bit, bits, octets, reserved, u8, u16, u24, u32, word, x16, x32, x64
from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.structure import Table

_SIZE: Final = 112
"""Bytes of an event record without its GUID, which is the section's type."""

_HEADER: Final = (
    u8("Event Record Length", default=_SIZE + 16),
    u24(
        "Event Record Flags",
        word=word(
            bits(0, 1, "Severity", names={0: "Informational", 1: "Warning", 2: "Failure", 3: "Fatal"}),
            bit(2, "Permanent Condition"),
            bit(3, "Maintenance Needed"),
            bit(4, "Performance Degraded"),
            bit(5, "Hardware Replacement Needed"),
            bit(6, "Maintenance Operation Subclass Valid"),
            bit(7, "LD-ID Valid"),
            bit(8, "Head ID Valid"),
        ),
        hexadecimal=True,
    ),
    x16("Event Record Handle"),
    x16("Related Event Record Handle"),
    x64("Event Record Timestamp"),
    u8("Maintenance Operation Class"),
    u8("Maintenance Operation Subclass"),
    x16("LD-ID"),
    u8("Head ID"),
    reserved(11, "Header Reserved"),
)
_TRANSACTIONS: Final = {
    0: "Unknown",
    1: "Host Read",
    2: "Host Write",
    3: "Host Scan Media",
    4: "Host Inject Poison",
    5: "Internal Media Scrub",
    6: "Internal Media Management",
    7: "Internal Media Error Check Scrub",
    8: "Media Initialization",
}
_THRESHOLD: Final = word(
    bit(0, "Corrected Memory Errors in Multiple Media Components"), bit(1, "Exceeded Programmable Threshold")
)


def _media(types: dict[int, str], *valid: str) -> tuple[Field, ...]:
    """What records of general media and of DRAM have in common."""
    return (
        x64(
            "Event Physical Address",
            word=word(
                bit(0, "Volatile"),
                bit(1, "DPA Not Repairable"),
                bits(6, 63, "Address Bits 63:6", hexadecimal=True),
            ),
        ),
        u8(
            "Memory Event Descriptor",
            word=word(bit(0, "Uncorrectable Event"), bit(1, "Threshold Event"), bit(2, "Poison List Overflow Event")),
        ),
        u8("Memory Event Type", names=types),
        u8("Transaction Type", names=_TRANSACTIONS),
        x16("Validity Flags", word=word(*(bit(number, name) for number, name in enumerate(valid)))),
        u8("Channel"),
        u8("Rank"),
    )


GENERAL_MEDIA: Final = Table(
    "cxl-event-general-media",
    "General Media Event Record",
    (
        *_HEADER,
        *_media(
            {
                0: "Media ECC Error",
                1: "Invalid Address",
                2: "Data Path Error",
                3: "TE State Violation",
                4: "Scrub Media ECC Error",
                5: "Advanced Programmable CME Counter Expiration",
                6: "CKID Violation",
            },
            "Channel Valid", "Rank Valid", "Device Valid", "Component Identifier Valid", "PLDM Format",
        ),
        u24("Device", hexadecimal=True),
        octets(16, "Component Identifier"),
        u8("CME Threshold Event Flags", word=_THRESHOLD),
        u24("CME Count at Event"),
        u8("Memory Event Sub-Type"),
        reserved(41),
    ),
    source="CXL 3.1 table 8-45",
)  # fmt: skip

DRAM: Final = Table(
    "cxl-event-dram",
    "DRAM Event Record",
    (
        *_HEADER,
        *_media(
            {
                0: "Media ECC Error",
                1: "Scrub Media ECC Error",
                2: "Invalid Address",
                3: "Data Path Error",
                4: "TE State Violation",
                5: "Advanced Programmable CME Counter Expiration",
                6: "CKID Violation",
            },
            "Channel Valid", "Rank Valid", "Nibble Mask Valid", "Bank Group Valid", "Bank Valid", "Row Valid",
            "Column Valid", "Correction Mask Valid", "Component Identifier Valid", "PLDM Format", "Sub-Channel Valid",
        ),
        u24("Nibble Mask", hexadecimal=True),
        u8("Bank Group"),
        u8("Bank"),
        u24("Row"),
        u16("Column"),
        octets(32, "Correction Mask"),
        octets(16, "Component Identifier"),
        u8("Sub-Channel"),
        u8("CVME Threshold Event Flags", word=_THRESHOLD),
        u24("CVME Count at Event"),
        u8("Memory Event Sub-Type"),
        reserved(1),
    ),
    source="CXL 3.1 table 8-46",
)  # fmt: skip

MEMORY_MODULE: Final = Table(
    "cxl-event-memory-module",
    "Memory Module Event Record",
    (
        *_HEADER,
        u8(
            "Device Event Type",
            names={
                0: "Health Status Change",
                1: "Media Status Change",
                2: "Life Used Change",
                3: "Temperature Change",
                4: "Data Path Error",
                5: "LSA Error",
                6: "Unrecoverable Internal Sideband Bus Error",
                7: "Memory Media FRU Error",
                8: "Power Management Fault",
            },
        ),
        u8(
            "Health Status",
            word=word(
                bit(0, "Maintenance Needed"), bit(1, "Performance Degraded"), bit(2, "Hardware Replacement Needed")
            ),
        ),
        u8("Media Status", hexadecimal=True),
        u8("Additional Status", hexadecimal=True),
        u8("Life Used"),
        u16("Device Temperature"),
        u32("Dirty Shutdown Count"),
        u32("Corrected Volatile Error Count"),
        u32("Corrected Persistent Error Count"),
        x16("Validity Flags", word=word(bit(0, "Component Identifier Valid"), bit(1, "PLDM Format"))),
        octets(16, "Component Identifier"),
        u8("Device Event Sub-Type"),
        reserved(42),
    ),
    source="CXL 3.1 table 8-47",
)

OTHER_EVENT: Final = Table(
    "cxl-event-other",
    "Event Record",
    (*_HEADER, octets(80, "Event Data")),
    source="CXL 3.1 table 8-43",
)
"""Events of switches and ports: their header."""

_UNCORRECTABLE: Final = word(
    bit(0, "Cache Data Parity Error"),
    bit(1, "Cache Address Parity Error"),
    bit(2, "Cache Byte Enable Parity Error"),
    bit(3, "Cache Data ECC Error"),
    bit(4, "Mem Data Parity Error"),
    bit(5, "Mem Address Parity Error"),
    bit(6, "Mem Byte Enable Parity Error"),
    bit(7, "Mem Data ECC Error"),
    bit(8, "Reinit Threshold Hit"),
    bit(9, "Received Unrecognized Encoding"),
    bit(10, "Received Poison From Peer"),
    bit(11, "Receiver Overflow"),
    bit(14, "Internal Error"),
    bit(15, "CXL IDE Tx Error"),
    bit(16, "CXL IDE Rx Error"),
)
_CORRECTABLE: Final = word(
    bit(0, "Cache Data ECC"),
    bit(1, "Mem Data ECC"),
    bit(2, "CRC Threshold Hit"),
    bit(3, "Retry Threshold"),
    bit(4, "Cache Poison Received From Peer"),
    bit(5, "Mem Poison Received From Peer"),
    bit(6, "Physical Layer Error"),
)

RAS_CAPABILITY: Final = Table(
    "cxl-ras-capability",
    "CXL RAS Capability Structure",
    (
        x32("Uncorrectable Error Status", word=_UNCORRECTABLE),
        x32("Uncorrectable Error Mask", word=_UNCORRECTABLE),
        x32("Uncorrectable Error Severity", word=_UNCORRECTABLE),
        x32("Correctable Error Status", word=_CORRECTABLE),
        x32("Correctable Error Mask", word=_CORRECTABLE),
        x32("Error Capabilities and Control", word=word(bits(0, 5, "First Error Pointer"))),
        *(x32(f"Header Log {number}") for number in range(16)),
    ),
    source="CXL 3.1 8.2.4.17",
)
