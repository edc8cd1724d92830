"""The frame window: the one description of what Python and the EL3 monitor share.

The window lies at the top of guest RAM, hidden from the guest. Everything in it is a little-endian u64 word.
`guest/monitor/layout.h` is generated from this module (`python -m qemu_sdei.monitor.layout > guest/monitor/layout.h`)
and a test fails when the two drift.

Who writes what is part of the layout: a word has exactly one writer, so that nothing here needs a lock. The monitor
and the host each treat what the other wrote as hostile input.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

MAGIC: Final = 0x314E_4957_4945_4453  # "SDEIWIN1"
VERSION: Final = 3
"""1: the monitor had its own memory in secure SRAM, and the scratch area began at 0x10_0000. 2: without what `COLD`
tells.
"""
COLD: Final = 3
"""From this version on a monitor knows the system registers above `ICC_EOIR0_EL1` and `Op.CLEAR_SYSREGS`, ignores
those that its CPU does not have, and waits before it posts again where an answer says both. A guest that was saved or
migrated may bring an older one.
"""

WINDOW_SIZE: Final = 0x20_0000
"""2 MiB: the hidden part of RAM, so that what the guest gets still ends on a 2 MiB boundary."""
WINDOW_ALIGN: Final = 0x20_0000
MAX_CPUS: Final = 512
"""What QEMU's `virt` machine takes at most with a GICv3."""

SEQ_OFFSET: Final = 0x1000
"""u64[MAX_CPUS], monitor: the sequence number of the newest frame of each CPU. Contiguous, so that one compare finds
news.
"""
KICK_OFFSET: Final = 0x2000
"""u64[MAX_CPUS], host: counts kicks; a CPU whose count changed is interrupted (FIQ) when the doorbell rings."""
KEPT_OFFSET: Final = 0x3000
KEPT_SIZE: Final = 0xD000
"""Host: the state document, while QEMU writes a snapshot of the machine into a disk image (`snapshot_state.py`)."""
FRAME_OFFSET: Final = 0x1_0000
FRAME_SIZE: Final = 0x400
FRAME_WORDS: Final = FRAME_SIZE // 8
MONITOR_OFFSET: Final = 0x9_0000
MONITOR_SIZE: Final = 0x400
"""The monitor's own memory for each CPU: its block and its stack. The host never touches it. It is here, and not in
secure SRAM, so that it is migrated as all RAM is: QEMU 7.2's TCG loses writes to memory whose size is a multiple of
256 KiB during a live migration, which nothing but a comparison would show, and secure SRAM cannot be looked at from
outside. A guest that writes here breaks its own firmware, as it could by its frames.
"""
SCRATCH_OFFSET: Final = 0x12_0000
"""Neither side gives it a meaning: buffers for micro-operations (fw_cfg DMA)."""
SCRATCH_SIZE: Final = 0xE_0000


class Header(IntEnum):
    """Words of the header at offset 0; all written by the host."""

    MAGIC = 0
    VERSION = 1
    NR_CPUS = 2
    POLL = 3
    """1 while the host watches SEQ by itself: the monitor then does not ring the doorbell."""


