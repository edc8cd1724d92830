"""The registers of EL2, as each CPU has them from its reset on.

The guest cannot reach them, so nobody writes them again: a CPU that is powered down and comes back has them still
(`power_down.py` leaves EL2 alone where the guest is at EL1).
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.monitor.ops import MicroOp, clear_sysregs, write_sysreg

R = SysReg

HCR_RW: Final = 1 << 31
"""EL1 is AArch64."""
_HCR: Final = (
    HCR_RW
    | 1 << 40  # APK, API: pointer authentication does not trap
    | 1 << 41
    | 1 << 51  # AMVOFFEN
    | 1 << 53  # EnSCXT
    | 1 << 56  # ATA: allocation tags
)
"""IMO, FMO and AMO are 0: interrupts go to EL1, and Group 0 to EL3 by SCR_EL3.FIQ. TGE and E2H are 0: a plain guest. Of
bits for what a CPU does not have QEMU takes no notice.
"""
HCR_VM: Final = 1
"""Stage 2 translates."""
_SCTLR: Final = 0x30C5_0830
"""RES1 bits: MMU and caches off."""
_CPTR: Final = 0x22FF
"""RES1 bits, and none that traps: SVE and SME have 0 (TZ, TSM) where they are."""
_CNTHCTL: Final = 3
"""EL1PCTEN, EL1PCEN: the physical counter and timer do not trap."""
_ZCR: Final = 0xF
_SMCR: Final = 0xF | 1 << 31 | 1 << 30
"""The longest vectors; FA64 and EZT0."""
_HCRX: Final = 1 << 11 | 1 << 14 | 1 << 15 | 1 << 17 | 1 << 22 | 1 << 23
"""MSCEn, TCR2En, SCTLR2En, D128En, GCSEn, EnFPM: what traps or is undefined when it is 0."""
_HFGRW: Final = 0x3FFF << 50
_HFGI: Final = 0x1F << 55
"""The bits of fine-grained traps that trap when they are 0."""


def at_reset(vectors: int, vttbr: int = 0, vtcr: int = 0) -> tuple[MicroOp, ...]:
    """What each CPU is given as it comes out of reset. A register that a CPU does not have is left out by the monitor.

    Args:
        vectors: physical address of the exception vectors.
        vttbr, vtcr: stage 2, as these registers say it; 0: there is none.
    """
    zero = R.CNTVOFF_EL2
    return (
        write_sysreg(R.VBAR_EL2, vectors),
        write_sysreg(R.SCTLR_EL2, _SCTLR),
        write_sysreg(R.CPTR_EL2, _CPTR),
        write_sysreg(R.CNTHCTL_EL2, _CNTHCTL),
        clear_sysregs(zero, 1 | 1 << R.HSTR_EL2 - zero),
        write_sysreg(R.ICH_HCR_EL2, 0),
        write_sysreg(R.ZCR_EL2, _ZCR),
        write_sysreg(R.SMCR_EL2, _SMCR),
        write_sysreg(R.HCRX_EL2, _HCRX),
        write_sysreg(R.HFGRTR_EL2, _HFGRW),
        write_sysreg(R.HFGWTR_EL2, _HFGRW),
        write_sysreg(R.HFGITR_EL2, _HFGI),
        write_sysreg(R.VTCR_EL2, vtcr),
        write_sysreg(R.VTTBR_EL2, vttbr),
        write_sysreg(R.HCR_EL2, _HCR | (HCR_VM if vttbr else 0)),
    )
