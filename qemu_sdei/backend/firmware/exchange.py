"""How one frame is answered: a service is called, what has become deliverable is delivered, the rest is carried out.

What every call goes through. Which handler a call has, `CallTable` knows; what PSCI's calls ask for besides
(`AnsweredPower`) is in the answer that all parts share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from qemu_sdei.backend.firmware.call_table import Handler
from qemu_sdei.backend.firmware.core import DAIF, PARK, Core, Steps, park
from qemu_sdei.backend.firmware.interrupt_ownership import Job
from qemu_sdei.monitor.layout import AnswerFlag, Kind, SysReg, Word
from qemu_sdei.monitor.ops import MicroOp, OpResult, encode, write_sysreg
from qemu_sdei.sdei.constants import DENIED
from qemu_sdei.sdei.constants import Function as SdeiFunction
from qemu_sdei.sdei.context import PC, PSTATE, X0
from qemu_sdei.services.psci import Power
from qemu_sdei.smccc.ids import FUNCTION_MASK

Dispatch = Callable[[int, memoryview, int, int], "int | None"]
"""As `Engine.dispatch`."""
_ON: Final = Power.ON
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
NOT_SUPPORTED: Final = _M64
"""As x0 holds it."""
_ALL: Final = int(AnswerFlag.ALL)
_SCTLR_RESET: Final = {1: 0x30D0_0800, 2: 0x30C5_0830}
"""RES1 bits only: MMU and caches off."""
_REGISTER: Final = int(SdeiFunction.EVENT_REGISTER)


def _store(regs: memoryview, words: tuple[int, ...]) -> None:
    for n, word in enumerate(words, X0):
        regs[n] = word & _M64


class Exchange:
    """Answers the calls of one guest.

    Attributes:
        delivered: counts handlers that were entered.
    """

    def __init__(self, core: Core, power: list[Power]) -> None:
        """`power`: that of PSCI, which is looked at in each call."""
        self.delivered = 0
        self._power = power
        self._client_el = core.machine.client_el
        self._sctlr = core.machine.sctlr
        self._dispatcher = core.dispatcher
        self._attention = core.dispatcher.attention
        self._dispatch: Dispatch = core.dispatcher.dispatch
        self._dispatch_last: Dispatch = core.dispatcher.dispatch
        self._otherwise = False
        """`_dispatch` is not the core's own."""
        self._claims = core.dispatcher.interrupts
        self._ownership = core.ownership
        self._answer = core.answer
        self._observer = core.observer
        self._steps: dict[int, tuple[Steps, int]] = {}
        """Services that wait for micro-operations: generator and number of operations asked for."""

    def call(self, pe: int, frame: memoryview, regs: memoryview, handler: Handler | None, outcome: bool = False) -> int:
        """Answer an SMC whose handler has been looked up; None: nobody serves this function. Returns the answer's
        FLAGS: to read them from the frame costs more than the rest of what the trace has to do with them.

        `outcome`: the handler may not be run twice; `Observer.record` is told its result before anything follows from
        it.
        """
        if self._power[pe] is not _ON:
            self._observer.reject(pe, f"call {frame[Word.FUNCTION]:#x} from a PE that is off")
            park(frame)
            return PARK
        answer = self._answer
        answer.frame = frame
        if handler is None:
            regs[X0] = NOT_SUPPORTED
            self._observer.tell("unknown", pe, function=frame[Word.FUNCTION])
        else:
            try:
                result = handler(pe, regs)
            except Exception as error:  # a user's service: its bugs are not the guest's
                result = (NOT_SUPPORTED,)  # recorded as any other: what is due is delivered after it
                self._observer.reject(
                    pe, f"service failed on function {frame[Word.FUNCTION]:#x}: {type(error).__name__}: {error}"
                )
            if result is None:
                if answer.ops or self._dispatcher.resume is not None:
                    self.finish(pe, frame, regs)
                    return frame[1]
            elif isinstance(result, int):
                regs[2] = result & 0xFFFF_FFFF_FFFF_FFFF
            elif isinstance(result, tuple):
                if outcome and self._observer.record is not None:
                    self._observer.record(pe, frame, result)
                _store(regs, result)
            else:
                self.advance(pe, frame, regs, result, None)
                return frame[1]
        if answer.flags or self._claims:
            self.finish(pe, frame, regs)
            return frame[1]
        # As in `finish`, for the ordinary answer.
        frame[1] = 0  # Word.FLAGS
        if self._attention[pe] and self._dispatch(pe, regs, frame[self._sctlr], frame[14]) is not None:
            self.delivered += 1
            return frame[1] if self._otherwise else 0
        return 0

    def deliver_by(self, ordinary: Dispatch, last: Dispatch) -> None:
        """Have other functions deliver than the core's own. `ordinary`: behind a call whose answer is else complete: it
        has to put into the frame what goes with the delivery. `last`: what it leaves in the answer goes along.
        """
        self._dispatch, self._dispatch_last = ordinary, last
        self._otherwise = ordinary != self._dispatcher.dispatch

    def finish(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        """The call is done: deliver what has become deliverable, and carry out what was asked for besides."""
        answer = self._answer
        if self._dispatcher.resume is not None:
            elr, spsr = self._dispatcher.take_resume(regs, frame[self._sctlr], frame[Word.HCR_EL2])
            one = self._client_el == 1
            answer.ops.append(write_sysreg(SysReg.ELR_EL1 if one else SysReg.ELR_EL2, elr))
            answer.ops.append(write_sysreg(SysReg.SPSR_EL1 if one else SysReg.SPSR_EL2, spsr))
        if answer.wake is not None:
            self.enter(frame, regs, *answer.wake)
            answer.wake = None
        if self._claims:
            job = Job(answer.flags, list(answer.ops), is_call=frame[Word.KIND] == Kind.SMC)
            if job.is_call and frame[Word.FUNCTION] & FUNCTION_MASK == _REGISTER:
                job.registering = self._claims[0]
            self.settle(pe, frame, regs, job, ())
        else:
            self._end(pe, frame, regs)

    def enter(self, frame: memoryview, regs: memoryview, entry: int, x0: int, x1: int = 0) -> None:
        """The CPU goes on at `entry`, in the state that PSCI (DEN0022 6.4.3) and the Linux boot protocol ask for."""
        for word in range(Word.X0, Word.X30 + 1):
            frame[word] = 0
        regs[PC] = entry
        regs[PSTATE] = self._client_el << 2 | 1 | DAIF
        regs[X0] = x0
        regs[X0 + 1] = x1
        # A CPU that was on before has its MMU still on.
        ops = self._answer.ops
        ops.append(write_sysreg(SysReg.SCTLR_EL1, _SCTLR_RESET[1]))
        if self._client_el == 2:
            ops.append(write_sysreg(SysReg.SCTLR_EL2, _SCTLR_RESET[2]))
            ops.append(write_sysreg(SysReg.HCR_EL2, 0))
        self._answer.flags |= _ALL

    def repost(self, frame: memoryview, ops: list[MicroOp], flags: int = 0) -> None:
        """Have these done, and then get another frame; what was asked for so far is among them."""
        self._answer.ops.clear()
        frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST | flags

    def _end(self, pe: int, frame: memoryview, regs: memoryview) -> None:
        answer = self._answer
        flags = answer.flags
        if (
            self._attention[pe]
            and not flags & PARK
            and self._dispatch_last(pe, regs, frame[self._sctlr], frame[Word.HCR_EL2]) is not None
        ):
            self.delivered += 1
            flags = flags & ~int(AnswerFlag.WFI) | answer.flags & PARK
        if answer.ops:
            flags |= encode(frame, answer.ops)
            answer.ops.clear()
        answer.flags = 0
        frame[Word.FLAGS] = flags

    def settle(self, pe: int, frame: memoryview, regs: memoryview, job: Job, found: Sequence[OpResult]) -> None:
        """The exchange goes on until the GIC is told all that `job` has to tell it; then it ends as it was to.
        `found`: results of what was done for it so far.
        """
        answer = self._answer
        self._ownership.note(job, self._claims)
        ops = self._ownership.advance(pe, job, found)
        self._claims.clear()
        if job.refused:
            regs[X0] = DENIED & _M64
        if ops:
            self._ownership.jobs[pe] = job
            answer.flags = 0
            answer.ops.clear()
            frame[Word.FLAGS] = encode(frame, ops) | AnswerFlag.REPOST
        else:
            answer.flags = job.flags
            answer.ops[:] = job.ops
            self._end(pe, frame, regs)

    # ---- services that ask for micro-operations ---------------------------------------------------------------------

    def advance(self, pe: int, frame: memoryview, regs: memoryview, steps: Steps, results: Any) -> None:
        """Have a service go on with the results of its micro-operations (None: it begins)."""
        try:
            wanted = steps.send(results)
            ops = [wanted] if isinstance(wanted, MicroOp) else list(wanted)
            flags = encode(frame, ops)
        except StopIteration as stop:
            if stop.value is not None:
                _store(regs, stop.value)
            self.finish(pe, frame, regs)
            return
        except Exception as error:
            regs[X0] = NOT_SUPPORTED
            self._observer.reject(pe, f"service failed: {type(error).__name__}: {error}")
            self.finish(pe, frame, regs)
            return
        self._steps[pe] = (steps, 0 if isinstance(wanted, MicroOp) else len(ops))
        frame[Word.FLAGS] = flags | AnswerFlag.REPOST

    def take_steps(self, pe: int) -> tuple[Steps, int] | None:
        """The service of a PE that waits for micro-operations, and of how many (0: of one, by itself); it waits no
        more. None: none waits.
        """
        return self._steps.pop(pe, None)

    @property
    def busy(self) -> bool:
        """A service waits for micro-operations: its progress cannot be written down now."""
        return bool(self._steps)

    @property
    def in_flight(self) -> list[int]:
        """The PEs whose services wait for micro-operations."""
        return list(self._steps)

    def abandon(self) -> None:
        """Cancel services that wait for micro-operations; their callers will get NOT_SUPPORTED."""
        for pe in self._steps:
            self._observer.reject(pe, "service cancelled: its micro-operations have filled the journal")
        self._steps.clear()

    def reset(self) -> None:
        """The machine was reset: nothing is under way."""
        self._steps.clear()
        self._answer.clear()