class Word(IntEnum):
    """Words of a frame, ordered by cache lines (eight words): the two sides run on two cores, and what a call costs is
    mostly the lines that go to and fro. Line 0 is the host's alone, because the monitor spins on it; line 1 and the
    context
    behind it are all that the host reads of an ordinary call.
    """

    ACK = 0
    """Host: the sequence number that the rest of the frame answers. Written last."""
    FLAGS = 1
    """Host: an `AnswerFlag` set with the number of micro-operations in bits 15:8."""
    KIND = 8
    VECTOR = 9
    """Monitor: index (0..15) of the EL3 vector that was taken, for SMC, EXCEPTION and FAULT; 0 for RESET, and still
    the same when the micro-operations of the answer bring an OPS frame.
    """
    FUNCTION = 10
    """Monitor: x0 once more. The host writes results over X0, and one that starts again halfway must still know what
    was asked.
    """
    ESR_EL3 = 11
    SCTLR_EL1 = 12
    SCTLR_EL2 = 13
    HCR_EL2 = 14
    DONE = 15
    """Monitor: the sequence number whose answer it has taken. A CPU is in an exchange iff SEQ != DONE."""
    PC = 16
    PSTATE = 17
    X0 = 18
    X17 = 35
    X18 = 36
    X30 = 48
    FAR_EL3 = 49
    MPIDR_EL1 = 50
    ID_REGISTERS = 51
    """Monitor, in a RESET frame: the registers of `RESET_REGISTERS`."""
    PROOF = 71
    """Monitor, in CPU 0's RESET frame: the number in its image that the guest cannot read. The host clears it before
    the guest runs.
    """
    OPS = 72


CONTEXT: Final = slice(Word.PC, Word.PC + 20)
"""PC, PSTATE, X0..X17 of a frame: what SDEI saves, replaces and restores (see `qemu_sdei.sdei.context`)."""
HEAD: Final = slice(Word.KIND, Word.KIND + 32)
"""All that an ordinary frame tells the firmware, in four lines: what the journal keeps of it."""

HEAD_WORDS: Final = 32

OP_WORDS: Final = 3
"""A micro-operation is {code | size << 8, argument, value}; results come back in `value`."""
MAX_OPS: Final = 16
OPS: Final = slice(Word.OPS, Word.OPS + OP_WORDS * MAX_OPS)
"""The micro-operations of a frame."""


class Kind(IntEnum):
    """Why a frame was posted."""

    RESET = 1
    """The CPU came out of reset; the frame carries ID registers."""
    SMC = 2
    KICK = 3
    """A FIQ that the host asked for by KICK, or the wake-up of a parked CPU."""
    OPS = 4
    """The micro-operations of an answer with REPOST are done."""
    EXCEPTION = 5
    """The guest ran into EL3 by something that is no SMC; ESR_EL3 and VECTOR say what."""
    FAULT = 6
    """The monitor itself took an exception outside a micro-operation: a bug, or a broken window."""
    BAD_ANSWER = 7
    """The host's answer cannot be carried out (PSTATE of EL3, unknown operation, ...); VECTOR is a `BadAnswer`."""
    INTERRUPT = 8
    """A Group 0 interrupt that is neither doorbell nor kick; VECTOR is its INTID. It has been acknowledged; to end it
    is the
    host's (ICC_EOIR0_EL1). It stands for a kick as well.
    """


class BadAnswer(IntEnum):
    """What was wrong with an answer."""

    PSTATE = 1
    OP = 2
    COUNT = 3


class AnswerFlag(IntFlag):
    """What the monitor does with an answer before the guest goes on. 0 is the ordinary way: load the context and
    ERET.
    """

    REPOST = 1
    """Do the micro-operations, then post a frame of kind OPS in place of returning to the guest. With WFI: wait
    before that.
    """
    PARK = 2
    """Do not return: wait in WFI until the next kick, then post a KICK frame."""
    WFI = 4
    """Wait for an interrupt at EL3 before returning (a standby CPU_SUSPEND)."""
    ALL = 8
    """Load X18..X30 as well."""


OPS_SHIFT: Final = 8


class Op(IntEnum):
    """Micro-operation codes (low byte of the first word)."""

    READ_PHYS = 1
    """argument: physical address; size in bits 15:8 of the code word: 1, 2, 4, 8 bytes."""
    WRITE_PHYS = 2
    READ_SYSREG = 3
    """argument: a `SysReg`."""
    WRITE_SYSREG = 4
    SGI = 5
    """argument: ICC_SGI1R_EL1/ICC_ASGI1R-style value that is written to ICC_SGI0R_EL1 (secure Group 0)."""
    CLEAR_SYSREGS = 6
    """argument: a `SysReg`; value: for each bit n that is set, 0 is written to the register with number
    argument + n.
    """


