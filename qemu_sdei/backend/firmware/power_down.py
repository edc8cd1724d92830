"""A CPU that was powered down is as after a reset: what QEMU's CPU keeps, and a real one loses, as micro-operations.

QEMU resets no CPU here: one that is off, or suspended to a power-down, waits in the EL3 monitor. So before it comes
up all of this is written. Each register, why, and when: docs/reference/power-down.md
(DEN0022 6.4).

It takes several exchanges (`Step`), and which one is over stands in the first micro-operation itself, as its mark: so
nothing of it is state that a backend could lose. A guest that forges such a frame resets its own CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from qemu_sdei.backend.firmware.gic import redistributor_reset
from qemu_sdei.monitor.layout import FAMILIES, MAX_OPS, OP_WORDS, Op, SysReg, Word
from qemu_sdei.monitor.ops import MicroOp, clear_sysregs, decode, mark_of, marked, read_sysreg, write_sysreg

R = SysReg


class Step(IntEnum):
    """What the micro-operations of an exchange were for: the mark of the first of them."""

    LOOK = 0xC0
    """Which priorities are active is known; for CPU_ON, the redistributor has been reset."""
    DROP = 0xC1
    """No priority is active."""
    WAIT = 0xC2
    """A suspended CPU was woken."""
    CLEAR = 0xC3
    """At EL2: most of the registers have been written; the rest goes with the answer."""
    END = 0xC4
    """All is done, and the CPU on its way: no frame comes of it."""


_INTID: Final = 9
"""A secure SGI that is never active: what EL3 ends is a priority, no interrupt."""
_HALF_OF_PRIORITIES: Final = 0xFFFF_FFFF
_ALL_COUNTERS: Final = 0xFFFF_FFFF
_PMCR_RESET: Final = 0x6
"""E is 0; C and P: the counters are 0."""
_OS_LOCKED: Final = 1
_PMR_OPEN: Final = 0xFF
"""For all that may come: kicks are Group 0, and this register masks them as well."""
_CNTHCTL_RESET: Final = 3
_MPIDR_RES1: Final = 1 << 31

_TIMERS: Final = (
    *(R.CNTV_CTL_EL0, R.CNTV_CVAL_EL0, R.CNTP_CTL_EL0, R.CNTP_CVAL_EL0),
    *(R.CNTHP_CTL_EL2, R.CNTHP_CVAL_EL2, R.CNTHV_CTL_EL2, R.CNTHV_CVAL_EL2),
)
_WRITTEN: Final = frozenset(
    (
        *(R.SCTLR_EL1, R.SCTLR_EL2, R.CNTHCTL_EL2, R.VPIDR_EL2, R.VMPIDR_EL2, R.MDCR_EL2, R.ICC_PMR_EL1),
        *(R.OSLAR_EL1, R.PMCR_EL0, R.PMCNTENCLR_EL0, R.PMINTENCLR_EL1, R.PMOVSCLR_EL0),
    )
)
"""They have another value than 0."""
_NOT_OURS: Final = frozenset(
    (
        *(R.CNTPCT_EL0, R.CNTFRQ_EL0, R.ISR_EL1, R.SCR_EL3, R.CPTR_EL3),
        *(R.ICC_EOIR0_EL1, R.ICC_EOIR1_EL1, R.ICC_AP1R0_EL1),
    )
)
"""The machine's, the monitor's, and what is no state."""


def _is_el2(register: SysReg) -> bool:
    return register.name.endswith("_EL2")


_ZERO: Final = tuple(r for r in R if r not in _WRITTEN and r not in _NOT_OURS and r not in _TIMERS)


def _cleared(registers: Iterable[SysReg]) -> list[MicroOp]:
    """0 to all of these, and to all of their families."""
    masks: dict[int, int] = {}
    for register in registers:
        for number in range(register, register + FAMILIES.get(register, 1)):
            masks[number & ~63] = masks.get(number & ~63, 0) | 1 << number % 64
    return [clear_sysregs(first, mask) for first, mask in sorted(masks.items())]


_CLEAR: Final = {
    (el, timers): tuple(_cleared(r for r in (*_ZERO, *(_TIMERS if timers else ())) if el == 2 or not _is_el2(r)))
    for el in (1, 2)
    for timers in (False, True)
}
_COMMON: Final = (
    write_sysreg(R.ICC_PMR_EL1, _PMR_OPEN),
    write_sysreg(R.OSLAR_EL1, _OS_LOCKED),
    write_sysreg(R.PMCR_EL0, _PMCR_RESET),
    write_sysreg(R.PMCNTENCLR_EL0, _ALL_COUNTERS),
    write_sysreg(R.PMINTENCLR_EL1, _ALL_COUNTERS),
    write_sysreg(R.PMOVSCLR_EL0, _ALL_COUNTERS),
)


def look(pe: int | None) -> list[MicroOp]:
    """The first exchange. `pe`: a CPU that is being started, whose redistributor is reset; None: one that goes to
    sleep, whose redistributor holds what is to wake it.
    """
    return [
        marked(read_sysreg(R.ICC_AP1R0_EL1), Step.LOOK),
        *(redistributor_reset(pe) if pe is not None else ()),
    ]


def drop(frame: memoryview) -> list[MicroOp]:
    """What ends the priorities that `look` found active; nothing if it found none.

    QEMU ignores a write to ICC_AP1R0_EL1 where there is an EL3, from EL3 as well. An end of interrupt drops one.
    """
    found = ends(active_at(frame))
    return [marked(found[0], Step.DROP), *found[1:]] if found else []


def active_at(frame: memoryview) -> int:
    """ICC_AP1R0_EL1, as the frame of `look` brings it."""
    return decode(frame, 1)[0].value & _HALF_OF_PRIORITIES


def ends(active: int) -> list[MicroOp]:
    """What ends the priorities of ICC_AP1R0_EL1's value, and says what is left, if that fits in."""
    count = min((active & _HALF_OF_PRIORITIES).bit_count(), MAX_OPS)
    last = [read_sysreg(R.ICC_AP1R0_EL1)] if 0 < count < MAX_OPS else []
    return [write_sysreg(R.ICC_EOIR1_EL1, _INTID)] * count + last


