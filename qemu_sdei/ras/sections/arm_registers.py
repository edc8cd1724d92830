"""The registers of an Arm processor context, by its type (UEFI 2.10 N.2.4.4.2)."""

from __future__ import annotations

from typing import Final

from qemu_sdei.ras.declare import bits, registers, u16, word, x64
from qemu_sdei.ras.structure import Table

CONTEXT_NAMES: Final = {
    0: "AArch32 General Purpose Registers",
    1: "AArch32 EL1 Context Registers",
    2: "AArch32 EL2 Context Registers",
    3: "AArch32 Secure Context Registers",
    4: "AArch64 General Purpose Registers",
    5: "AArch64 EL1 Context Registers",
    6: "AArch64 EL2 Context Registers",
    7: "AArch64 EL3 Context Registers",
    8: "Miscellaneous System Register Structure",
}
_AARCH32: Final = {
    0: "R0 R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R12 R13_SP R14_LR R15_PC",
    1: "DFAR DFSR IFAR ISR MAIR0 MAIR1 MIDR MPIDR NMRR PRRR SCTLR_NS SPSR SPSR_abt SPSR_fiq SPSR_irq SPSR_svc SPSR_und "
    "TPIDRPRW TPIDRURO TPIDRURW TTBCR TTBR0 TTBR1 DACR",
    2: "ELR_hyp HAMAIR0 HAMAIR1 HCR HCR2 HDFAR HIFAR HPFAR HSR HTCR HTPIDR HTTBR SPSR_hyp VTCR VTTBR DACR32_EL2",
    3: "SCTLR_S SPSR_mon",
}
_AARCH64: Final = {
    4: " ".join(f"X{number}" for number in range(31)) + " SP",
    5: "ELR_EL1 ESR_EL1 FAR_EL1 ISR_EL1 MAIR_EL1 MIDR_EL1 MPIDR_EL1 SCTLR_EL1 SP_EL0 SP_EL1 SPSR_EL1 TCR_EL1 TPIDR_EL0 "
    "TPIDR_EL1 TPIDRRO_EL0 TTBR0_EL1 TTBR1_EL1",
    6: "ELR_EL2 ESR_EL2 FAR_EL2 HACR_EL2 HCR_EL2 HPFAR_EL2 MAIR_EL2 SCTLR_EL2 SP_EL2 SPSR_EL2 TCR_EL2 TPIDR_EL2 "
    "TTBR0_EL2 VTCR_EL2 VTTBR_EL2",
    7: "ELR_EL3 ESR_EL3 FAR_EL3 MAIR_EL3 SCTLR_EL3 SP_EL3 SPSR_EL3 TCR_EL3 TPIDR_EL3 TTBR0_EL3",
}
_MISCELLANEOUS: Final = Table(
    "arm-context-8",
    CONTEXT_NAMES[8],
    (
        u16(
            "MRS Encoding",
            word=word(
                bits(0, 2, "Op2"), bits(3, 6, "CRm"), bits(7, 10, "CRn"), bits(11, 13, "Op1"), bits(14, 15, "O0")
            ),
        ),
        x64("Value"),
    ),
    source="UEFI 2.10 N.2.4.4.2",
)


def _context(kind: int, size: int, names: str) -> Table:
    title = CONTEXT_NAMES[kind]
    return Table(f"arm-context-{kind}", title, registers(size, names.split()), source="UEFI 2.10 N.2.4.4.2")


CONTEXTS: Final = {
    **{kind: _context(kind, 4, names) for kind, names in _AARCH32.items()},
    **{kind: _context(kind, 8, names) for kind, names in _AARCH64.items()},
    8: _MISCELLANEOUS,
}
"""By context type. A context of another type is bytes."""
