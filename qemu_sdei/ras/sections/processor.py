"""Generic processor errors (UEFI 2.10 N.2.4.1)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bit, key, reserved, text, u8, validation, word, x64
from qemu_sdei.ras.structure import Table

PROCESSOR_GENERIC: Final = Table(
    "processor",
    "Generic Processor Error Section",
    (
        validation(
            8,
            (
                "Processor Type", "Processor ISA", "Processor Error Type", "Operation", "Flags", "Level", "CPU Version",
                "CPU Brand", "CPU ID", "Target Address", "Requestor ID", "Responder ID", "Instruction IP",
            ),
        ),
        u8("Processor Type", valid=0, names={0: "IA32/X64", 1: "IA64", 2: "ARM"}),
        u8(
            "Processor ISA",
            valid=1,
            names={0: "IA32", 1: "IA64", 2: "X64", 3: "ARM A32/T32", 4: "ARM A64"},
            json=key("processorISA"),
        ),
        u8(
            "Processor Error Type",
            valid=2,
            names={0: "Unknown", 1: "Cache Error", 2: "TLB Error", 4: "Bus Error", 8: "Micro-Architectural Error"},
            json=key("errorType"),
        ),
        u8(
            "Operation",
            valid=3,
            names={0: "Unknown or Generic", 1: "Data Read", 2: "Data Write", 3: "Instruction Execution"},
        ),
        u8(
            "Flags",
            valid=4,
            word=word(
                bit(0, "Restartable"),
                bit(1, "Precise IP", json=key("preciseIP")),
                bit(2, "Overflow"),
                bit(3, "Corrected"),
            ),
        ),
        u8("Level", valid=5),
        reserved(2),
        x64("CPU Version Info", valid=6, json=key("cpuVersionInfo")),
        text(128, "CPU Brand String", valid=7, json=key("cpuBrandString")),
        x64("Processor ID", valid=8, json=key("processorID")),
        x64("Target Address", valid=9),
        x64("Requestor Identifier", valid=10, json=key("requestorID")),
        x64("Responder Identifier", valid=11, json=key("responderID")),
        x64("Instruction IP", valid=12, json=key("instructionIP")),
    ),
    source="UEFI 2.10 N.2.4.1",
    validity="validation_bits",
)  # fmt: skip
