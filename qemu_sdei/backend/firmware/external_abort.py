"""A synchronous external abort that nothing of the guest's has caused: when a CPU can take one, and as what.

A CPU takes it by what the answer to a frame says: the registers that the architecture gives an exception (Arm ARM,
AArch64.TakeException and AArch64.AbortSyndrome), and the PC in the vectors of the operating system.

An exception overwrites ELR and SPSR. While an operating system's own are in them (its exception entries and exits) the
next one loses the guest. Hardware has no such moment to choose: there an access of that very code would have to fail.
Here the moment is ours, so only these are taken:

- EL0: nothing there is in ELR or SPSR. Linux hands an abort from there to APEI; from the kernel it never does
  (`do_sea`), and dies;
- the operating system's own level with D, A and I clear, if that is asked for: whoever lets interrupts and SErrors come
  says by it that ELR and SPSR are free.

Pure: registers in, registers out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.monitor.ops import MicroOp, write_sysreg
from qemu_sdei.sdei.pstate import HCR_E2H, HCR_TGE, MODE_AARCH32, MODE_MASK, CpuFeatures, entry_pstate

_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_SCTLR_M: Final = 1
_DAI: Final = 0x7 << 7
"""D, A and I of PSTATE: bits 9 to 7."""
_HOST: Final = HCR_E2H | HCR_TGE
_LOWER, _SAME = 0x20, 0x21
"""EC of an instruction abort, by where it comes from; of a data abort 4 more."""
_DATA: Final = 4
_IL: Final = 1 << 25
_FNV: Final = 1 << 10
_EXTERNAL: Final = 0x10
"""IFSC, DFSC: synchronous external abort, not on a translation table walk."""
_VECTORS: Final = {"sp0": 0x000, "same": 0x200, "lower64": 0x400, "lower32": 0x600}
"""Arm ARM D1.3.1.1: offsets of synchronous exceptions."""


class Wish(IntFlag):
    """What an abort is to be."""

    ADDRESS = 1
    """There is an address: FAR has it. Without it ESR says that FAR does not hold one (FnV)."""
    FETCH = 2
    """Of an instruction; else of data."""
    KERNEL = 4
    """It may also hit the operating system itself."""


@dataclass(frozen=True, slots=True)
class Stand:
    """A CPU as it stands when it is asked.

    Attributes:
        pc, pstate: what it would go on with.
        sctlr, vbar: of the operating system's exception level.
        hcr_el2: HCR_EL2.
        in_handler: an SDEI handler runs on it.
    """

    pc: int
    pstate: int
    sctlr: int
    vbar: int
    hcr_el2: int = 0
    in_handler: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What a CPU has that has taken the abort: PC, PSTATE, and system registers as micro-operations."""

    pc: int
    pstate: int
    ops: tuple[MicroOp, ...]


def obstacle(stand: Stand, wish: int, client_el: int) -> str | None:
    """Why a CPU cannot take an abort now, as the end of "it "; None: it can.

    Each is a matter of the moment: asked again, the CPU may stand elsewhere.
    """
    mode = stand.pstate & MODE_MASK
    if stand.in_handler:
        return "runs an SDEI handler"
    if client_el == 2 and (mode >> 2 != 2 or mode & MODE_AARCH32) and stand.hcr_el2 & _HOST != _HOST:
        return "runs a guest of its own"
    if not stand.sctlr & _SCTLR_M:
        return "has its MMU off"
    if not stand.vbar:
        return "has no exception vectors (VBAR is 0)"
    if mode in (0, MODE_AARCH32):
        return None
    if mode & MODE_AARCH32 or mode >> 2 != client_el or mode & 2:
        return f"is at no level that it could come from (PSTATE.M is {mode:#x})"
    if not wish & Wish.KERNEL:
        return f"is in the kernel (EL{client_el}), which dies of one: only what runs at EL0 is hit"
    if stand.pstate & _DAI:
        return f"is at EL{client_el} with D, A or I set: ELR and SPSR may be in use"
    return None


def take(stand: Stand, wish: int, address: int, features: CpuFeatures, client_el: int, more: int = 0) -> Taken:
    """What a CPU has that takes an abort where it stands. `obstacle` must have found nothing in the way, or the abort
    is one of the guest's own. `more`: further bits of ESR.
    """
    mode = stand.pstate & MODE_MASK
    if mode & MODE_AARCH32:
        vector = "lower32"
    elif mode == 0:
        vector = "lower64"
    else:
        vector = "same" if mode & 1 else "sp0"
    same = vector in ("same", "sp0")
    ec = (_SAME if same else _LOWER) + (0 if wish & Wish.FETCH else _DATA)
    has_address = bool(wish & Wish.ADDRESS)
    esr = ec << 26 | _IL | (0 if has_address else _FNV) | _EXTERNAL | more
    elr_el, spsr_el, esr_el, far_el = (SysReg[f"{name}_EL{client_el}"] for name in ("ELR", "SPSR", "ESR", "FAR"))
    ops = [write_sysreg(elr_el, stand.pc), write_sysreg(spsr_el, stand.pstate), write_sysreg(esr_el, esr)]
    if has_address:
        ops.append(write_sysreg(far_el, address & _M64))
    return Taken(
        pc=(stand.vbar & ~0x7FF) + _VECTORS[vector] & _M64,
        pstate=entry_pstate(features, client_el)(stand.pstate, stand.sctlr, stand.hcr_el2),
        ops=tuple(ops),
    )
