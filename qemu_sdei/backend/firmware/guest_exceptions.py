"""Exceptions of the guest's that came to EL3, or to our EL2, and that are no calls: which exception it takes for them.

Each takes two frames: one that says what happened, and one that brings what must be known of the CPU for it.
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.backend.firmware import external_abort
from qemu_sdei.backend.firmware.core import DAIF, Core, RefusedSmc, Steps
from qemu_sdei.backend.firmware.exchange import NOT_SUPPORTED, Exchange
from qemu_sdei.backend.firmware.external_abort import Stand, Wish
from qemu_sdei.monitor.layout import SysReg, Word
from qemu_sdei.monitor.ops import read_sysreg, write_sysreg
from qemu_sdei.sdei.context import PC, PSTATE, X0

_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_ESR_UNKNOWN: Final = 0x0200_0000  # EC 0, IL
_EC: Final = 26
"""Lowest bit of the exception class in ESR."""
_SMC: Final = 0x17
_FETCH, _ACCESS = 0x20, 0x24
"""Aborts from a lower level: by stage 2 (Arm ARM D17.2.37)."""
_NO_ADDRESS: Final = 1 << 10
"""FnV: FAR does not have the address."""
_WRITE: Final = 1 << 6
"""WnR."""
_SIZE: Final = 4
"""Bytes of an instruction."""


class GuestExceptions:
    """Those of one guest."""

    def __init__(self, core: Core, exchange: Exchange) -> None:
        self._machine = core.machine
        self._dispatcher = core.dispatcher
        self._answer = core.answer
        self._observer = core.observer
        self._exchange = exchange

    def take(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """Answer a frame of kind EXCEPTION."""
        syndrome = frame[Word.ESR_EL3]
        kind = syndrome >> _EC
        if kind in (_FETCH, _ACCESS):
            self._exchange.advance(pe, frame, regs, self._abort(pe, frame, regs, syndrome), None)
        elif kind == _SMC:
            self._refuse(pe, frame, regs)
        else:
            self._observer.reject(
                pe, f"exception to EL3: ESR {syndrome:#x} vector {frame[Word.VECTOR]} pc {regs[PC]:#x}"
            )
            self._exchange.advance(pe, frame, regs, self._undefined(regs, regs[PC]), None)

    def _refuse(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """An SMC of a guest that is to call by HVC. The PC is behind it."""
        self._observer.tell("unknown", pe, function=frame[Word.FUNCTION])
        if self._machine.smc is RefusedSmc.UNDEFINED:
            self._exchange.advance(pe, frame, regs, self._undefined(regs, regs[PC] - _SIZE & _M64), None)
        else:
            regs[X0] = NOT_SUPPORTED
            self._exchange.finish(pe, frame, regs)

    def _undefined(self, regs: memoryview, pc: int) -> Steps:
        """The instruction at `pc` is one that there is not."""
        two = self._machine.client_el == 2 and regs[PSTATE] & 0xC == 8
        names = "VBAR_EL2 ELR_EL2 SPSR_EL2 ESR_EL2" if two else "VBAR_EL1 ELR_EL1 SPSR_EL1 ESR_EL1"
        vbar, elr, spsr, esr = (SysReg[name] for name in names.split())
        base = yield read_sysreg(vbar)
        mode = regs[PSTATE] & 0x1F
        if mode & 0x10:
            offset = 0x600
        elif mode >> 2 == (2 if two else 1):
            offset = 0x200 if mode & 1 else 0
        else:
            offset = 0x400
        self._answer.ops += [
            write_sysreg(elr, pc),
            write_sysreg(spsr, regs[PSTATE]),
            write_sysreg(esr, _ESR_UNKNOWN),
        ]
        regs[PC] = base.value + offset & _M64
        regs[PSTATE] = regs[PSTATE] & 0xF000_0000 | (9 if two else 5) | DAIF
        return None

    def _abort(self, pe: int, frame: memoryview, regs: memoryview, syndrome: int) -> Steps:
        """An access to what stage 2 does not have: for the guest there is nothing at that address, and the access ends
        as one that no device answers. FAR_EL2 and HPFAR_EL2 stay as they are until the guest comes to EL2 again.
        """
        vbar, far, hpfar = yield [read_sysreg(each) for each in (SysReg.VBAR_EL1, SysReg.FAR_EL2, SysReg.HPFAR_EL2)]
        address = (hpfar.value >> 4 & 0xFF_FFFF_FFFF) << 12 | far.value & 0xFFF
        fetch = syndrome >> _EC == _FETCH
        what = "fetch from" if fetch else "write to" if syndrome & _WRITE else "read from"
        self._observer.reject(pe, f"{what} {address:#x}, which is not the guest's: external abort (pc {regs[PC]:#x})")
        stand = Stand(regs[PC], regs[PSTATE], frame[Word.SCTLR_EL1], vbar.value)
        wish = (Wish(0) if syndrome & _NO_ADDRESS else Wish.ADDRESS) | (Wish.FETCH if fetch else Wish(0))
        more = 0 if fetch else syndrome & _WRITE
        taken = external_abort.take(stand, wish, far.value, self._dispatcher.features, 1, more)
        regs[PC], regs[PSTATE] = taken.pc, taken.pstate
        self._answer.ops += taken.ops
        return None
