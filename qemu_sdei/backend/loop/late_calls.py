"""Calls that a firmware profile makes late: their frames are put off, and the loop goes on with the others meanwhile.

A frame that is put off has not been handled: it is in no journal, and whoever serves the guest next finds it posted,
and puts it off anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.smccc.ids import FUNCTION_MASK

_MS: Final = 1_000_000


class _Late(NamedTuple):
    seq: int
    due_ns: int
    rules: tuple[int, ...]


class LateCalls:
    """The calls of one guest that are put off.

    Attributes:
        wanted: whether a rule makes calls late.
    """

    def __init__(self, guest: ServedGuest, clock: Callable[[], int]) -> None:
        """`clock`: nanoseconds."""
        self.wanted = False
        self._guest = guest
        self._clock = clock
        self._waiting: dict[int, _Late] = {}
        self._served: tuple[int, int] | None = None
        """PE and number of the frame whose time has come."""

    def puts_off(self, pe: int, s: int, frame: memoryview) -> bool:
        """Whether frame `s` of a PE, which is posted, is left for later."""
        if self._served == (pe, s) or frame[Word.KIND] != Kind.SMC:
            return False
        function = frame[Word.FUNCTION] & FUNCTION_MASK
        regs = self._guest.window.contexts[pe]
        late, rules = self._guest.firmware.misbehaviour.late_ns(pe, function, regs, frame[Word.X30], self._ahead)
        if not late:
            return False
        self._waiting[pe] = _Late(s, self._clock() + late, rules)
        self._guest.seen[pe] = s
        return True

    def _ahead(self, rule: int) -> int:
        return sum(rule in late.rules for late in self._waiting.values())

    def at_most(self, limit_ms: int) -> int:
        """How long the loop may sleep, in milliseconds."""
        if not self._waiting:
            return limit_ms
        left = min(late.due_ns for late in self._waiting.values()) - self._clock()
        return max(min(limit_ms, left // _MS), 0)

    @property
    def due(self) -> bool:
        """Whether the time of one has come."""
        return bool(self._waiting) and min(late.due_ns for late in self._waiting.values()) <= self._clock()

    def serve(self, answer: Callable[[int, int], bool]) -> None:
        """Have those answered whose time has come."""
        while self.due:
            pe, late = min(self._waiting.items(), key=lambda item: item[1].due_ns)
            del self._waiting[pe]
            if self._guest.window.seq[pe] != late.seq or self._guest.answered[pe] == late.seq:
                continue  # it was reset meanwhile
            self._served = pe, late.seq
            try:
                answer(pe, late.seq)
            finally:
                self._served = None
            if self._guest.answered[pe] != late.seq:
                self._guest.seen[pe] = self._guest.answered[pe]  # the loop was paused: it will find it posted

    def forget(self) -> None:
        """Another guest is served from now on."""
        self._waiting.clear()
