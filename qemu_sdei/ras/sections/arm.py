"""Arm processor errors: the section, its error information and its contexts (UEFI 2.10 N.2.4.4)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bit, bits, key, reserved, u8, u16, u32, validation, word, x32, x64
from qemu_sdei.ras.fields import Auto, Bits, Word
from qemu_sdei.ras.items import Choice, Extent, Many
from qemu_sdei.ras.sections.arm_registers import CONTEXT_NAMES, CONTEXTS
from qemu_sdei.ras.structure import Table

CACHE: Final = 1 << 1
TLB: Final = 1 << 2
BUS: Final = 1 << 3
MICRO_ARCHITECTURAL: Final = 1 << 4
ERROR_TYPES: Final = {
    CACHE: "Cache Error",
    TLB: "TLB Error",
    BUS: "Bus Error",
    MICRO_ARCHITECTURAL: "Micro-Architectural Error",
}
"""Of an error information: bits, since an erratum of UEFI 2.9; values 0 to 3 were meant before, and Linux says of those
that they are unhandled.
"""
_OPERATIONS: Final = (
    "Generic Error", "Generic Read", "Generic Write", "Data Read", "Data Write", "Instruction Fetch", "Prefetch",
)  # fmt: skip
_CACHE_OPERATIONS: Final = (*_OPERATIONS, "Eviction", "Snooping", "Snooped", "Management")
_TLB_OPERATIONS: Final = (*_OPERATIONS, "Local Management Operation", "External Management Operation")


def _information(title: str, name: str, operations: tuple[str, ...], level: str, *more: Bits) -> Word:
    """The 64 bits of one kind of error: what cache, TLB and bus have in common, and `more`."""
    return word(
        bits(0, 15, "Validation Bits", hexadecimal=True),
        bits(16, 17, "Transaction Type", valid=0, names={0: "Instruction", 1: "Data Access", 2: "Generic"}),
        bits(18, 21, "Operation", valid=1, names=dict(enumerate(operations))),
        bits(22, 24, level, valid=2, json=key("level")),
        bit(25, "Processor Context Corrupt", valid=3),
        bit(26, "Corrected", valid=4),
        bit(27, "Precise PC", valid=5, json=key("precisePC")),
        bit(28, "Restartable PC", valid=6, json=key("restartablePC")),
        *more,
        title=title,
        key=name,
        validity="validation_bits",
    )


CACHE_ERROR: Final = _information("Cache Error", "cacheError", _CACHE_OPERATIONS, "Level")
TLB_ERROR: Final = _information("TLB Error", "tlbError", _TLB_OPERATIONS, "Level")
BUS_ERROR: Final = _information(
    "Bus Error",
    "busError",
    _OPERATIONS,
    "Level",
    bits(
        29,
        30,
        "Participation Type",
        valid=7,
        names={
            0: "Local Processor Originated Request",
            1: "Local Processor Responded to Request",
            2: "Local Processor Observed",
            3: "Generic",
        },
    ),
    bit(31, "Timed Out", valid=8),
    bits(
        32,
        33,
        "Address Space",
        valid=9,
        names={0: "External Memory Access", 1: "Internal Memory Access", 3: "Device Memory Access"},
    ),
    bits(34, 42, "Memory Attributes", valid=10, hexadecimal=True),
    bit(43, "Access Mode", valid=11, names={0: "Secure", 1: "Normal"}),
)
MICRO_ARCHITECTURAL_ERROR: Final = word(
    bits(0, 63, "Vendor Defined", hexadecimal=True), title="Micro-Architectural Error", key="microArchError"
)

ERROR_INFORMATION: Final = Table(
    "arm-error-information",
    "Arm Processor Error Information",
    (
        u8("Version"),
        u8("Length", auto=Auto("end")),
        validation(
            2, ("Multiple Error", "Flags", "Error Information", "Virtual Fault Address", "Physical Fault Address")
        ),
        u8("Type", names=ERROR_TYPES, json=key("errorType")),
        u16(
            "Multiple Error",
            valid=0,
            names={0: "Single Error"},
            otherwise="Multiple Errors",
            json=key("multipleError", word="type"),
        ),
        u8(
            "Flags",
            valid=1,
            word=word(
                bit(0, "First Error Captured"), bit(1, "Last Error Captured"), bit(2, "Propagated"), bit(3, "Overflow")
            ),
        ),
        x64(
            "Error Information",
            valid=2,
            words=(
                "type",
                {CACHE: CACHE_ERROR, TLB: TLB_ERROR, BUS: BUS_ERROR, MICRO_ARCHITECTURAL: MICRO_ARCHITECTURAL_ERROR},
            ),
        ),
        x64("Virtual Fault Address", valid=3),
        x64("Physical Fault Address", valid=4),
    ),
    source="UEFI 2.10 N.2.4.4.1",
    validity="validation_bits",
)

CONTEXT: Final = Table(
    "arm-context",
    "Arm Processor Context Information",
    (
        u16("Version"),
        u16("Register Context Type", names=CONTEXT_NAMES),
        u32("Register Array Size", auto=Auto("length", "register_array")),
        Choice(
            title="Register Array",
            by="register_context_type",
            tables=CONTEXTS,
            length="register_array_size",
            json=key("registerArray", as_bytes=""),
        ),
    ),
    source="UEFI 2.10 N.2.4.4.2",
)

ARM: Final = Table(
    "arm",
    "Arm Processor Error Section",
    (
        validation(4, ("MPIDR_EL1", "Error Affinity Level", "Running State", "Vendor Specific Information")),
        u16("Error Information Number", auto=Auto("count", "error_information"), json=key("errorInfoNum")),
        u16("Context Information Number", auto=Auto("count", "context_information"), json=key("contextInfoNum")),
        u32("Section Length", auto=Auto("end")),
        u8(
            "Error Affinity Level",
            valid=1,
            names=dict.fromkeys(range(4), "Vendor Defined"),
            json=key("errorAffinity", word="type"),
        ),
        reserved(3),
        x64("MPIDR_EL1", valid=0, json=key("mpidrEl1")),
        x64("MIDR_EL1", json=key("midrEl1")),
        x32("Running State", valid=2, word=word(bit(0, "Running")), json=key("runningState", flat=True)),
        x32("PSCI State", json=key("psciState")),
        Many(
            title="Error Information",
            table=ERROR_INFORMATION,
            count="error_information_number",
            json=key("errorInfo"),
        ),
        Many(title="Context Information", table=CONTEXT, count="context_information_number", json=key("contextInfo")),
        Extent(
            title="Vendor Specific Information",
            valid=3,
            length="section_length",
            from_start=True,
            json=key("vendorSpecificInfo", as_bytes="data"),
        ),
    ),
    source="UEFI 2.10 N.2.4.4",
    validity="validation_bits",
    derived=frozenset({"affinity3"}),
)
