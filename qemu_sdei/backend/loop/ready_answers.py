"""Answers that the monitor gives by itself, because they were known before the call: see "Ready answers" in
docs/concepts.md.

A table of a CPU is filled while that CPU waits for an answer, and at no other time: so the monitor never sees half of
an entry. Any time an answer may change, it is taken back first, by one store.
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.backend.firmware.call_counts import counter
from qemu_sdei.monitor.layout import READY_ENTRY_WORDS, READY_ONE, READY_TWO, Entry, Ready, ready_entry
from qemu_sdei.monitor.window import Window
from qemu_sdei.sdei.context import PSTATE, X0
from qemu_sdei.smccc.ids import FUNCTION_MASK
from qemu_sdei.smccc.service import Lasting

SMC_0: Final = 0x5E00_0000
"""ESR_ELx of `smc #0` and, below, of `hvc #0` (Arm ARM D24.2.38)."""
HVC_0: Final = 0x5A00_0000
_LEVEL: Final = 0x1C
"""Of PSTATE: execution state and exception level."""
_W: Final = 0xFFFF_FFFF
_CHALLENGES: Final = 4
"""Calls in a row that find another call's entry where theirs would be, and push it out if it answered none meanwhile.
"""


class _Place:
    """What one entry of a table is for."""

    __slots__ = ("argument", "challenges", "collected", "event", "function", "key", "seen", "stands")

    def __init__(self, key: int, argument: int, function: int, event: int | None, count: int) -> None:
        self.key = key
        self.argument = argument
        self.function = function & FUNCTION_MASK
        self.event = event
        self.stands = False
        """The entry is in the table."""
        self.collected = self.seen = count
        """COUNT as it was when it was last collected, and challenged."""
        self.challenges = 0


class ReadyAnswers:
    """The ready answers of one guest.

    Attributes:
        wanted: whether there may be any. Set by `want`.
        events: event -> where answers stood that its next transition changes. Another call's may stand there by now,
            which is then taken back for nothing; so what a guest can make of it is bounded.
    """

    def __init__(self, window: Window, calls: dict[int, list[int]], client_el: int) -> None:
        """`calls`: function -> how often each PE called it; answers that the monitor gave are added. `client_el`: where
        calls come from.
        """
        self.wanted = False
        self.events: dict[int, set[tuple[int, int]]] = {}
        self._tables = window.ready
        self._calls = calls
        self._level = client_el << 2
        self.trap, self.caller = SMC_0, self._level << 32
        self._places: list[dict[int, _Place]] = [{} for _ in window.ready]
        """Of each PE by index of the entry. They outlive the table: its last counts are still to be collected."""
        self._open = [False] * len(window.ready)
        self._untold: dict[tuple[int, int], int] = {}

    def come_by_el2(self, immediate: int) -> None:
        """Calls come by HVC, and EL2 passes them on by an SMC with this `immediate`."""
        self.trap, self.caller = SMC_0 | immediate, 0x8 << 32 | HVC_0

    def want(self, wanted: bool) -> None:
        """Have ready answers, or have none."""
        if self.wanted and not wanted:
            self.close()
        self.wanted = wanted

    def close(self) -> None:
        """Take all answers back. A table is opened again when its CPU makes the next call that could be answered."""
        for pe, is_open in enumerate(self._open):
            if is_open:
                self._tables[pe][Ready.VALID] = 0
                self._open[pe] = False
                for place in self._places[pe].values():
                    place.stands = False
        self.events.clear()

    def begin(self) -> None:
        """What stands in the tables is another backend's, or the guest's: it does not count."""
        for pe, table in enumerate(self._tables):
            table[Ready.VALID] = 0
            self._open[pe] = False
            self._places[pe].clear()
        self.events.clear()

    def offer(self, pe: int, function: int, lasting: Lasting, regs: memoryview) -> None:
        """A PE has called, and waits for the answer that is in `regs`: perhaps it need not ask the next time. The
        second time the same was answered, an entry is made. `function`: x0 as it came.
        """
        x1, x2 = regs[X0 + 1], regs[X0 + 2]
        if regs[PSTATE] & _LEVEL != self._level or function > _W:
            return
        key, argument = function, 0
        if lasting.arguments == 0:
            n = ready_entry(function)
        elif lasting.arguments == 1:
            n, key, argument = ready_entry(function, x1), function | READY_ONE, x1
        else:
            n, key, argument = ready_entry(function, x1, x2), function | READY_TWO, x1 | x2 << 32
        if not n or (lasting.arguments and x1 > _W) or (lasting.arguments == 2 and x2 > _W):
            return
        places = self._places[pe]
        place = places.get(n)
        if place is None or place.key != key or place.argument != argument:
            if place is None or self._gives_way(pe, n, place):
                count = self._tables[pe][n * READY_ENTRY_WORDS + Entry.COUNT]
                places[n] = _Place(key, argument, function, lasting.event, count)
            return
        if not place.stands:
            self._put(pe, n, place, regs[X0])

    def _gives_way(self, pe: int, n: int, place: _Place) -> bool:
        """Whether the place of another call is free now: it has answered nothing for some time."""
        count = self._tables[pe][n * READY_ENTRY_WORDS + Entry.COUNT]
        if place.stands and count != place.seen:
            place.seen = count
            place.challenges = 0
            return False
        place.challenges += 1
        if place.challenges < _CHALLENGES:
            return False
        self._collect(pe)
        self._tables[pe][n * READY_ENTRY_WORDS + Entry.KEY] = 0
        return True

    def _put(self, pe: int, n: int, place: _Place, result: int) -> None:
        if not self._open[pe]:
            self._reopen(pe, n, place)
        table, at = self._tables[pe], n * READY_ENTRY_WORDS
        table[at + Entry.ARGUMENT] = place.argument
        table[at + Entry.RESULT] = result
        table[at + Entry.KEY] = place.key
        table[Ready.VALID] |= 1 << (place.key & 63)
        place.stands = True
        if place.event is not None:
            self.events.setdefault(place.event, set()).add((pe, n))

    def _reopen(self, pe: int, n: int, place: _Place) -> None:
        """Begin the table of a PE anew: whatever stands there is nobody's."""
        self._collect(pe)
        self._places[pe] = {n: place}
        place.collected = place.seen = 0
        table = self._tables[pe]
        table[:] = memoryview(bytes(table.nbytes)).cast("Q")
        table[Ready.TRAP], table[Ready.CALLER] = self.trap, self.caller
        self._open[pe] = True

    def changes(self, event: int) -> None:
        """The state of an event changes, or has just changed and nobody knows yet: take its answers back."""
        for pe, n in self.events.pop(event, ()):
            self._tables[pe][n * READY_ENTRY_WORDS + Entry.KEY] = 0
            place = self._places[pe].get(n)
            if place is not None:
                place.stands = False

    def collect(self) -> None:
        """Count the calls that the monitor has answered since the last time."""
        for pe, places in enumerate(self._places):
            if places:
                self._collect(pe)

    def _collect(self, pe: int) -> None:
        table = self._tables[pe]
        for n, place in self._places[pe].items():
            count = table[n * READY_ENTRY_WORDS + Entry.COUNT]
            if count != place.collected:
                calls = count - place.collected & _W  # where the guest writes there, it only deceives itself
                place.collected = count
                counter(self._calls, place.function, len(self._tables))[pe] += calls
                self._untold[pe, place.function] = self._untold.get((pe, place.function), 0) + calls

    def take_untold(self) -> dict[tuple[int, int], int]:
        """(PE, function) -> how many calls were collected since the last time that somebody asked."""
        untold, self._untold = self._untold, {}
        return untold