def left_at(frame: memoryview) -> int | None:
    """ICC_AP1R0_EL1 after `drop`, as its frame brings it; None: it does not."""
    for at, result in zip(
        range(Word.OPS, Word.OPS + OP_WORDS * MAX_OPS, OP_WORDS), decode(frame, MAX_OPS), strict=True
    ):
        if (frame[at] & 0xFF, frame[at + 1]) == (Op.READ_SYSREG, R.ICC_AP1R0_EL1):
            return result.value & _HALF_OF_PRIORITIES
        if frame[at + 1] != R.ICC_EOIR1_EL1:
            break
    return None


def wait() -> list[MicroOp]:
    """What a sleeping CPU needs to be woken by whatever is pending and enabled: its interface masks nothing then."""
    return [
        marked(write_sysreg(R.ICC_PMR_EL1, _PMR_OPEN), Step.WAIT),
        write_sysreg(R.ICC_IGRPEN1_EL1, 1),
    ]


def clear(client_el: int, timers: bool) -> list[MicroOp]:
    """All that has the same value on each CPU. With EL2, this is an exchange of its own."""
    first, *rest = _CLEAR[client_el, timers]
    asked = [read_sysreg(R.PMCR_EL0)] if client_el == 2 else []
    return [marked(first, Step.CLEAR), *asked, *rest, *_COMMON]


def own(frame: memoryview, affinity: int, midr: int) -> list[MicroOp]:
    """At EL2, what is a CPU's own; `frame` is that of `clear`."""
    counters = decode(frame, 2)[1].value >> 11 & 0x1F  # PMCR_EL0.N
    return [
        write_sysreg(R.CNTHCTL_EL2, _CNTHCTL_RESET),
        write_sysreg(R.VPIDR_EL2, midr),
        write_sysreg(R.VMPIDR_EL2, affinity | _MPIDR_RES1),
        write_sysreg(R.MDCR_EL2, counters),
    ]


def step_of(frame: memoryview | list[int]) -> int:
    """Which of these a frame brings back: a `Step`, or 0 for none."""
    mark = mark_of(frame)
    return mark if Step.LOOK <= mark <= Step.END else 0
