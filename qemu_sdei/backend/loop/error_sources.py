"""The error sources of one guest: what stands in their memory, and how an error is put there and told of.

Where a source's memory is follows from the machine description alone (`boot/area.py`). What the guest has written there
(the address register, the read-ack register, the block itself) is shown and waited for, and never says where anything
is written.

An error is written in an order in which the guest never sees half of it, whatever it looks at in between: the read-ack
register is cleared, then the block is written but for its first word, then that word. A backend that dies in between
leaves a source that is not ready or an error that nobody was told of; `take_up` makes both good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.fence import Fence
from qemu_sdei.backend.loop.notifications import Notifications, Outcome, Then
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.backend.loop.untold_errors import UntoldErrors
from qemu_sdei.boot.area import ErrorSource
from qemu_sdei.boot.previous_errors import Stage
from qemu_sdei.errors import NotDeliveredError, SdeiError, UsageError
from qemu_sdei.ras.source import MIN_BLOCK, Notify
from qemu_sdei.sdei.events import EventType

FREE: Final = "free"
UNREAD: Final = "unread"
UNACKNOWLEDGED: Final = "unacknowledged"
DAMAGED: Final = "damaged"
_WHY_NOT: Final = {
    UNREAD: "the error before is not read yet",
    UNACKNOWLEDGED: "the error before is not acknowledged yet",
    DAMAGED: "the guest has written over the address of its block",
}
LIMIT: Final = 10.0
_SEVERITY: Final = 16
_FATAL: Final = 1
_PASSING: Final = frozenset(("masked", "disabled"))
"""What keeps an event from its handler for a while."""


@dataclass(frozen=True, slots=True)
class Words:
    """The memory of a source, as it is.

    Attributes:
        address: what the register holds that should name the block.
        status, severity: of the block.
        ack: the read-ack register; None: the source has none.
    """

    address: int
    status: int
    severity: int
    ack: int | None


class ErrorSources:
    """The error sources of one guest.

    Attributes:
        placed: all of them, where they are.
        stage: where an error is kept for the next boot to tell of; None: a guest without ACPI.
        notifications: what tells of errors by other means than SDEI.
        reports: how many errors this backend has written into guest RAM.
        untold: those that SDEI tells of and whose handler has not begun.
    """

    def __init__(
        self,
        guest: ServedGuest,
        log: EventLog,
        trigger: Callable[[int, int | None], Any],
        arriving: Callable[[], bool],
        notifications: Notifications,
    ) -> None:
        """`trigger`: makes an event pending, as `Server.trigger`. `arriving`: whether guest RAM is not all there."""
        self.placed: tuple[ErrorSource, ...] = ()
        self.stage: Stage | None = None
        self.notifications = notifications
        self.reports = 0
        self._guest = guest
        self._log = log
        self.untold = UntoldErrors(self, guest, log, trigger)
        self._arriving = arriving
        self._fence = Fence()

    # ---- what is there

    def lines(self) -> list[int]:
        """The interrupts that tell of errors."""
        return [each.source.interrupt for each in self.placed if each.source.interrupt is not None]

    def refresh(self, then: Callable[[], object]) -> None:
        """Have it found out which interrupts would reach the guest, then call `then`, now or later."""
        lines = self.lines()
        if not lines:
            then()
        else:
            self.notifications.refresh(lines, then)

    def find(self, name: str) -> ErrorSource:
        """The source of this name. Raises `UsageError`."""
        found = next((each for each in self.placed if each.source.name == name), None)
        if found is not None:
            return found
        if not self.placed:
            raise UsageError("this guest has no error sources: it was not started with --ras or --acpi")
        names = ", ".join(each.source.name for each in self.placed[:12])
        raise UsageError(f"there is no error source {name[:64]!r}: there are {names}")

    def why_closed(self) -> str | None:
        """Why the sources' memory may not be looked at, nor written; None: it may."""
        firmware = self._guest.firmware
        if firmware.machine.epoch == 0 or firmware.boot.booting:
            return "the guest has not booted yet"
        # A page that is touched here first QEMU could not put in place any more.
        return "the guest's RAM is still arriving" if self._arriving() else None

    def words(self, placed: ErrorSource) -> Words:
        """What stands in the memory of a source; nothing while it may not be looked at."""
        if self.why_closed() is not None:
            return Words(placed.block, 0, 0, None if placed.read_ack is None else 1)
        ack = None if placed.read_ack is None else self._read(placed.read_ack, 8)
        return Words(
            self._read(placed.address_register, 8),
            self._read(placed.block, 4),
            self._read(placed.block + _SEVERITY, 4),
            ack,
        )

    def state(self, placed: ErrorSource) -> str:
        """`FREE`, or why no error can be put there: `UNREAD`, `UNACKNOWLEDGED`, `DAMAGED`."""
        words = self.words(placed)
        if words.address != placed.block:
            return DAMAGED
        if words.status:
            return UNREAD
        return FREE if words.ack is None or words.ack & 1 else UNACKNOWLEDGED

    def unread(self, placed: ErrorSource) -> bool:
        """Whether an error lies there that the guest has not read."""
        return self.state(placed) == UNREAD

    def why_unheard(self, placed: ErrorSource, pe: int | None, *, force: bool = False) -> str | None:
        """Why nobody would notice an error now; None: somebody would.

        Args:
            placed: the source.
            pe: the vCPU that is to be told; None: any.
            force: do not mind what passes: the event is disabled, or the vCPUs are masked.
        """
        source = placed.source
        if (closed := self.why_closed()) is not None:
            return closed
        if not source.enabled:
            return "the machine description has it disabled"
        if source.event is not None:
            return self._why_no_event(source.event, pe, force)
        if source.interrupt is not None:
            return self.notifications.why_no_interrupt(source.interrupt)
        return self.notifications.why_no_sea(pe) if source.notify is Notify.SEA else None

    def _why_no_event(self, event: int, pe: int | None, force: bool) -> str | None:
        firmware = self._guest.firmware
        if not firmware.serves_sdei:
            return "this guest has no SDEI (--no-sdei)"
        passing = _PASSING if force else frozenset()
        found = [firmware.dispatcher.why_unheard(event, each) for each in self._targets(event, pe)]
        if any(each is None or each.reason in passing for each in found):
            return None
        return found[0].why if found[0] is not None else None

    def target(self, placed: ErrorSource, pe: int | None) -> int | None:
        """The vCPU whose event is to be triggered: of a private event and None the first that would take it."""
        event = placed.source.event
        if event is None:
            return pe
        targets = self._targets(event, pe)
        unheard = self._guest.firmware.dispatcher.why_unheard
        return next((each for each in targets if unheard(event, each) is None), targets[0])

    def _targets(self, event: int, pe: int | None) -> list[int | None]:
        dispatcher = self._guest.firmware.dispatcher
        if pe is not None or dispatcher.describe(event).type is EventType.SHARED:
            return [pe]
        return list(range(self._guest.window.nr_cpus))

    def report(self) -> list[dict[str, Any]]:
        """All sources and how they are: what `ras_sources` answers."""
        return [self._document(placed) for placed in self.placed]

    def _document(self, placed: ErrorSource) -> dict[str, Any]:
        source, state = placed.source, self.state(placed)
        reason = self.why_unheard(placed, None)
        return {
            "name": source.name,
            "id": source.id,
            "type": source.type,
            "notify": source.notify.value,
            "event": source.event,
            "interrupt": source.interrupt,
            "poll_ms": source.poll_ms,
            "block": source.block,
            "raw": source.raw,
            "records": source.records,
            "sections": source.sections,
            "address": placed.block,
            "address_register": placed.address_register,
            "read_ack": placed.read_ack,
            "state": state,
            "status": self.words(placed).status,
            "ready": reason is None,
            "reason": reason,
        }

    def blocks(self) -> list[dict[str, int]]:
        """What stands in the memory of each source that SDEI tells of: `event`, `source` (its id), `address` of the
        status block as its register has it and as is `expected`, `status` and `severity` of that block, `ack`: bit 0 is
        set once it has been read (of a source that has no such register: while nothing is there).
        """
        found = []
        for placed in self.placed:
            if placed.source.event is None:
                continue
            words = self.words(placed)
            ack = int(not words.status) if words.ack is None else words.ack
            found.append(
                {"event": placed.source.event, "source": placed.source.id, "address": words.address}
                | {"expected": placed.block, "status": words.status, "severity": words.severity, "ack": ack}
            )
        return found

    # ---- an error

    def check(self, placed: ErrorSource, block: bytes, pe: int | None, *, force: bool) -> None:
        """Whether an error can be reported; nothing is changed.

        Args:
            placed: where.
            block: a generic error status block.
            pe: the vCPU that is to be told; None: any.
            force: also where the one before was not read.

        Raises:
            UsageError: it does not fit, or there is no such vCPU.
            NotDeliveredError: nobody would notice it, or the one before is not read.
        """
        source = placed.source
        if not MIN_BLOCK <= len(block) <= source.block:
            raise UsageError(
                f"a status block of {len(block)} bytes: source {source.name!r} takes {MIN_BLOCK} to {source.block}"
            )
        if pe is not None and not 0 <= pe < self._guest.window.nr_cpus:
            raise UsageError(f"there is no vCPU {pe}: this guest has 0 to {self._guest.window.nr_cpus - 1}")
        why = self.why_unheard(placed, pe, force=force)
        state = self.state(placed)
        if why is None and state != FREE and not force:
            why = _WHY_NOT[state]
        if why is not None:
            raise NotDeliveredError(f"source {source.name!r}: {why}")

    def tell(
        self,
        placed: ErrorSource,
        block: bytes,
        pe: int | None,
        *,
        address: int | None = None,
        limit: float = LIMIT,
        then: Then | None = None,
    ) -> int | None:
        """Write an error and tell the guest of it. Returns the vCPU that is told, None: no certain one.

        Args:
            placed: where.
            block: what `check` has found possible.
            pe: the vCPU that is to be told; None: any.
            address: virtual, for a synchronous external abort.
            limit: seconds in which a vCPU must come to where it can take an abort.
            then: of one that is told by an abort or an interrupt: called once it was, or could not be. The block says
                then that there is no error.

        Raises:
            SdeiError: the guest cannot be told after all; the block says then that there is no error.
        """
        source = placed.source
        epoch = self._guest.firmware.machine.epoch
        details: dict[str, Any] = {"source": source.name, "notify": source.notify.value, "bytes": len(block)}
        details |= {"severity": int.from_bytes(block[_SEVERITY : _SEVERITY + 4], "little")}
        self._write(placed, block)
        stage = self.stage if details["severity"] == _FATAL else None
        if stage is not None:
            stage.keep(block, epoch)

        def take_back(why: str) -> None:
            self._clear(placed)
            if stage is not None:
                stage.forget(block, epoch)
            self._log.note("ras", pe, **details, outcome="refused", why=why)

        def made(outcome: Outcome) -> None:
            if outcome.made is False and self._guest.firmware.machine.epoch == epoch and self.why_closed() is None:
                take_back(str(outcome.why))
            if then is not None:
                then(outcome)

        try:
            if source.event is not None:
                self.untold.tell(source.event, pe)
            elif source.interrupt is not None:
                self.notifications.interrupt(source.interrupt, then=made)
            elif source.notify is Notify.SEA:
                self.notifications.sea(pe, address=address, limit=limit, then=made)
        except SdeiError as error:
            take_back(str(error))
            raise
        self.reports += 1
        self._log.note("ras", pe, **details, outcome="reported")
        return pe

    def keep(self, block: bytes) -> None:
        """Keep an error for the BERT of the next boot, and tell nobody of it.

        Args:
            block: a generic error status block.

        Raises:
            UsageError: this guest has no BERT, or no room in it.
            NotDeliveredError: its RAM may not be written now.
        """
        if self.stage is None:
            raise UsageError("this guest's next boot has no BERT: it was not started with --ras or --acpi")
        if (closed := self.why_closed()) is not None:
            raise NotDeliveredError(closed)
        if not self.stage.keep(block, self._guest.firmware.machine.epoch):
            raise UsageError(f"no room for {len(block)} bytes: too many errors wait for the next boot already")
        severity = int.from_bytes(block[_SEVERITY : _SEVERITY + 4], "little")
        self._log.note(
            "ras", None, source="BERT", notify="next-boot", bytes=len(block), severity=severity, outcome="kept"
        )

    def _write(self, placed: ErrorSource, block: bytes) -> None:
        start = placed.block - self._guest.window.ram_base
        ram = self._guest.window.ram
        self._put(placed.address_register, 8, placed.block)
        self._put(placed.block, 4, 0)
        if placed.read_ack is not None:
            self._put(placed.read_ack, 8, 0)
        self._order()
        ram[start + 4 : start + placed.block_size] = block[4:].ljust(placed.block_size - 4, b"\0")
        self._order()
        self._put(placed.block, 4, int.from_bytes(block[:4], "little"))
        self._order()

    def _clear(self, placed: ErrorSource) -> None:
        self._put(placed.block, 4, 0)
        if placed.read_ack is not None:
            self._put(placed.read_ack, 8, 1)

    def take_up(self) -> None:
        """A backend that was killed while it reported an error is replaced by this one: finish what it began.

        An error that lies there unread is told of. Where none lies, none waits to be acknowledged.
        """
        if not self.placed or self.why_closed() is not None:
            return
        for placed in self.placed:
            state = self.state(placed)
            if state == UNACKNOWLEDGED:
                self._clear(placed)
                continue
            line = placed.source.interrupt
            if state == UNREAD and line is not None and not self.notifications.waits(line):
                with contextlib.suppress(SdeiError):
                    self.notifications.interrupt(line)
        self.untold.tell_again()

    def not_told(self, outcome: Outcome) -> None:
        """An abort or an interrupt that a backend before this was to make was given up: take back what it told of."""
        if self.why_closed() is not None:
            return
        for placed in self.placed:
            source = placed.source
            if source.interrupt is None and source.notify is not Notify.SEA:
                continue
            if self.state(placed) == UNREAD and not self.notifications.waits(source.interrupt):
                self._clear(placed)
                about = {"source": source.name, "notify": source.notify.value, "bytes": 0, "severity": 0}
                self._log.note("ras", None, **about, outcome="refused", why=str(outcome.why))

    # ---- memory

    def _read(self, address: int, size: int) -> int:
        at = address - self._guest.window.ram_base
        return int.from_bytes(self._guest.window.ram[at : at + size], "little")

    def _put(self, address: int, size: int, value: int) -> None:
        """Write a word by one store."""
        at = address - self._guest.window.ram_base
        self._guest.window.ram[at : at + size].cast("I" if size == 4 else "Q")[0] = value

    def _order(self) -> None:
        """What was written before is seen before what is written after."""
        self._fence.order()
