"""The loop that serves a guest: sees frames, journals, has the firmware answer them, rings.

Two ways of waiting. While calls come thick and fast it watches the SEQ words and the monitor does not ring (about a
microsecond a call); after a while without news it says so in the window and sleeps until the doorbell, a client or
the supervisor wakes it. How long "a while" is adapts: it grows when watching pays and shrinks when it does not,
because cores are few and a watcher takes one from the guest.

One thread: nothing here needs a lock, and a trigger from a client is just another input between two frames.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.backend.firmware.call_counts import MAX_FUNCTIONS, counter
from qemu_sdei.backend.firmware.cpu_starts import Starts
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.firmware.function_names import UNKNOWN
from qemu_sdei.backend.loop import recovery, status_report
from qemu_sdei.backend.loop.descriptors import Descriptors
from qemu_sdei.backend.loop.event_log import complain
from qemu_sdei.backend.loop.frame_hooks import Watched
from qemu_sdei.backend.loop.journal import FULL, Journal, Record
from qemu_sdei.backend.loop.journal_space import Room
from qemu_sdei.backend.loop.pending_injections import Waiting
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.doorbell import Doorbell
from qemu_sdei.monitor.layout import HEAD_WORDS, AnswerFlag, Header, Kind, Word
from qemu_sdei.monitor.window import Window
from qemu_sdei.services.psci import Power
from qemu_sdei.smccc.ids import FUNCTION_MASK

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.trace import Trace

_SPIN_MIN: Final = 400
_SPIN_MAX: Final = 4000
"""Looks at the SEQ words without news before going to sleep; a look takes some 60 ns."""
_SPIN_YIELD: Final = 32
_SPIN_KICK: Final = 500
"""The same while a kick is on its way, with a sched_yield between looks: its frame comes within a few dozen
microseconds, or the CPU is busy in EL3.
"""
_SOCKETS_EVERY: Final = 256
"""Frames after which a busy loop looks at its sockets; after one of a user's service it does so at once."""
_SECOND_LOOK_MS: Final = 2
_LONGEST_SLEEP_MS: Final = 1000
_MAX_SEQ: Final = 1 << 47
"""No monitor gets there, and the journal has 48 bits for it."""

Entry = tuple[Callable[[int, memoryview], Any] | None, int, int | None, list[int]]
"""Handler, journal mode, result if it is always the same, and how often each PE called."""


