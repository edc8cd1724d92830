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

from qemu_sdei.monitor.sysregs import FAMILIES as FAMILIES
from qemu_sdei.monitor.sysregs import READ_ONLY as READ_ONLY
from qemu_sdei.monitor.sysregs import SYSREG_NUMBERS as SYSREG_NUMBERS
from qemu_sdei.monitor.sysregs import SysReg as SysReg

MAGIC: Final = 0x314E_4957_4945_4453  # "SDEIWIN1"
VERSION: Final = 4
"""Of the window that new guests get. A guest keeps the monitor that it was started with, so one that was saved,
migrated or adopted may bring an older version, down to `OLDEST`. What changed is told at `COUNTER_SINCE`.
"""
OLDEST: Final = 3
"""The oldest version that the host still serves."""
COUNTER_SINCE: Final = 4
"""From this version on a frame has COUNTER where DONE was, DONE is in a line of its own, a RESET frame says which
version its monitor is of, and the monitor looks at the header's VERSION and SAVE.
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
EL2_OFFSET: Final = 0x11_0000
EL2_SIZE: Final = 0x1_0000
"""What is at EL2 of a guest that runs as under a hypervisor (`qemu_sdei.hypervisor`): vectors and stage 2 tables. The
host writes it, and no monitor looks at it. Of other guests it is 0.
"""
SCRATCH_OFFSET: Final = 0x12_0000
"""Neither side gives it a meaning: buffers for micro-operations (fw_cfg DMA)."""
SCRATCH_SIZE: Final = 0x9_8000
PV_TIME_OFFSET: Final = 0x1B_8000
PV_TIME_STRIDE: Final = 0x40
PV_TIME_SIZE: Final = MAX_CPUS * PV_TIME_STRIDE
"""Host: a record of stolen time for each CPU (DEN0057 3.2.2), which the guest maps. The one part of the window that
the guest is told of; stage 2 lets it read there, and nothing else. 0 where the guest has not asked for it. It has no
version of its own: no monitor looks at it.
"""
READY_OFFSET: Final = 0x1C_0000
READY_SIZE: Final = 0x200
"""For each CPU a table of answers that are ready before they are asked for: words of `Ready`, then entries of `Entry`,
each at the place that `ready_entry` tells. An entry that stands elsewhere is not found. All is the host's but COUNT. A
table is filled only while its CPU waits for an answer. To take an answer back the host clears KEY or VALID, at any
time.
"""
READY_ENTRY_WORDS: Final = 4
READY_ENTRIES: Final = READY_SIZE // (8 * READY_ENTRY_WORDS)
"""The first one is no entry: the words of `Ready` are there."""
READY_HASH: Final = 0xEE52_BDB6_D102_0A15
"""Spreads what is asked most often over the table."""
READY_ONE: Final = 1 << 32
READY_TWO: Final = 1 << 33
"""In KEY: x1 has to be as ARGUMENT says, or x1 and x2."""


class Header(IntEnum):
    """Words of the header at offset 0; all written by the host."""

    MAGIC = 0
    VERSION = 1
    NR_CPUS = 2
    POLL = 3
    """1 while the host watches SEQ by itself: the monitor then does not ring the doorbell."""
    SAVE = 4
    """A `Save` set: what the monitor saves at each entry beside what it always saves."""


class Save(IntFlag):
    """What costs time at each entry, and so is only saved when the host asks for it."""

    COUNTER = 1
    """Without it COUNTER is 0: QEMU takes some 70 ns to read the counter, one in 25 of a hot call."""
    EL2 = 2
    """ESR_EL2 to SCR_EL3. All but SCR_EL3 are 0 where the CPU has no EL2."""


class Word(IntEnum):
    """Words of a frame, ordered by cache lines (eight words): the two sides run on two cores, and what a call costs is
    mostly the lines that go to and fro. Line 0 is the host's alone, because the monitor spins on it; line 1 and the
    context behind it are all that the host reads of an ordinary call. Lines 8 and 15 are the monitor's, for what is
    rarely read.
    """

    ACK = 0
    """Host: the sequence number that the rest of the frame answers. Written last."""
    FLAGS = 1
    """Host: an `AnswerFlag` set with the number of micro-operations in bits 15:8."""
    HALT_POLL = 2
    """Host: how long the monitor may look for an interrupt before the CPU sleeps, in ticks of the counter. Reserved: no
    monitor looks yet, and it is 0.
    """
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
    COUNTER = 15
    """Monitor: CNTPCT_EL0 when the CPU came to EL3, if the header's SAVE has `Save.COUNTER`; else 0. Where it did not
    come from the guest (RESET, OPS, BAD_ANSWER, and the wake-up of a parked CPU) it is that of the post; 0 in a FAULT
    frame. The physical counter, because no guest can shift it: it is one for all CPUs and exception levels. The
    virtual counter is less by CNTVOFF_EL2, which is 0 unless the guest has EL2.
    """
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
    DONE = 64
    """Monitor: the sequence number whose answer it has taken. A CPU is in an exchange iff SEQ != DONE."""
    MONITOR_VERSION = 65
    """Monitor, in a RESET frame: the version of the window that it was built for."""
    HALT_POLLED = 66
    """Monitor: how often an interrupt came while it looked for one (see HALT_POLL). Reserved: 0."""
    HALT_SLEPT = 67
    """Monitor: how often it looked, and the CPU slept all the same. Reserved: 0."""
    PROOF = 71
    """Monitor, in CPU 0's RESET frame: the number in its image that the guest cannot read. The host clears it before
    the guest runs.
    """
    OPS = 72
    ESR_EL2 = 120
    """Monitor, from here to SCR_EL3: as they were when the CPU came to EL3 from the guest, if the header's SAVE has
    `Save.EL2`; else they are left as they are.
    """
    ELR_EL2 = 121
    SPSR_EL2 = 122
    FAR_EL2 = 123
    HPFAR_EL2 = 124
    SCR_EL3 = 125


RESERVED: Final = (*range(3, 8), *range(61, 64), *range(68, 71), *range(126, 128))
"""Words of a frame that mean nothing yet. Both sides leave them 0, and look at none of them."""


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
    VERSION = 4
    """The first answer after a reset, while the header's VERSION is not that of the monitor."""


