"""Notifications other than SDEI: a vCPU takes an external abort, an interrupt becomes pending.

What is decided when a vCPU comes is in `backend/firmware/notices.py`; here is the clock: vCPUs are kicked until one can
make it, and what has waited for too long is withdrawn. All that is asked for is in the journal before it has an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from qemu_sdei.backend.firmware import guest_interrupts
from qemu_sdei.backend.firmware.external_abort import Wish
from qemu_sdei.backend.firmware.notices import ANY, MAX, Came, Kind, Notice
from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.kicks import Kicks
from qemu_sdei.backend.loop.notifications import Outcome, Then
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.errors import BusyError, NotDeliveredError, SdeiError, UsageError
from qemu_sdei.services.psci import Power

LIMIT: Final = 10.0
"""Seconds in which a vCPU must have come to where it can take an abort, or have looked at an interrupt."""
FOREVER_MS: Final = 1 << 30
_AGAIN_MS: Final = {Kind.ABORT: 2, Kind.INTERRUPT: 200, Kind.LOOK: 200}
"""After which time a vCPU is kicked again: one that could not take an abort may have come elsewhere; else a kick may
have been lost.
"""
_KICK_MS: Final = 1
"""And not before so long for each vCPU that was kicked: each kick passes vCPU 0."""
_MOST_NS: Final = 100_000_000
"""Of the time between two ticks that counts: while the guest is paused, or the host sleeps, nothing can come."""
_MS: Final = 1_000_000


@dataclass(slots=True)
class _Waiting:
    notice: Notice
    then: Then | None
    left_ns: int
    kicked_ns: int
    again_ms: int = 1
    why: dict[int, str] = field(default_factory=dict)
    """Of each vCPU that came and could not."""
    came: int = 0


class Loop(Protocol):
    """What is asked of the loop that serves the guest."""

    def make_room(self) -> None:
        """See to it that the journal takes another record."""


class Notifier:
    """Those of one guest.

    Attributes:
        on_lost: called, as a `Then`, with one that was not made and that a backend before this was asked for.
    """

    def __init__(
        self, loop: Loop, guest: ServedGuest, kicks: Kicks, log: EventLog, sleeps: Callable[[int], bool]
    ) -> None:
        """`sleeps`: whether a vCPU waits in the monitor for an interrupt, so that a kick would wake it."""
        self._sleeps = sleeps
        self._loop = loop
        self._guest = guest
        self._kicks = kicks
        self._log = log
        self.on_lost: Then | None = None
        self._entries: dict[int, _Waiting] = {}
        self._done: list[tuple[Then, Outcome]] = []
        self._number = 0
        self._unreached: dict[int, str | None] = {}
        """Why an SPI would not reach the guest, as it was looked at last."""
        self._last = log.clock()

    def sea(
        self,
        pe: int | None,
        *,
        address: int | None = None,
        fetch: bool = False,
        kernel: bool = False,
        limit: float = LIMIT,
        then: Then | None = None,
    ) -> None:
        """Have a vCPU take a synchronous external abort, as soon as it is where that does not lose the guest.

        Args:
            pe: which; None: the first that can.
            address: the virtual address that FAR is to have; None: none is known (ESR.FnV).
            fetch: an abort of an instruction, not of data.
            kernel: it may hit the guest's kernel too, not only what runs at EL0.
            limit: seconds for which a moment is waited for.
            then: called once, with what became of it; from `tick`, never from here.

        Raises:
            UsageError: there is no such vCPU. `NotDeliveredError`: none is on that could take it.
        """
        self._on(pe)
        wish = (Wish.ADDRESS if address is not None else 0) | (Wish.FETCH if fetch else 0)
        wish |= Wish.KERNEL if kernel else 0
        self._ask(Kind.ABORT, ANY if pe is None else pe, address or 0, wish, limit, then)

    def why_no_sea(self, pe: int | None) -> str | None:
        """What stands in the way of an abort, as far as it is known without asking a vCPU; None: nothing."""
        try:
            on = self._on(pe)
        except (UsageError, NotDeliveredError) as error:
            return str(error)
        if all(map(self._sleeps, on)):
            return "each vCPU that is on waits in CPU_SUSPEND"
        return None

    def interrupt(self, intid: int, *, then: Then | None = None) -> None:
        """Make an SPI of the guest's pending. It stays as the guest has set it up; one that is not enabled is refused.

        Args:
            intid: its INTID.
            then: as of `sea`.

        Raises:
            UsageError: it is not an SPI, or a device's or the firmware's. `NotDeliveredError`: no vCPU is on.
        """
        self._check(intid)
        self._ask(Kind.INTERRUPT, ANY, intid, 0, LIMIT, then)

    def look(self, intid: int, then: Then) -> None:
        """Find out whether `interrupt` would reach the guest. Raises as it does."""
        self._check(intid)
        self._ask(Kind.LOOK, ANY, intid, 0, LIMIT, then)

    def waits(self, intid: int | None) -> bool:
        """Whether an interrupt, or an abort (None), has been asked for and not been made yet."""
        kind = Kind.ABORT if intid is None else Kind.INTERRUPT
        waiting = self._guest.firmware.notices.waiting.values()
        return any(notice.kind is kind and intid in (None, notice.value) for notice in waiting)

    def refresh(self, intids: Iterable[int], then: Callable[[], object]) -> None:
        """Have a vCPU look at these interrupts, for `why_no_interrupt`; then call `then`, from `tick`."""
        left = set(intids)

        def looked(intid: int, outcome: Outcome) -> None:
            self._unreached[intid] = None if outcome.made else str(outcome.why)
            left.discard(intid)
            if not left:
                then()

        for intid in sorted(left):
            try:
                self.look(intid, partial(looked, intid))
            except SdeiError as error:
                self._done.append((partial(looked, intid), Outcome(False, None, str(error))))

    def why_no_interrupt(self, intid: int) -> str | None:
        """Why nobody would take an SPI if it were pending now, as it was when `refresh` was called last."""
        try:
            self._check(intid)
        except SdeiError as error:
            return str(error)
        return self._unreached.get(intid, "whether the guest has enabled it has not been looked at yet")

    def _check(self, intid: int) -> None:
        if (why := guest_interrupts.taken_by(intid)) is not None:
            raise UsageError(why)
        if self._guest.firmware.dispatcher.is_bound(intid):
            raise NotDeliveredError(f"interrupt {intid} is bound to an SDEI event: inject that one")
        self._on(None)

    def _on(self, pe: int | None) -> list[int]:
        """The vCPUs that are meant, and on."""
        firmware, count = self._guest.firmware, self._guest.window.nr_cpus
        if pe is not None and not 0 <= pe < count:
            raise UsageError(f"there is no vCPU {pe}: this guest has 0 to {count - 1}")
        if firmware.boot.booting or not firmware.machine.epoch:
            raise NotDeliveredError("the guest boots: it notices nothing yet")
        on = [n for n in (range(count) if pe is None else (pe,)) if firmware.psci.power[n] is Power.ON]
        if not on:
            raise NotDeliveredError("no vCPU is on" if pe is None else f"vCPU {pe} is off")
        return on

    def _ask(self, kind: Kind, pe: int, value: int, wish: int, limit: float, then: Then | None) -> None:
        notices = self._guest.firmware.notices
        if len(notices.waiting) >= MAX:
            raise BusyError(f"{MAX} notifications wait for a vCPU already; try again")
        self._number = number = max((self._number, *notices.waiting)) + 1
        notice = Notice(number, kind, pe, value, wish)
        self._loop.make_room()
        self._guest.journal.notice((number, kind, pe + 1, value, wish))
        notices.ask(notice)
        if not self._entries:
            self._last = self._log.clock()
        entry = self._entries[number] = _Waiting(notice, then, int(limit * 1e9), 0)
        self._kick(entry)

    # ---- time

    def tick(self) -> int:
        """Go on with what waits: tell what has become of it, kick, give up. Returns after how many milliseconds this is
        to be called again.
        """
        waiting = self._guest.firmware.notices.waiting
        if not waiting and not self._entries and not self._done:
            return FOREVER_MS
        for number, notice in waiting.items():
            if number not in self._entries:  # of a backend before this one
                self._entries[number] = _Waiting(notice, None, int(LIMIT * 1e9), 0)
        now = self._log.clock()
        elapsed, self._last = min(now - self._last, _MOST_NS), now
        for number, entry in list(self._entries.items()):
            if number not in waiting:  # the guest went back to a snapshot
                self._end(
                    entry, Outcome(False, None, "the guest is in a state by now in which nobody has asked for it")
                )
                continue
            entry.left_ns -= elapsed
            if entry.left_ns <= 0:
                self._give_up(entry)
            elif now - entry.kicked_ns >= entry.again_ms * _MS:
                self._kick(entry)
        done, self._done = self._done, []
        for then, outcome in done:
            then(outcome)
        return min((entry.again_ms for entry in self._entries.values()), default=FOREVER_MS)

    def _kick(self, entry: _Waiting) -> None:
        entry.kicked_ns = self._log.clock()
        notice, power = entry.notice, self._guest.firmware.psci.power
        on = [pe for pe in range(len(power)) if power[pe] is Power.ON and notice.pe in (ANY, pe)]
        awake = [pe for pe in on if not self._sleeps(pe)]
        if notice.kind is not Kind.ABORT:
            # One is enough, and it may as well be woken: the interrupt would wake it.
            awake = (awake or on)[:1]
        entry.again_ms = max(_AGAIN_MS[notice.kind], len(awake) * _KICK_MS)
        for pe in awake:
            self._kicks.kick(pe)

    def _give_up(self, entry: _Waiting) -> None:
        notice = entry.notice
        self._loop.make_room()
        self._guest.journal.notice((notice.number, 0, 0, 0, 0))
        self._guest.firmware.notices.withdraw(notice.number)
        self._end(entry, Outcome(False, None, self._why(entry)))

    @staticmethod
    def _why(entry: _Waiting) -> str:
        """Why nothing came of it. Of vCPUs that could not for one reason there may be hundreds."""
        who: dict[str, list[int]] = {}
        for pe, why in sorted(entry.why.items()):
            who.setdefault(why, []).append(pe)
        if not who:
            return "no vCPU came to the firmware: it is paused, or it waits in CPU_SUSPEND"
        parts = []
        for why, pes in who.items():
            names = ", ".join(map(str, pes[:4])) + (", ..." if len(pes) > 4 else "")
            parts.append(f"vCPU{'s' if len(pes) > 1 else ''} {names}: {why}")
        return f"looked {entry.came} times, and no moment was right; last " + "; ".join(parts)

    # ---- what happens in the guest

    def came(self, notice: Notice, came: Came) -> None:
        """A vCPU came for a notice; called while its frame is answered."""
        entry = self._entries.get(notice.number) or _Waiting(notice, None, 0, 0)
        if came.outcome == "waits":
            entry.came += 1
            entry.why[came.pe] = f"it {came.why}"
            return
        vcpu = None if came.pe == ANY else came.pe
        self._end(entry, Outcome(came.outcome == "made", vcpu, came.why, came.pc, came.pstate))

    def leave(self) -> None:
        """The guest has moved, and what waits with it."""
        for entry in list(self._entries.values()):
            if entry.then is not None:
                self._done.append((entry.then, Outcome(None, None, "the guest has moved: it waits there")))
        self._entries.clear()
        self.tick()

    def _end(self, entry: _Waiting, outcome: Outcome) -> None:
        notice = entry.notice
        self._entries.pop(notice.number, None)
        if entry.then is not None:
            self._done.append((entry.then, outcome))
        if notice.kind is Kind.LOOK:
            return
        if entry.then is None and outcome.made is False and self.on_lost is not None:
            self._done.append((self.on_lost, outcome))
        details: dict[str, object] = {"kind": notice.kind.name.lower(), "outcome": "made" if outcome.made else "failed"}
        if notice.kind is Kind.INTERRUPT:
            details["intid"] = notice.value
        elif notice.wish & Wish.ADDRESS:
            details["address"] = notice.value
        if notice.kind is Kind.ABORT and outcome.made:
            details |= {"elr": outcome.pc, "spsr": outcome.pstate}
        if outcome.why is not None:
            details["why"] = outcome.why
        self._log.note("notification", outcome.vcpu, **details)
