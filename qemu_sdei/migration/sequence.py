"""The one sequence by which a guest moves. Until the destination is told to resume the guest, the source can resume it.

    source                                  destination
    [reach the hold point]
                                            prepare: QEMU (-incoming defer -S) and backend (--incoming) start
    QMP stop: the vCPUs are paused
    backend: freeze -> state document
                                            check: the backend checks the state document
    QMP migrate                      --->   device state, and RAM where it is not shared
                                            arrive; verify: RAM is compared and repaired
                                            restore: the backend takes the guest over
                                            go: QMP cont                  <- from here on there is no way back
    announce: backend: moved -> clients
    ends

Live, the vCPUs run while QEMU sends RAM; and where RAM is shared, while it sends flash and the like:

    send: QMP migrate                --->   RAM
    QEMU stops the vCPUs, little is left (pre-switchover)
    backend: freeze -> state document
                                            (with postcopy: RAM compared and repaired, as far as it came)
                                            check: the backend checks the state document
    switchover: QMP migrate-continue --->   what is left of RAM (with postcopy: later), device state
    as above

What the destination does at each step is its own matter: `destination_local.py` is another QEMU on this host,
`destination_remote.py` a host that is told by messages. What a failure leaves at which step: `failure_points.py`.
Why RAM is compared is in docs/concepts.md: QEMU 7.2's TCG loses pages that are written during a live migration.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, LostGuestError, SdeiError, StandsStillError, UnreachableError
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.failure_points import Left, LostInPostcopyError, Stage, left
from qemu_sdei.migration.options import POSTCOPY, SHARED, MigrationOptions, MigrationResult, Report, Step
from qemu_sdei.migration.run_to_completion import finish
from qemu_sdei.migration.source import Side, Source

T = TypeVar("T")
Result = TypeVar("Result", bound=MigrationResult)
Told = TypeVar("Told", bound=MigrationResult, covariant=True)


class Destination(Protocol[Told]):
    """Where a guest goes: what it does at each step of the sequence. All methods raise `SdeiError` when it cannot."""

    @property
    def name(self) -> str:
        """The guest's name there; after `prepare`."""

    @property
    def whereabouts(self) -> tuple[str, str]:
        """What clients of the source are told: who the guest is now, and its control socket, or "" on another host."""

    async def prepare(self, *, early: bool) -> str:
        """Start QEMU and the backend, which wait for the guest, and make the connection that RAM is sent by.

        `early`: the source's QEMU begins while the vCPUs run. Returns the URI for the source's QEMU.
        """

    async def attend(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, in which the source's QEMU sends, and see meanwhile that the destination is still there."""

    async def compare_early(self) -> bool:
        """In QEMU's pause: compare and repair RAM as far as it was sent. False: that cannot be done."""

    async def check(self, document: Path) -> None:
        """Take the state document, and have the backend check it."""

    async def arrived(self, *, postcopy: bool) -> None:
        """Wait until QEMU has taken the guest; with `postcopy`, RAM is not all there."""

    async def verify(self) -> int:
        """Compare and repair RAM. Returns how many pages had not arrived."""

    async def restore(self, *, postcopy: bool) -> None:
        """Have the backend take the guest over."""

    async def take_history(self) -> None:
        """Take what is not QEMU's or the backend's: console, resets, what was typed and not read."""

    async def go(self, *, running: bool) -> int:
        """Have the guest go on there; `running`: its vCPUs too. Returns when it was told, by `time.perf_counter_ns`.

        Raises:
            SdeiError: it does not run there, and never will. `UndecidedError`: perhaps it does.
        """

    async def confirm(self, *, expected: bool) -> float | None:
        """The guest is known to run there. Returns milliseconds from `go` to its first heartbeat; None: not seen.

        `expected`: the answer is wanted, and the guest was told to run.
        """

    async def fetched(self, timeout: float) -> bool:
        """With postcopy, when the source's QEMU cannot be asked: wait until all RAM is there. False: it is not."""

    async def complete(self) -> None:
        """With postcopy: all RAM is there."""

    async def abandon(self) -> None:
        """The guest is about to be resumed at the source: nothing of it may run here. Raises nothing."""

    async def close(self) -> None:
        """Let go of what the sequence needed. Raises nothing."""

    def result(self, result: MigrationResult) -> Told:
        """What is told of the migration, with what this destination adds to it."""


class Sequence(Generic[Result]):
    """One migration. `run` once; after an `UndecidedError`, `take_back` or nothing."""

    def __init__(
        self,
        side: Side,
        destination: Destination[Result],
        options: MigrationOptions,
        report: Report,
        *,
        early: bool = True,
    ) -> None:
        """`early`: QEMU may begin while the vCPUs run where RAM is shared."""
        self._side = side
        self._destination = destination
        self._options = options
        self._report = report
        self._early = options.live or (early and options.route == SHARED and options.hold is None)
        self._stage = Stage.CONNECT
        self._source: Source | None = None
        self._running = False
        self._postcopy = False
        self._document = 0
        self._differing: int | None = None
        self._info: dict[str, Any] = {}
        """What QEMU says of its migration."""
        self._begin = self._paused = self._went = self._end = 0.0
        """Seconds, by `time.monotonic`."""
        self._go_ns = 0
        self._downtime: float | None = None

    @property
    def stage(self) -> Stage:
        """The step that is taken, or was taken last."""
        return self._stage

    async def run(self) -> Result:
        """Move the guest. When this returns it runs at the destination, and must be ended at the source.

        Raises:
            SdeiError: it did not work; the guest goes on at the source, and the destination must be ended. `GuestError`
            below it where a QEMU or a backend went away. `BusyError`: a service had micro-operations in flight where
            QEMU had stopped the vCPUs; the next time it may not. `NotDeliveredError`: the guest must be stopped first,
            not `early`. `StandsStillError`: the guest is paused at the source. `UndecidedError`: the same, and perhaps
            it runs at the destination. `LostInPostcopyError`: the guest was at the destination already, and cannot go
            on without the RAM that is still at the source.
        """
        link = await BackendLink.open(self._side.path / rundir.CONTROL)
        source = self._source = Source(self._side, link, self._options.hold, self._report, self._options.timeout)
        what = Left.UNTOUCHED
        try:
            try:
                await self._move(source)
            except BaseException as error:
                what = left(self._stage, error, self._options.route)
                await finish(self._go_back(source, what))
                raise
            # From here on the guest is there, and nothing leads back.
            await finish(self._follow(source))
        finally:
            await finish(self._destination.close())
            if what is not Left.UNDECIDED:  # the link's end would be the end of the freeze
                link.close()
        return self._destination.result(self._result())

    async def take_back(self) -> None:
        """After an `UndecidedError`: resume the guest at the source. Whoever asks for it knows that it does not run
        at the destination.
        """
        assert self._source is not None
        await self._source.resume()

    async def _move(self, source: Source) -> None:
        """All up to the point of no return."""
        there, options = self._destination, self._options
        if not self._early:
            self._stage = Stage.HOLD
            await source.reach_hold_point()
        self._begin = time.monotonic()
        self._stage = Stage.PREPARE
        uri = await there.prepare(early=self._early)
        if self._early:
            await self._send_running(source, uri)
        else:
            await self._send_paused(source, uri)
        self._postcopy = self._info.get("status") == "postcopy-active"
        self._stage = Stage.ARRIVE
        await there.arrived(postcopy=self._postcopy)
        if options.compared and options.route != POSTCOPY:
            self._stage = Stage.VERIFY
            self._differing = await there.verify()
        self._stage = Stage.RESTORE
        self._report(Step("restore"))
        await there.restore(postcopy=self._postcopy)
        self._stage = Stage.HISTORY
        await there.take_history()
        self._stage = Stage.GO
        self._go_ns = await finish(there.go(running=self._running))
        self._went = time.monotonic()

    async def _send_paused(self, source: Source, uri: str) -> None:
        """The guest is paused first, and then sent as a whole."""
        self._stage = Stage.PAUSE
        await source.prepare(self._options, early=False)
        await source.ask_for_heartbeats(live=False)
        self._paused = time.monotonic()
        self._running, self._document = await source.pause()
        await self._check()
        self._stage = Stage.SWITCHOVER
        self._info = await self._destination.attend(source.transfer(uri, self._options))

    async def _send_running(self, source: Source, uri: str) -> None:
        """QEMU begins while the vCPUs run, and stops them when little is left."""
        there, options = self._destination, self._options
        postcopy = options.route == POSTCOPY
        self._stage = Stage.SEND
        writes = await source.writes()
        self._running = await source.runs()  # before: with little to send, QEMU stops the vCPUs at once
        await source.prepare(options, early=True)
        await source.ask_for_heartbeats(live=options.live)
        await there.attend(source.begin(uri, options))
        self._paused = await there.attend(source.converge(postcopy=postcopy))
        self._stage = Stage.PAUSE
        self._document = await source.switch_over()
        compared = options.compared or options.route == SHARED  # the same RAM is that of a reset as well
        if postcopy and compared:
            self._stage = Stage.COMPARE
            compared = await there.compare_early()
        now = await source.writes()
        if now != writes and not compared:
            # What the backend loads at a reset, or reports, QEMU does not see being written.
            what = "reset" if now[0] != writes[0] else "told of a hardware error"
            raise GuestError(f"the guest was {what} while its RAM was being sent, and RAM is not to be compared")
        await self._check()
        self._stage = Stage.SWITCHOVER
        self._info = await there.attend(source.complete(postcopy=postcopy))

    async def _check(self) -> None:
        """Hand the state document over, and have it checked before anything cannot be taken back."""
        self._stage = Stage.CHECK
        await self._destination.check(self._side.path / rundir.STATE)

    async def _go_back(self, source: Source, what: Left) -> None:
        """It did not work. `what`: what that leaves."""
        if what in (Left.UNTOUCHED, Left.UNDECIDED):
            return
        # Never both: with shared RAM the other one must not even look.
        await self._destination.abandon()
        try:
            await source.resume()
        except GuestError as error:
            if what is not Left.SOURCE_OR_LOST or isinstance(error, StandsStillError):
                raise
            raise LostInPostcopyError(
                f"the guest is lost: the destination could not take it, and the source's QEMU does not let it go on: "
                f"{error}"
            ) from None

    async def _follow(self, source: Source) -> None:
        """What comes after the point of no return."""
        self._end = self._went
        steps = [(Stage.ANNOUNCE, self._announce), (Stage.CONFIRM, self._confirm)]
        for stage, step in [*steps, *([(Stage.FETCH, self._fetch)] if self._postcopy else [])]:
            self._stage = stage
            try:
                await step(source)
            except SdeiError as error:
                if left(stage, error, self._options.route) is Left.LOST:
                    raise LostInPostcopyError(
                        f"the guest went on as {self._destination.name!r}, and then the rest of its RAM could not be "
                        f"fetched: {error}"
                    ) from None

    async def _announce(self, source: Source) -> None:
        await source.announce(*self._destination.whereabouts)

    async def _confirm(self, source: Source) -> None:
        heartbeat_ns = source.heartbeat_ns
        after_ms = await self._destination.confirm(expected=heartbeat_ns is not None and self._running)
        if heartbeat_ns is not None and after_ms is not None:
            self._downtime = (self._go_ns - heartbeat_ns) / 1e6 + after_ms

    async def _fetch(self, source: Source) -> None:
        """The guest runs at the destination: wait until its RAM is there too."""
        try:
            self._info = await source.fetched()
        except (UnreachableError, LostGuestError):
            self._info = {}  # QMP is gone; whether QEMU is too, the destination sees
            if not await self._destination.fetched(self._options.timeout):
                raise
        await self._destination.complete()
        self._end = time.monotonic()

    def _result(self) -> MigrationResult:
        numbers = self._info.get("ram", {})
        return MigrationResult(
            source=self._side.name,
            destination=self._destination.name,
            route=self._options.route,
            total_ms=1000 * (self._end - self._begin),
            pause_ms=1000 * (self._went - self._paused),
            guest_downtime_ms=self._downtime,
            qemu_downtime_ms=int(self._info.get("downtime", 0)),
            qemu_total_ms=int(self._info.get("total-time", 0)),
            transferred=int(numbers.get("transferred", 0)),
            document=self._document,
            pages_differing=self._differing,
            passes=int(numbers.get("dirty-sync-count", 0)) if self._options.live else 0,
            fetch_ms=1000 * (self._end - self._went),
            page_requests=int(numbers.get("postcopy-requests", 0)),
        )