class Server(Descriptors):
    """Serves one guest until QEMU goes away or somebody calls `stop`.

    Attributes:
        calls: how often each function was called, per PE, since the backend started to serve this guest; under UNKNOWN
            what nobody serves, under OTHER what is served beyond MAX_FUNCTIONS of them.
    """

    def __init__(
        self, window: Window, doorbell: Doorbell, firmware: Firmware, journal: Journal, clock: Callable[[], int]
    ) -> None:
        super().__init__(clock)
        self.window = window
        self.doorbell = doorbell
        self.firmware = firmware
        self.journal = journal
        self.calls: dict[int, list[int]] = {}
        self.starts = Starts(firmware, self.calls)
        self._seen = memoryview(bytearray(8 * window.nr_cpus)).cast("Q")
        """SEQ words as last looked at."""
        self._last = [0] * window.nr_cpus
        """Sequence number of the newest good frame of each PE."""
        self._frames = window.frames
        self._contexts = window.contexts
        self._heads = [frame[layout.HEAD] for frame in window.frames]
        self._entries: dict[int, Entry] = {}
        self._keep = journal.append
        self._kicks = firmware.kicks
        self._room = False
        """The journal is full."""
        self._journal_room = Room(self)
        self._attention = firmware.dispatcher.attention
        self._outcome = memoryview(bytearray(8 * HEAD_WORDS)).cast("Q")
        self._kicked = bytearray(window.nr_cpus)
        self._trace: Trace | None = None
        self._fence = threading.Lock()
        self._spin = _SPIN_MIN
        self.machine: dict[str, Any] = {}
        """What a state document must be of: see `document.machine_of`."""
        self.watched = Watched(self)
        self.waiting = Waiting(self)
        self._told = False
        """The user knows of forged RESET frames."""
        self._heard = False
        """QEMU has accepted our connection: the guest has rung, or a kick has come back as a frame."""
        self.watch(doorbell.fileno(), self._doorbell_event)

    def _doorbell_event(self, events: int) -> None:
        self._heard = True
        if not self.doorbell.drain():
            self.unwatch(self.doorbell.fileno())
            self.stop()

    # ---- the loop

    def run(self) -> None:
        """Serve. Returns when QEMU closed the doorbell or after `stop`."""
        self.firmware.note = self._note
        self.firmware.record = self._record_outcome
        self.firmware.dispatcher.on_transition = self._transition_hook()
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000)  # the hot path keeps nothing; a collection there would be a hiccup of milliseconds
        seq, seen, poll_word = self.window.seq, self._seen, self.window.header
        cpus = range(self.window.nr_cpus)
        sched_yield = os.sched_yield
        if self.held:
            self._hold_still()
        frame = self._frame_function()
        quiet = 0
        since_sockets = 0
        poll_word[Header.POLL] = 1
        while not self._stopping:
            if seq != seen:
                for pe in cpus:
                    s = seq[pe]
                    if s != seen[pe]:
                        if frame(pe, s):
                            since_sockets = _SOCKETS_EVERY
                        since_sockets += 1
                if quiet > 64 and self._spin < _SPIN_MAX:
                    self._spin += self._spin >> 2
                quiet = 0
                if since_sockets >= _SOCKETS_EVERY:
                    since_sockets = 0
                    self._sockets(0)
                    frame = self._frame_function()
                    poll_word[Header.POLL] = 1
                continue
            quiet += 1
            if quiet < _SPIN_YIELD:
                continue
            if quiet < _SPIN_KICK and 1 in self._kicked:
                sched_yield()  # who takes the ring may have been woken on this core
                continue
            if quiet < self._spin:
                continue
            # Nothing came: stop watching, and look once more, because a frame may have been posted by somebody who
            # still saw us watch.
            poll_word[Header.POLL] = 0
            with self._fence:  # a locked instruction: the store above is visible before the load below
                pass
            if seq != seen:
                poll_word[Header.POLL] = 1
                continue
            if self._spin > _SPIN_MIN:
                self._spin -= self._spin >> 2
            self._sleep()
            frame = self._frame_function()
            poll_word[Header.POLL] = 1
            quiet = 0
            since_sockets = 0

    def _sleep(self) -> None:
        """Wait for a descriptor, or for news that nobody rang for.

        On a host whose locks order less than x86's the fence above may not do; by the time a short sleep is over the
        store has long been seen. A connection that QEMU has not accepted yet carries nothing, and what the guest rings
        meanwhile is lost: so until it has rung once, sleeps are short. And a guest that writes into the window where it
        must not can have its own rings left out: so no sleep is without end.
        """
        if self._trace is not None:
            self._trace.flush()
        limit = _SECOND_LOOK_MS
        while not self._sockets(limit) and self.window.seq == self._seen:
            self.window.header[Header.POLL] = 0
            if self.watched.every_ms:
                limit = self.watched.every_ms
                self.watched.ask_for_sign()
                continue
            limit = _LONGEST_SLEEP_MS if self._heard else min(2 * limit, _LONGEST_SLEEP_MS)

    # ---- standing still ---------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Answer no frame until `held` is taken back; what is posted waits, and triggers are not asked for."""
        self.held = True
        self.window.header[Header.POLL] = 0

    def drain(self) -> None:
        """Answer what is posted. For a guest whose vCPUs stand still, so that nothing new comes."""
        for pe in range(self.window.nr_cpus):
            s = self.window.seq[pe]
            if s != self._seen[pe]:
                self._frame(pe, s)

    def answer(self, pe: int, s: int) -> bool:
        """Answer frame `s` of a PE; as `_frame`."""
        return (self._frame if self._trace is None else self._trace.frame)(pe, s)

    def _frame_function(self) -> Callable[[int, int], bool]:
        if self.held or self.watched.wanted:
            return self.watched.frame
        return self._frame if self._trace is None else self._trace.frame

    def answered(self, pe: int) -> int:
        """Sequence number of the newest frame of a PE that was answered."""
        return self._last[pe]

    def take_over(self, answered: list[int]) -> None:
        """Go on for a guest whose state and window were just filled in; `answered` as of the backend before this."""
        self._last[:] = answered
        self._entries.clear()  # they count in lists that were replaced
        for pe, s in enumerate(answered):
            self._seen[pe] = s
            self._kicked[pe] = 0
        self.checkpoint()
        self.kick_again()

    # ---- one frame

    def _frame(self, pe: int, s: int) -> bool:
        """One frame; returns whether a user's service may have taken long. Numbers in place of names here and there:
        this runs a million times a second, and a name costs 30 ns.
        """
        self._seen[pe] = s
        frame = self._frames[pe]
        last = self._last
        if s != last[pe] + 1 and not self._adopt(pe, s, frame):
            return False
        last[pe] = s
        firmware = self.firmware
        if frame[8] == 2:  # Word.KIND, Kind.SMC
            entry = self._entries.get(frame[10])  # Word.FUNCTION
            handler, mode, constant, counts = entry if entry is not None else self._entry(frame[10])
            counts[pe] += 1
            if constant is not None:
                frame[18] = constant  # Word.X0
                frame[1] = 0  # Word.FLAGS
                frame[0] = s  # Word.ACK
                return False
            # What is kept is what cannot be done twice. Where an event is due, even a call that only asks, or that
            # nobody serves, ends with a delivery.
            if mode == 1 or mode == 4 or (mode != 2 and self._attention[pe]):
                self._keep(1, pe, s, self._heads[pe])
                if self.journal.count >= FULL:
                    self._room = True
            firmware.call(pe, frame, self._contexts[pe], handler, mode == 2)
        else:
            mode = 2 if frame[8] == 4 else 0  # Kind.OPS: a service goes on
            if not self._rare(pe, s, frame, frame[8]):
                return False
        frame[0] = s
        if self._kicks:
            self._send_kicks()
        if self._room:
            self._journal_room.make()
        return mode == 2 or mode == 4

    def _entry(self, function: int) -> Entry:
        """What a call of `function` (x0 as it came) needs; kept for the next time if somebody serves it."""
        number = function & FUNCTION_MASK
        entry = self._entries.get(number)
        if entry is not None:
            return entry
        found = self.firmware.find(number)
        if found is None:
            return None, 3, None, counter(self.calls, UNKNOWN, self.window.nr_cpus)
        constant = None if self._trace is not None else self.firmware.constants.get(number)
        counts = counter(self.calls, number, self.window.nr_cpus)
        entry = (*found, constant, counts)
        if len(self._entries) < MAX_FUNCTIONS:
            self._entries[number] = entry
        return entry

    def trace_to(self, trace: Trace) -> None:
        """Have all that happens traced, from now on. For this run of `run`, and slower."""
        self._trace = trace
        self._entries.clear()
        self.listen(trace.write)

    def _rare(self, pe: int, s: int, frame: memoryview, kind: int) -> bool:
        """A frame that is no call; False: it is left alone."""
        firmware = self.firmware
        if kind == Kind.RESET and pe == 0 and not firmware.is_proven(frame):
            self._last[pe] = s - 1
            self._forged(s)
            return False
        if kind in (Kind.KICK, Kind.INTERRUPT):
            self._kicked[pe] = 0
            self._heard = True
        boots = firmware.boots(pe, frame)
        if kind == Kind.RESET and pe == 0:
            for cpu in range(self.window.nr_cpus):
                self._kicked[cpu] = 0
        if not boots:
            if kind == Kind.OPS:
                self.journal.append_ops(pe, s, self._heads[pe], frame[layout.OPS])
            else:
                self._keep(Record.INPUT, pe, s, self._heads[pe])
            self._room = self.journal.count >= FULL
        firmware.handle(pe, frame, self.window.contexts[pe])
        if firmware.started:
            self.starts.note()
        if boots:
            self.checkpoint({pe: frame})
            frame[Word.PROOF] = 0  # not before: who is killed here must know it again, and not later: the guest runs
            if not self._heard:
                firmware.kicks.append(pe)  # when it comes back as a frame, QEMU has accepted our connection
        return True

    def _forged(self, s: int) -> None:
        """CPU 0 has not come out of reset: the guest has written this frame. SEQ is put back, so that CPU 0's own next
        frame, which may have this number, is news.
        """
        self._note("reject", 0, why="the guest has forged a RESET frame, or QEMU runs another guest's monitor; ignored")
        if not self._told:
            self._told = True
            complain(
                "a RESET frame does not have the number that is in monitor.bin: the guest has written it, or QEMU was "
                "started with another monitor.bin; it is ignored, as others like it will be"
            )
        if self.window.seq[0] == s:
            self.window.seq[0] = self._seen[0] = self._last[0]

    def _adopt(self, pe: int, s: int, frame: memoryview) -> bool:
        """A number that does not follow the last one. Good if this is the first that we see of a guest that ran
        before; else somebody other than the monitor wrote it, and the frame is left alone (the CPU's own next
        frame follows the last good number).
        """
        if frame[Word.KIND] == Kind.RESET and s < _MAX_SEQ:
            if pe == 0 and not self.firmware.is_proven(frame):
                self._forged(s)
                return False
            return True  # what was posted before the reset is void, forged numbers and all
        if self._last[pe] == 0 and s != frame[Word.ACK] and frame[Word.DONE] + 1 == s < _MAX_SEQ:
            return True
        self._note(
            "reject", pe, why=f"sequence number {s:#x} after {self._last[pe]:#x} is not the monitor's; frame ignored"
        )
        return False

    def kick(self, pe: int) -> None:
        """Interrupt a PE, which then comes by with a frame."""
        self.firmware.kicks.append(pe)
        self._send_kicks()

    def kick_again(self) -> None:
        """A kick, or the doorbell's byte for it, may have been lost with an earlier backend or QEMU.

        Who waits in the monitor to be woken (`CPU_SUSPEND`, `SYSTEM_SUSPEND`), or to be started, would come up: so only
        if there is something for it. Each kick reaches CPU 0 first, so none is sent without need.
        """
        firmware = self.firmware
        for pe, frame in enumerate(self._frames):
            power = firmware.psci.power[pe]
            waits = power is Power.OFF or frame[Word.FLAGS] & AnswerFlag.WFI
            if power is Power.ON_PENDING or self._attention[pe] or not waits:
                firmware.kicks.append(pe)
        self._send_kicks()

    def _send_kicks(self) -> None:
        """Interrupt the PEs that the firmware asks for. One kick for each PE may be on its way: its KICK frame ends
        it.
        """
        kicks = self.firmware.kicks
        rang = False
        for pe in kicks:
            if not self._kicked[pe]:
                self._kicked[pe] = 1
                self.window.kick[pe] = self.window.kick[pe] + 1 & 0xFFFF_FFFF_FFFF_FFFF
                rang = True
        kicks.clear()
        if rang:
            self.doorbell.ring()

    def _record_outcome(self, pe: int, frame: memoryview, words: tuple[int, ...]) -> None:
        """A service that may not be run twice has given its result: it counts from here on, and before the frame
        shows it.
        """
        body = self._outcome
        body[:] = frame[layout.HEAD]
        for n, word in enumerate(words, Word.X0 - Word.KIND):
            body[n] = word & 0xFFFF_FFFF_FFFF_FFFF
        self.journal.append(Record.OUTCOME, pe, self._last[pe], body)
        self._room = self.journal.count >= FULL

    # ---- state

    def trigger(self, event: int, pe: int | None) -> Any:
        """Inject an event. Raises what `Dispatcher.trigger` raises."""
        if self.journal.count >= FULL:
            self._journal_room.make()
        self.journal.trigger(event, pe)
        try:
            return self.firmware.trigger(event, pe)
        finally:
            if self.firmware.kicks:
                self._send_kicks()
            self.watched.changed()

    def replace_sdei(self, sdei: dict[str, Any]) -> None:
        """Have another SDEI state from now on. Raises `ProtocolError`: it cannot be, and nothing was changed."""
        if self.firmware.busy:
            raise ProtocolError("a service waits for its micro-operations; try again")
        self.firmware.restore(self.firmware.snapshot() | {"sdei": sdei})
        self.checkpoint()
        self._send_kicks()
        self.watched.changed()

    def checkpoint(self, answers: dict[int, memoryview] | None = None) -> None:
        """See `recovery.checkpoint`."""
        recovery.checkpoint(self, answers)

    def recover(self) -> bool:
        """See `recovery.recover`."""
        return recovery.recover(self)

    def status(self) -> dict[str, Any]:
        """See `report.status`."""
        return status_report.status(self)