OP_ABORTED: Final = 0x1_0000
"""Set in the code word by the monitor when the access took an external abort."""


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
READ_ONLY: Final = frozenset((SysReg.CNTPCT_EL0, SysReg.ISR_EL1, SysReg.SCR_EL3, SysReg.CPTR_EL3))
"""The monitor takes no write to these: they are no state, or its own."""
SYSREG_NUMBERS: Final = frozenset(first + n for first in SysReg for n in range(FAMILIES.get(first, 1)))


SYSREGS_EL2: Final = tuple(r for r in SysReg if r.name.endswith("_EL2"))
"""Only there when the CPU has EL2 (`virtualization=on`); the monitor reads them as 0 and ignores writes otherwise."""

RESET_REGISTERS: Final = (
    "MIDR_EL1",
    "ID_AA64PFR0_EL1",
    "ID_AA64PFR1_EL1",
    "ID_AA64MMFR0_EL1",
    "ID_AA64MMFR1_EL1",
    "ID_AA64MMFR2_EL1",
    "ID_AA64ISAR0_EL1",
    "ID_AA64ISAR1_EL1",
    "ID_AA64DFR0_EL1",
    "CNTFRQ_EL0",
)
"""What a RESET frame carries from ID_REGISTERS on."""

POWER_GPIO: Final = 0x090B_0000
"""The secure PL061 of `virt,secure=on`: pin 0 powers off, pin 1 resets (`gpio-poweroff`, `gpio-restart` in QEMU's
DTB).
"""


def frame_offset(cpu: int) -> int:
    """Offset of CPU `cpu`'s frame from the start of the window, in bytes."""
    return FRAME_OFFSET + cpu * FRAME_SIZE


def frame_end(base: int, nr_cpus: int) -> int:
    """Physical address where the last frame of a window at `base` ends."""
    return base + frame_offset(nr_cpus)


def window_base(ram_base: int, ram_size: int) -> int:
    """Physical address of the window for RAM of `ram_size` bytes at `ram_base`."""
    return (ram_base + ram_size - WINDOW_SIZE) & ~(WINDOW_ALIGN - 1)


def c_header() -> str:
    """The layout as a C header that assembly can include too."""
    out = [
        "/* Generated by `python -m qemu_sdei.monitor.layout`: do not edit. */",
        "#ifndef QEMU_SDEI_LAYOUT_H",
        "#define QEMU_SDEI_LAYOUT_H",
        "",
    ]

    def define(name: str, value: int) -> None:
        out.append(f"#define {name} {value:#x}")

    for name in ("MAGIC", "VERSION", "WINDOW_SIZE", "MAX_CPUS", "SEQ_OFFSET", "KICK_OFFSET", "FRAME_OFFSET",
                 "FRAME_SIZE", "MONITOR_OFFSET", "MONITOR_SIZE", "SCRATCH_OFFSET",
                 "OP_WORDS", "MAX_OPS", "OPS_SHIFT", "OP_ABORTED"):  # fmt: skip
        define(f"W_{name}", globals()[name])
    for prefix, members, scale in (
        ("H_", Header, 8),
        ("F_", Word, 8),
        ("KIND_", Kind, 1),
        ("BAD_", BadAnswer, 1),
        ("ANSWER_", AnswerFlag, 1),
        ("OP_", Op, 1),
        ("REG_", SysReg, 1),
    ):
        out.append("")
        for member in members:
            define(prefix + str(member.name), int(member) * scale)
    out.append("")
    for index, name in enumerate(RESET_REGISTERS):
        define(f"F_RESET_{name}", (Word.ID_REGISTERS + index) * 8)
    out += ["", "#endif", ""]
    return "\n".join(out)


if __name__ == "__main__":
    print(c_header(), end="")
