"""Frames of calls: journals a call, has the firmware answer it, writes the answer. The hot path of the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qemu_sdei.backend.firmware.call_counts import MAX_FUNCTIONS, counter
from qemu_sdei.backend.firmware.call_table import Lasts
from qemu_sdei.backend.loop.counted_calls import CountedCalls
from qemu_sdei.backend.loop.journal import FULL, Record
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import HEAD_WORDS, Word
from qemu_sdei.services.function_names import UNKNOWN
from qemu_sdei.smccc.ids import FUNCTION_MASK
from qemu_sdei.trace.ring import STEP, Ring
from qemu_sdei.trace.slots import DONE, POSTED, STAMP_EVERY

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.event_log import EventLog
    from qemu_sdei.backend.loop.frame_checks import FrameChecks
    from qemu_sdei.backend.loop.journal_space import JournalSpace
    from qemu_sdei.backend.loop.kicks import Kicks
    from qemu_sdei.backend.loop.rare_frames import RareFrames
    from qemu_sdei.backend.loop.served_guest import ServedGuest

Entry = tuple[Callable[[int, memoryview], Any] | None, int, int | None, list[int], Lasts | None]
"""Handler, journal mode, result if it is always the same, how often each PE called, and what tells how long an answer
lasts.
"""


class CallFrames:
    """Answers the frames of one guest: those of calls, and by `RareFrames` the others.

    Attributes:
        each: how many want to see each call, also those that are only counted otherwise.
    """

    def __init__(
        self,
        guest: ServedGuest,
        log: EventLog,
        checks: FrameChecks,
        kicks: Kicks,
        rare: RareFrames,
        counted: CountedCalls,
        space: JournalSpace,
    ) -> None:
        window, firmware, ring = guest.window, guest.firmware, log.ring
        self.each = 0
        self._guest = guest
        self._log = log
        self._checks = checks
        self._kicks = kicks
        self._rare = rare
        self._counted = counted
        self._space = space
        self._journal = guest.journal
        # The hot path looks at these in each frame: the same objects by shorter ways.
        self._seen = guest.seen
        self._last = guest.answered
        self._frames = window.frames
        self._contexts = window.contexts
        self._heads = [frame[layout.HEAD] for frame in window.frames]
        self._keep: Callable[[int, int, int, memoryview], int] = guest.journal.append
        self._ring: Ring = ring
        self._places = ring.places
        self._sparse = self._sparsely = False
        """Whether most records of calls have no host time now; whether those have none that are behind the first ones,
        which go to the tag `_stamped_to`.
        """
        self._stamped_to = 0
        self._posted = [frame[POSTED] for frame in window.frames]
        self._done = [frame[DONE] for frame in window.frames]
        self._ready = guest.ready
        self._call = firmware.exchange.call
        self._wanted_kicks = firmware.kicks
        self._attention = firmware.dispatcher.attention
        self._entries: dict[int, Entry] = {}
        self._full = False
        """The journal is full."""
        self._outcome = memoryview(bytearray(8 * HEAD_WORDS)).cast("Q")

    def frame(self, pe: int, s: int) -> bool:
        """One frame; returns whether a user's service may have taken long. Numbers in place of names here and there:
        this runs a million times a second, and a name costs 30 ns.
        """
        self._seen[pe] = s
        frame = self._frames[pe]
        last = self._last
        if s != last[pe] + 1 and not self._checks.takes(pe, s, frame):
            return False
        last[pe] = s
        if frame[8] == 2:  # Word.KIND, Kind.SMC
            try:
                handler, mode, constant, counts, lasts = self._entries[frame[10]]  # Word.FUNCTION
            except KeyError:
                handler, mode, constant, counts, lasts = self._entry(frame[10])
            counts[pe] += 1
            if constant is not None:
                frame[18] = constant  # Word.X0
                if lasts is not None:
                    self._offer(pe, frame, lasts)
                frame[1] = 0  # Word.FLAGS
                frame[0] = s  # Word.ACK
                return False
            # As `Ring.take`. The parts of the ring's hot path cost 30 to 60 ns each, most of it Python's.
            ring, places = self._ring, self._places
            if not places:
                ring.enter_part()
            posted, outcome, at, unstamped = places.pop()
            ring.tag = tag = ring.tag + 0x10_0000  # STEP
            part = ring.part
            part[posted] = self._posted[pe]
            ring.word = 0
            # What is kept is what cannot be done twice. Where an event is due, even a call that only asks, or that
            # nobody serves, ends with a delivery.
            if mode == 1 or mode == 4 or (mode != 2 and self._attention[pe]):
                kept = self._keep(1, pe, s, self._heads[pe])
                if kept >= FULL:
                    self._full = True
                lasts = None
            flags = self._call(pe, frame, self._contexts[pe], handler, mode == 2)
            if lasts is not None and not flags:
                self._offer(pe, frame, lasts)
            part[outcome] = self._done[pe]
            part[at + 22] = ring.word | flags if flags else ring.word  # At.ANSWER
            ring.word = -1
            if pe:
                tag |= pe << 8
            if unstamped and self._sparse:
                part[at] = tag  # At.TAG
            else:
                part[at + 1] = self._log.look()  # At.TIME
                part[at] = tag + 6  # Type.STAMPED in place of FRAME
                if tag > self._stamped_to:
                    self._sparse = self._sparsely
        else:
            mode = 2 if frame[8] == 4 else 0  # Kind.OPS: a service goes on
            if not self._rare.frame(pe, s, frame, frame[8]):
                return False
            self._full = self._journal.count >= FULL
        frame[0] = s
        if self._wanted_kicks:
            self._kicks.send()
        if self._full:
            self._full = self._space.make()
        return mode == 2 or mode == 4

    def _entry(self, function: int) -> Entry:
        """What a call of `function` (x0 as it came) needs; kept for the next time if somebody serves it."""
        number = function & FUNCTION_MASK
        entry = self._entries.get(number)
        if entry is not None:
            return entry
        calls = self._guest.firmware.calls
        found = calls.find(number)
        if found is None:
            return None, 3, None, counter(self._guest.calls, UNKNOWN, self._guest.window.nr_cpus), None
        constant = None if self.each else calls.constants.get(number)
        counts = counter(self._guest.calls, number, self._guest.window.nr_cpus)
        if constant is not None:
            self._counted.watch(number, counts)
        entry = (*found, constant, counts, calls.lasting(number))
        if len(self._entries) < MAX_FUNCTIONS:
            self._entries[number] = entry
        return entry

    def _offer(self, pe: int, frame: memoryview, lasts: Lasts) -> None:
        """A call has been answered by what may be known the next time."""
        if self._ready.wanted:
            function, regs = frame[Word.FUNCTION], self._contexts[pe]
            lasting = lasts(function & FUNCTION_MASK, pe, regs)
            if lasting is not None:
                self._ready.offer(pe, function, lasting, regs)

    def record_each(self, wanted: bool) -> None:
        """Have each call recorded, also those that are only counted otherwise; or somebody wants that no more."""
        self.each += 1 if wanted else -1
        self.forget()

    def forget(self) -> None:
        """What calls need, and what they answer, may be something else from now on."""
        self._ready.close()
        self._counted.forget()
        self._entries.clear()

    def record_outcome(self, pe: int, frame: memoryview, words: tuple[int, ...]) -> None:
        """A service that may not be run twice has given its result: it counts from here on, and before the frame
        shows it.
        """
        body = self._outcome
        body[:] = frame[layout.HEAD]
        for n, word in enumerate(words, Word.X0 - Word.KIND):
            body[n] = word & 0xFFFF_FFFF_FFFF_FFFF
        self._journal.append(Record.OUTCOME, pe, self._last[pe], body)
        self._full = self._journal.count >= FULL

    def make_room(self) -> None:
        """See to it that the journal takes another record."""
        if self._journal.count >= FULL:
            self._full = self._space.make()

    def look_for_callers(self, wanted: bool) -> None:
        """Whether the journal is to tell of each call who called: a rule of a firmware profile asks it."""
        self._keep = self._keep_with_caller if wanted else self._journal.append

    def _keep_with_caller(self, kind: int, pe: int, s: int, head: memoryview) -> int:
        """In place of `Journal.append` for calls, where a rule asks who called."""
        return self._journal.append_with_caller(kind, pe, s, head, self._frames[pe][Word.X30])

    def stamp(self, *, sparsely: bool) -> None:
        """Have the next calls recorded with the host's time; `sparsely`: only the first of them, and then few."""
        self._sparsely = sparsely
        self._sparse = False
        self._stamped_to = self._ring.tag + STAMP_EVERY * STEP
