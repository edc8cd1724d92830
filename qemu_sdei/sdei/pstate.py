"""PSTATE on entry to a handler: as if an exception had been taken to the client EL (DEN0054 5.2.1, 5.2.2).

The new PSTATE is built from zero and only what the architecture preserves is copied, so that nothing of an interrupted
AArch32 EL0 (IT, T, E, GE, Q) and no IL, SS or BTYPE reaches the handler. NZCV, DIT and PAN have the same place in both
SPSR forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

MODE_MASK: Final = 0x1F
MODE_AARCH32: Final = 1 << 4
EL_MASK: Final = 0x1C
"""nRW and EL of PSTATE.M: equal to EL << 2 iff at that EL in AArch64."""
DAIF: Final = 0xF << 6
BTYPE: Final = 3 << 10
SSBS: Final = 1 << 12
ALLINT: Final = 1 << 13
IL: Final = 1 << 20
SS: Final = 1 << 21
PAN: Final = 1 << 22
UAO: Final = 1 << 23
DIT: Final = 1 << 24
TCO: Final = 1 << 25
NZCV: Final = 0xF << 28

SCTLR_SPAN: Final = 1 << 23
SCTLR_DSSBS: Final = 1 << 44
SCTLR_SPINTMASK: Final = 1 << 62
HCR_TGE: Final = 1 << 27
HCR_E2H: Final = 1 << 34


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """What of a CPU's features PSTATE depends on. The default is an Armv8.0 CPU without EL2."""

    el2: bool = False
    vhe: bool = False
    pan: bool = False
    uao: bool = False
    dit: bool = False
    ssbs: bool = False
    bti: bool = False
    mte2: bool = False
    nmi: bool = False

    @staticmethod
    def from_id_registers(regs: Mapping[str, int]) -> CpuFeatures:
        """The features that ID registers announce (names as in `layout.RESET_REGISTERS`; a missing one counts as 0)."""

        def field(register: str, low: int) -> int:
            return regs.get(register, 0) >> low & 0xF

        return CpuFeatures(
            el2=field("ID_AA64PFR0_EL1", 8) != 0,
            vhe=field("ID_AA64MMFR1_EL1", 8) != 0,
            pan=field("ID_AA64MMFR1_EL1", 20) != 0,
            uao=field("ID_AA64MMFR2_EL1", 4) != 0,
            dit=field("ID_AA64PFR0_EL1", 48) != 0,
            ssbs=field("ID_AA64PFR1_EL1", 4) != 0,
            bti=field("ID_AA64PFR1_EL1", 0) != 0,
            mte2=field("ID_AA64PFR1_EL1", 8) >= 2,
            nmi=field("ID_AA64PFR1_EL1", 36) != 0,
        )


ARMV8_0: Final = CpuFeatures()

EntryPstate = Callable[[int, int, int], int]


def entry_pstate(features: CpuFeatures, client_el: int) -> EntryPstate:
    """The rule for one kind of CPU, as a function (interrupted PSTATE, SCTLR_ELc, HCR_EL2) -> PSTATE of the handler.

    UAO, BTYPE, IL and SS are 0 on every entry, whatever the CPU has. PM (FEAT_EBEP) and EXLOCK (FEAT_GCS) stay 0: no
    ID register that a RESET frame carries announces them.
    """
    keep = NZCV | (PAN if features.pan else 0) | (DIT if features.dit else 0)
    base = client_el << 2 | 1 | DAIF | (TCO if features.mte2 else 0)
    pan, ssbs, nmi = features.pan, features.ssbs, features.nmi
    at_el1 = client_el == 1
    host = HCR_E2H | HCR_TGE

    def entry(pstate: int, sctlr: int, hcr_el2: int) -> int:
        new = pstate & keep | base
        if pan and not sctlr & SCTLR_SPAN and (at_el1 or hcr_el2 & host == host):
            new |= PAN
        if ssbs and sctlr & SCTLR_DSSBS:
            new |= SSBS
        if nmi and not sctlr & SCTLR_SPINTMASK:
            new |= ALLINT
        return new

    return entry


def interruptible_modes(client_el: int) -> tuple[bool, ...]:
    """For each PSTATE.M: may a handler be put on top of it? At the client EL or below, AArch32 below only (4.1)."""
    modes = []
    for mode in range(32):
        if mode & MODE_AARCH32:
            modes.append(mode == MODE_AARCH32 or (client_el == 2 and mode in (0x11, 0x12, 0x13, 0x17, 0x1B, 0x1F)))
        else:
            modes.append(mode in (0, 4, 5, 8, 9) and mode >> 2 <= client_el)
    return tuple(modes)
