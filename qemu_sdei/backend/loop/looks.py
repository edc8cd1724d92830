"""Looks: where vCPUs are, asked of the vCPUs themselves.

A vCPU that is wanted is kicked. Its KICK frame is answered with micro-operations that only read system registers, and
the frame that brings their results is answered as the KICK frame would have been. So a vCPU with interrupts masked is
seen too, and nothing of the guest changes.

That such a frame is a look's stands in the mark of its first micro-operation, and the journal has it as the KICK frame
that it stands for: a backend that dies in between is replaced by one that goes on rightly, and has forgotten the look.
A guest that forges such a frame gets what a forged KICK frame gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from qemu_sdei.backend.loop.kicks import Kicks
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.monitor.layout import HEAD, AnswerFlag, Kind, SysReg, Word, counter_of, done_word
from qemu_sdei.monitor.ops import decode, encode, mark_of, marked, read_sysreg

MARK: Final = 0xB0
"""Of the first micro-operation of a look; `power_down.Step` has others."""
_COMMON: Final = (
    *(SysReg.ICC_AP1R0_EL1, SysReg.ICC_AP0R0_EL1, SysReg.ICC_PMR_EL1, SysReg.ICC_IGRPEN1_EL1, SysReg.ISR_EL1),
    *(SysReg.SP_EL0, SysReg.SP_EL1, SysReg.CNTV_CTL_EL0, SysReg.CNTV_CVAL_EL0),
)
_OF_EL: Final = {
    1: (SysReg.VBAR_EL1, SysReg.ELR_EL1, SysReg.SPSR_EL1, SysReg.ESR_EL1, SysReg.FAR_EL1),
    2: (SysReg.VBAR_EL2, SysReg.ELR_EL2, SysReg.SPSR_EL2, SysReg.ESR_EL2, SysReg.FAR_EL2),
}
_GENERAL: Final = slice(Word.X0, Word.X30 + 1)


@dataclass(frozen=True, slots=True)
class Look:
    """A vCPU as it was when it came.

    Attributes:
        number: counts looks, from 1.
        time_ns: by the clock of the event log.
        counter: the guest's counter then; None: its monitor does not tell.
        pc, pstate, x: what it would go on with, X0 to X30; of one that is off, what it left with.
        registers: system registers by name.
    """

    number: int
    time_ns: int
    counter: int | None
    pc: int
    pstate: int
    x: tuple[int, ...]
    registers: dict[str, int]


class Looks:
    """The looks at one guest's vCPUs.

    Attributes:
        found: the newest look at each vCPU that there was one at.
    """

    def __init__(self, guest: ServedGuest, kicks: Kicks, clock: Callable[[], int]) -> None:
        self.found: dict[int, Look] = {}
        self._guest = guest
        self._kicks = kicks
        self._clock = clock
        self._wanted: set[int] = set()
        self._number = 0
        self._registers = (*_COMMON, *_OF_EL[guest.firmware.machine.client_el])
        first, *rest = map(read_sysreg, self._registers)
        self._ops = (marked(first, MARK), *rest)
        self._head = memoryview(bytearray(8 * (HEAD.stop - HEAD.start))).cast("Q")

    def ask(self, pes: Iterable[int]) -> None:
        """Have these vCPUs come, but for those that wait in the monitor to be woken: a kick would wake them."""
        for pe in pes:
            if not self.sleeps(pe):
                self._wanted.add(pe)
                self._kicks.kick(pe)

    def sleeps(self, pe: int) -> bool:
        """Whether a vCPU waits in the monitor for an interrupt (CPU_SUSPEND, SYSTEM_SUSPEND)."""
        frame = self._guest.window.frames[pe]
        return bool(frame[Word.FLAGS] & AnswerFlag.WFI) and not self.is_out(pe)

    def is_out(self, pe: int) -> bool:
        """Whether a vCPU has taken the answer to all that it has posted, as its monitor says: it runs the guest."""
        done = done_word(self._guest.firmware.machine.monitor)
        return bool(self._guest.window.frames[pe][done] == self._guest.window.seq[pe])

    @property
    def wanted(self) -> list[int]:
        """The vCPUs that have not come yet."""
        return sorted(self._wanted)

    def forget(self) -> None:
        """The machine was reset, or another guest is served: nobody is to come, and what was seen is old."""
        self._wanted.clear()
        self.found.clear()

    # ---- frames

    def wants(self, pe: int) -> bool:
        """Whether the next KICK frame of a vCPU is to be answered by `answer`."""
        return pe in self._wanted

    def answer(self, frame: memoryview) -> None:
        """Answer a KICK frame: its vCPU reads registers, and comes again."""
        frame[Word.FLAGS] = encode(frame, self._ops) | AnswerFlag.REPOST

    @staticmethod
    def is_one(frame: memoryview) -> bool:
        """Whether a frame of kind OPS brings the results of a look."""
        return mark_of(frame) == MARK

    def take(self, pe: int, frame: memoryview) -> memoryview:
        """Take the results. Returns what the journal is to have: the head of the KICK frame that this stands for."""
        self._wanted.discard(pe)
        self._number += 1
        results = decode(frame, len(self._registers))
        self.found[pe] = Look(
            self._number,
            self._clock(),
            counter_of(frame, self._guest.firmware.machine.monitor),
            frame[Word.PC],
            frame[Word.PSTATE],
            tuple(frame[_GENERAL]),
            {register.name: result.value for register, result in zip(self._registers, results, strict=True)},
        )
        self._head[:] = frame[HEAD]
        self._head[Word.KIND - HEAD.start] = Kind.KICK
        return self._head
