"""The numbers by which micro-operations name system registers: part of the layout, and reached through `layout`."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class SysReg(IntEnum):
    """The fixed list of system registers that micro-operations reach."""

    SCTLR_EL1 = 0
    ELR_EL1 = 1
    SPSR_EL1 = 2
    ESR_EL1 = 3
    FAR_EL1 = 4
    VBAR_EL1 = 5
    SP_EL0 = 6
    SP_EL1 = 7
    TTBR0_EL1 = 8
    TTBR1_EL1 = 9
    TCR_EL1 = 10
    MAIR_EL1 = 11
    CPACR_EL1 = 12
    CONTEXTIDR_EL1 = 13
    TPIDR_EL0 = 14
    TPIDR_EL1 = 15
    CNTPCT_EL0 = 16
    CNTFRQ_EL0 = 17
    CNTKCTL_EL1 = 18
    SCTLR_EL2 = 19
    ELR_EL2 = 20
    SPSR_EL2 = 21
    ESR_EL2 = 22
    FAR_EL2 = 23
    HPFAR_EL2 = 24
    VBAR_EL2 = 25
    HCR_EL2 = 26
    SP_EL2 = 27
    CPTR_EL2 = 28
    CNTHCTL_EL2 = 29
    CNTVOFF_EL2 = 30
    VTTBR_EL2 = 31
    VTCR_EL2 = 32
    VPIDR_EL2 = 33
    VMPIDR_EL2 = 34
    MDCR_EL2 = 35
    HSTR_EL2 = 36
    SCR_EL3 = 37
    CPTR_EL3 = 38
    ICC_PMR_EL1 = 39
    ICC_IGRPEN1_EL1 = 40
    ISR_EL1 = 41
    ICC_EOIR0_EL1 = 42
    """Write only."""
    ICC_CTLR_EL1 = 43
    ICC_BPR1_EL1 = 44
    ICC_AP0R0_EL1 = 45
    ICC_AP1R0_EL1 = 46
    ICC_EOIR1_EL1 = 47
    """Write only; drops a running priority, as QEMU takes no other way to end one."""
    AFSR0_EL1 = 48
    AFSR1_EL1 = 49
    AMAIR_EL1 = 50
    PAR_EL1 = 51
    TPIDRRO_EL0 = 52
    TPIDR2_EL0 = 53
    CSSELR_EL1 = 54
    SVCR = 55
    """Before FPSR, which leaving streaming mode changes."""
    FPCR = 56
    FPSR = 57
    MDSCR_EL1 = 58
    MDCCINT_EL1 = 59
    OSDLR_EL1 = 60
    OSLAR_EL1 = 61
    """Write only."""
    PMCR_EL0 = 62
    PMUSERENR_EL0 = 63
    PMSELR_EL0 = 64
    PMCCFILTR_EL0 = 65
    PMCNTENCLR_EL0 = 66
    PMINTENCLR_EL1 = 67
    PMOVSCLR_EL0 = 68
    CNTV_CTL_EL0 = 69
    CNTV_CVAL_EL0 = 70
    CNTP_CTL_EL0 = 71
    CNTP_CVAL_EL0 = 72
    APIAKEYLO_EL1 = 73
    APIAKEYHI_EL1 = 74
    APIBKEYLO_EL1 = 75
    APIBKEYHI_EL1 = 76
    APDAKEYLO_EL1 = 77
    APDAKEYHI_EL1 = 78
    APDBKEYLO_EL1 = 79
    APDBKEYHI_EL1 = 80
    APGAKEYLO_EL1 = 81
    APGAKEYHI_EL1 = 82
    RGSR_EL1 = 83
    GCR_EL1 = 84
    TFSR_EL1 = 85
    TFSRE0_EL1 = 86
    SCXTNUM_EL0 = 87
    SCXTNUM_EL1 = 88
    ZCR_EL1 = 89
    SMCR_EL1 = 90
    SMPRI_EL1 = 91
    FPMR = 92
    DISR_EL1 = 93
    ERRSELR_EL1 = 94
    SCTLR2_EL1 = 95
    TCR2_EL1 = 96
    MAIR2_EL1 = 97
    AMAIR2_EL1 = 98
    PIRE0_EL1 = 99
    PIR_EL1 = 100
    POR_EL0 = 101
    POR_EL1 = 102
    GCSCR_EL1 = 103
    GCSCRE0_EL1 = 104
    GCSPR_EL0 = 105
    GCSPR_EL1 = 106
    TTBR0_EL2 = 107
    TTBR1_EL2 = 108
    TCR_EL2 = 109
    MAIR_EL2 = 110
    AMAIR_EL2 = 111
    AFSR0_EL2 = 112
    AFSR1_EL2 = 113
    TPIDR_EL2 = 114
    CONTEXTIDR_EL2 = 115
    HACR_EL2 = 116
    HCRX_EL2 = 117
    HFGRTR_EL2 = 118
    HFGWTR_EL2 = 119
    HFGITR_EL2 = 120
    HDFGRTR_EL2 = 121
    HDFGWTR_EL2 = 122
    HAFGRTR_EL2 = 123
    HFGRTR2_EL2 = 124
    HFGWTR2_EL2 = 125
    HFGITR2_EL2 = 126
    HDFGRTR2_EL2 = 127
    HDFGWTR2_EL2 = 128
    ZCR_EL2 = 129
    SMCR_EL2 = 130
    SMPRIMAP_EL2 = 131
    TFSR_EL2 = 132
    SCXTNUM_EL2 = 133
    VDISR_EL2 = 134
    VSESR_EL2 = 135
    VNCR_EL2 = 136
    DBGVCR32_EL2 = 137
    SCTLR2_EL2 = 138
    TCR2_EL2 = 139
    MAIR2_EL2 = 140
    AMAIR2_EL2 = 141
    PIRE0_EL2 = 142
    PIR_EL2 = 143
    POR_EL2 = 144
    GCSCR_EL2 = 145
    GCSPR_EL2 = 146
    CNTHP_CTL_EL2 = 147
    CNTHP_CVAL_EL2 = 148
    CNTHV_CTL_EL2 = 149
    CNTHV_CVAL_EL2 = 150
    CNTPOFF_EL2 = 151
    ICH_HCR_EL2 = 152
    ICH_VMCR_EL2 = 153
    ICH_AP0R0_EL2 = 154
    ICH_AP1R0_EL2 = 155
    DBGBVR0_EL1 = 192
    DBGBCR0_EL1 = 208
    DBGWVR0_EL1 = 224
    DBGWCR0_EL1 = 240
    PMEVTYPER0_EL0 = 256
    ICH_LR0_EL2 = 288


FAMILIES: Final = {
    SysReg.DBGBVR0_EL1: 16,
    SysReg.DBGBCR0_EL1: 16,
    SysReg.DBGWVR0_EL1: 16,
    SysReg.DBGWCR0_EL1: 16,
    SysReg.PMEVTYPER0_EL0: 31,
    SysReg.ICH_LR0_EL2: 16,
}
"""These are the first of so many, whose numbers follow."""
_PRIORITY_BITS: Final = 3
"""Each bit of ICC_AP1R0_EL1 is one of 32 priorities that differ by 8."""
READ_ONLY: Final = frozenset((SysReg.CNTPCT_EL0, SysReg.ISR_EL1, SysReg.SCR_EL3, SysReg.CPTR_EL3))
"""The monitor takes no write to these: they are no state, or its own."""
SYSREG_NUMBERS: Final = frozenset(first + n for first in SysReg for n in range(FAMILIES.get(first, 1)))


def active_priorities(ap1r0: int) -> tuple[int, ...]:
    """Priorities that are active by ICC_AP1R0_EL1, as Non-secure software sees them (0xa0 is Linux's), the highest
    first: ICC_RPR_EL1 is the first of them. Such software sees the lower half of all priorities, spread over the whole
    (IHI 0069, 4.8.6).
    """
    secure = [n << _PRIORITY_BITS for n in range(32) if ap1r0 >> n & 1]
    return tuple((priority << 1) & 0xFF if priority & 0x80 else priority for priority in secure)