class Ready(IntEnum):
    """Words of a CPU's table of ready answers."""

    NO_KEY = 0
    """0, where an entry would have its KEY."""
    VALID = 1
    """Bit n: there may be an entry for a call whose x0 is n modulo 64. 0: nothing behind it counts."""
    TRAP = 2
    """ESR_EL3 of a call that may be answered."""
    CALLER = 3
    """Bits 63:32: bits 4:2 of its PSTATE. Bits 31:0: 0, or the call has come by EL2: ESR_EL2 of it then. Such a call
    returns by ELR_EL2 and SPSR_EL2, to EL1 and nowhere else.
    """


class Entry(IntEnum):
    """Words of a ready answer."""

    KEY = 0
    """x0 of the call, with `READY_ONE` or `READY_TWO` where more of it counts. 0: no call."""
    ARGUMENT = 1
    """x1, or x1 in bits 31:0 and x2 in bits 63:32."""
    RESULT = 2
    """What goes into x0. All other registers stay as they are."""
    COUNT = 3
    """Monitor: how often it has answered by this entry."""


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
    """Wait for an interrupt at EL3 before returning (a standby CPU_SUSPEND). A doorbell without a kick for this CPU
    does not end it.
    """
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


def done_word(version: int) -> int:
    """Index of DONE in a frame of a monitor of that version."""
    return int(Word.DONE if version >= COUNTER_SINCE else Word.COUNTER)


def counter_of(frame: memoryview, version: int) -> int | None:
    """What COUNTER of a frame says; None: nothing, or its monitor is of a version that does not."""
    return int(frame[Word.COUNTER]) or None if version >= COUNTER_SINCE else None


def ready_offset(cpu: int) -> int:
    """Offset of CPU `cpu`'s table of ready answers from the start of the window, in bytes."""
    return READY_OFFSET + cpu * READY_SIZE


def ready_entry(function: int, *arguments: int) -> int:
    """Index of the entry that answers `function` for these values of x1 and x2; 0: none can."""
    return ((function + sum(arguments)) * READY_HASH & 0xFFFF_FFFF_FFFF_FFFF) >> 60


def pv_time_offset(cpu: int) -> int:
    """Offset of CPU `cpu`'s record of stolen time from the start of the window, in bytes."""
    return PV_TIME_OFFSET + cpu * PV_TIME_STRIDE


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
                 "FRAME_SIZE", "MONITOR_OFFSET", "MONITOR_SIZE", "SCRATCH_OFFSET", "READY_OFFSET", "READY_SIZE",
                 "READY_HASH", "READY_ONE", "READY_TWO",
                 "OP_WORDS", "MAX_OPS", "OPS_SHIFT", "OP_ABORTED"):  # fmt: skip
        define(f"W_{name}", globals()[name])
    # What assembly shifts an index by.
    for name, size in (("FRAME", FRAME_SIZE), ("MONITOR", MONITOR_SIZE), ("READY", READY_SIZE),
                       ("ENTRY", 8 * READY_ENTRY_WORDS), ("READY_ENTRIES", READY_ENTRIES)):  # fmt: skip
        define(f"W_{name}_SHIFT", size.bit_length() - 1)
    for prefix, members, scale in (
        ("H_", Header, 8),
        ("SAVE_", Save, 1),
        ("F_", Word, 8),
        ("KIND_", Kind, 1),
        ("BAD_", BadAnswer, 1),
        ("READY_", Ready, 8),
        ("ENTRY_", Entry, 8),
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
