"""What the guest is to notice, other than by an event: external aborts and interrupts that wait for a CPU to make them.

A CPU that is wanted is kicked by the owner. Its KICK frame is answered with micro-operations that look (`look`), and
the frame that brings their results with what comes of it (`take`): the CPU goes on in its abort vector, or sets the
interrupt pending; or it goes on as it was, and the notice waits for the next kick. Which notice such a frame was for
stands in its first micro-operations, and what waits is part of the firmware's state: so it outlives backend and machine
moves, and a replay ends where the first run did. The owner has the clock, and withdraws what has waited for too long.

A guest that forges such a frame deceives itself: the notice, and what is done for it, are not in the frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from qemu_sdei.backend.firmware import external_abort, guest_interrupts
from qemu_sdei.backend.firmware.core import MachineFacts
from qemu_sdei.backend.firmware.external_abort import Stand, Wish
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.layout import OP_WORDS, SysReg, Word
from qemu_sdei.monitor.ops import MicroOp, decode, mark_of, marked, read_sysreg
from qemu_sdei.sdei.context import PC, PSTATE
from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.sdei.interrupts import FIRST_SPI, MAX_INTID

MARK_ABORT: Final = 0xB1
MARK_INTERRUPT: Final = 0xB2
"""Of the first micro-operation; a look of `looks.py` and `power_down.Step` have others."""
ANY: Final = -1
MAX: Final = 256
"""Notices that can wait at a time."""
_MAX_NUMBER: Final = (1 << 32) - 1
_WORD: Final = (1 << 64) - 1
_WISHES: Final = int(~Wish(0))
_LOOKED: Final = 4
"""Micro-operations of which an interrupt wants the results; an abort wants the first."""
_FIELDS: Final = 5


class Kind(IntEnum):
    """What a notice is."""

    ABORT = 1
    """A synchronous external abort; value: the address, if there is one."""
    INTERRUPT = 2
    """An SPI is made pending; value: its INTID."""
    LOOK = 3
    """Whether an SPI would reach the guest, and no more; value: its INTID."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One of them.

    Attributes:
        number: tells it from others that wait.
        pe: the CPU that is to make it; ANY: the first that can.
        wish: a `Wish` set.
    """

    number: int
    kind: Kind
    pe: int = ANY
    value: int = 0
    wish: int = 0


class Came(NamedTuple):
    """What became of a notice when a CPU came for it."""

    outcome: str
    """"made"; "refused": it will not be; "waits": this CPU could not; "void": the machine was reset."""
    pe: int
    why: str | None = None
    pc: int = 0
    pstate: int = 0
    """What the abort has interrupted."""


class Notices:
    """Those of one guest.

    Attributes:
        waiting: by number, oldest first.
        on_came: called with what became of one; None in a replay.
    """

    def __init__(self, machine: MachineFacts, dispatcher: Dispatcher) -> None:
        self._machine = machine
        self._dispatcher = dispatcher
        self.waiting: dict[int, Notice] = {}
        self.on_came: Callable[[Notice, Came], None] | None = None

    def ask(self, notice: Notice) -> None:
        """Have it made. The owner kicks."""
        self.waiting[notice.number] = notice

    def withdraw(self, number: int) -> None:
        """It is no longer wanted."""
        self.waiting.pop(number, None)

    def reset(self) -> None:
        """The machine was reset: what was to be noticed was for the one before."""
        for notice in list(self.waiting.values()):
            self._end(notice, Came("void", notice.pe, "the machine was reset"))

    def next_of(self, pe: int) -> Notice | None:
        """What a CPU that comes is wanted for: an interrupt first, as an abort may have to wait for long."""
        mine = [notice for notice in self.waiting.values() if notice.pe in (ANY, pe)]
        return next((notice for notice in mine if notice.kind is not Kind.ABORT), mine[0] if mine else None)

    def look(self, notice: Notice) -> list[MicroOp]:
        """The micro-operations that say whether it can be made."""
        vbar = read_sysreg(SysReg.VBAR_EL1 if self._machine.client_el == 1 else SysReg.VBAR_EL2)
        if notice.kind is Kind.ABORT:
            return [marked(vbar, MARK_ABORT)]
        return [marked(vbar, MARK_INTERRUPT), *guest_interrupts.look(notice.value)]

    @staticmethod
    def is_one(frame: memoryview) -> bool:
        """Whether a frame of kind OPS brings the results of `look`."""
        return mark_of(frame) in (MARK_ABORT, MARK_INTERRUPT)

    def take(self, pe: int, frame: memoryview, regs: memoryview) -> list[MicroOp]:
        """Take the results: `regs` become those of the abort, if one is taken. Returns what goes with the answer."""
        of_abort = mark_of(frame) == MARK_ABORT
        for notice in self.waiting.values():
            if notice.pe in (ANY, pe) and (notice.kind is Kind.ABORT) is of_abort and self._is_of(notice, frame):
                return self._abort(notice, pe, frame, regs) if of_abort else self._interrupt(notice, pe, frame)
        return []  # it was withdrawn meanwhile

    def _is_of(self, notice: Notice, frame: memoryview) -> bool:
        ops = self.look(notice)
        return all(frame[Word.OPS + OP_WORDS * n + 1] == op.argument for n, op in enumerate(ops))

    def _abort(self, notice: Notice, pe: int, frame: memoryview, regs: memoryview) -> list[MicroOp]:
        machine = self._machine
        stand = Stand(
            pc=regs[PC],
            pstate=regs[PSTATE],
            sctlr=frame[machine.sctlr],
            vbar=decode(frame, 1)[0].value,
            hcr_el2=frame[Word.HCR_EL2],
            in_handler=bool(self._dispatcher.running(pe)),
        )
        why = external_abort.obstacle(stand, notice.wish, machine.client_el)
        if why is not None:
            self._tell(notice, Came("waits", pe, why))
            return []
        taken = external_abort.take(stand, notice.wish, notice.value, self._dispatcher.features, machine.client_el)
        regs[PC], regs[PSTATE] = taken.pc, taken.pstate
        self._end(notice, Came("made", pe, None, stand.pc, stand.pstate))
        return list(taken.ops)

    def _interrupt(self, notice: Notice, pe: int, frame: memoryview) -> list[MicroOp]:
        _, *found = decode(frame, _LOOKED)
        why = guest_interrupts.obstacle(notice.value, found)
        self._end(notice, Came("refused" if why else "made", pe, why))
        return [] if why or notice.kind is Kind.LOOK else guest_interrupts.make_pending(notice.value)

    def _end(self, notice: Notice, came: Came) -> None:
        self.withdraw(notice.number)
        self._tell(notice, came)

    def _tell(self, notice: Notice, came: Came) -> None:
        if self.on_came is not None:
            self.on_came(notice, came)

    # State

    def snapshot(self) -> list[list[int]]:
        """For the journal and for migration: [number, kind, PE or ANY, value, wish] of each."""
        return [[int(word) for word in astuple(notice)] for notice in self.waiting.values()]

    def restore(self, state: Any) -> None:
        """Take over a state.

        Raises:
            ProtocolError: it is damaged.
        """
        self.waiting.clear()
        if not isinstance(state, list) or len(state) > MAX:
            raise ProtocolError(f"notices: a list of at most {MAX} is missing")
        for entry in state:
            notice = from_words(entry, self._machine.nr_cpus)
            if notice.number in self.waiting:
                raise ProtocolError("notices: two have the same number")
            self.waiting[notice.number] = notice


def from_words(words: Any, nr_cpus: int) -> Notice:
    """The notice of five numbers.

    Raises:
        ProtocolError: they are none.
    """
    if not isinstance(words, list) or len(words) != _FIELDS or not all(type(word) is int for word in words):
        raise ProtocolError("notices: one is five numbers")
    number, kind, pe, value, wish = words
    if not 0 < number <= _MAX_NUMBER or kind not in set(Kind):
        raise ProtocolError("notices: one of a kind or number that there is not")
    if not ANY <= pe < nr_cpus:
        raise ProtocolError("notices: one of a CPU that is not there")
    if not 0 <= value <= _WORD or not 0 <= wish <= _WISHES:
        raise ProtocolError("notices: a value that cannot be")
    if kind != Kind.ABORT and (not FIRST_SPI <= value <= MAX_INTID or wish):
        raise ProtocolError(f"notices: {value} is not an SPI")
    return Notice(number, Kind(kind), pe, value, wish)
