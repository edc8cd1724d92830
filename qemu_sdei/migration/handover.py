"""The order of things when a guest moves on one host. Until the destination is told to go on, the source can.

    source                                  destination
                                            QEMU (-incoming defer -S) and backend (--incoming) start
    QMP stop: vCPUs stand still
    backend: freeze -> state document
                                            backend: check <- state document
    QMP migrate                      --->   device state, and RAM where it is not shared
                                            RAM compared and repaired
                                            backend: restore <- state document
                                            QMP cont                      <- from here on there is no way back
    backend: moved -> clients
    both end

Live, the vCPUs run while QEMU sends RAM; and where RAM is shared, while it sends flash and the like:

    QMP migrate                      --->   RAM
    QEMU stops the vCPUs, little is left (pre-switchover)
    backend: freeze -> state document
                                            (with postcopy: RAM compared and repaired, as far as it came)
                                            backend: check <- state document
    QMP migrate-continue             --->   what is left of RAM (with postcopy: later), device state
    as above

Why RAM is compared is in docs/concepts.md: QEMU 7.2's TCG loses pages that are written during a live migration.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from typing import Any

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, LostGuestError, SdeiError, StandsStillError, UnreachableError, UsageError
from qemu_sdei.host.lost_pages import TRACKED
from qemu_sdei.migration import ram
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.destination import arrived, check, complete, fetch, fetched, first_sign, take_over
from qemu_sdei.migration.options import LAST_POSTCOPY, POSTCOPY, SHARED, MigrationOptions, MigrationResult, Report, Step
from qemu_sdei.migration.qemu_connection import Wire
from qemu_sdei.migration.run_to_completion import finish
from qemu_sdei.migration.source import Side, Source, execute


class LostInPostcopyError(LostGuestError):
    """The guest had gone on at the destination, and cannot without the RAM that was still at the source."""


class Handover:
    """One migration. `run` once."""

    def __init__(
        self,
        source: Side,
        destination: Side,
        options: MigrationOptions,
        report: Report,
        *,
        start_timeout: float,
        ram_fds: tuple[int, int],
        ram_range: range,
        window: range,
        early: bool = True,
    ) -> None:
        """`ram_fds`: RAM of source and destination; `ram_range`, `window`: physical addresses of RAM, and of what of it
        the backend shares with the monitor. `early`: QEMU may begin while the vCPUs run where RAM is not sent.
        """
        self._source = source
        self._destination = destination
        self._options = options
        self._report = report
        self._start_timeout = start_timeout
        self._early = options.live or (early and options.route == SHARED and options.hold is None)
        self._ram_fds, self._ram, self._window = ram_fds, ram_range, window
        self._wire = Wire(source, destination, options)

    async def run(self) -> MigrationResult:
        """Move the guest.

        Raises:
            SdeiError: it did not work; the guest goes on at the source, and the destination must be ended. `GuestError`
            below it where a QEMU or a backend went away. `BusyError`: where QEMU had stopped the vCPUs a service was
            amid its micro-operations; the next time it may not be. `NotDeliveredError`: the guest must be stopped
            first, not `early`. `LostInPostcopyError`: the guest was at the destination already, and cannot go on
            without the RAM that is still at the source.
        """
        source, options = self._source, self._options
        link = await BackendLink.open(source.path / rundir.CONTROL)
        try:
            leaving = Source(source, link, options.hold, self._report, options.timeout)
            if not self._early:
                await leaving.reach_hold_point()
            begin = time.monotonic()
            self._report(Step("start"))
            await self._prepare()
            try:
                if self._early:
                    running, stopped, document, info = await self._send_while_running(leaving, link)
                else:
                    await leaving.prepare(options)
                    await leaving.watch(live=False)
                    stopped = time.monotonic()
                    running, document = await leaving.stand_still()
                    await self._hand_over_document()
                    info = await leaving.transfer(self._wire.uri, options)
                postcopy = info.get("status") == "postcopy-active"
                await arrived(self._destination, postcopy=postcopy)
                differing = None
                if options.compared and options.route != POSTCOPY:
                    differing = await self._compare()
                self._report(Step("restore"))
                if postcopy:
                    await fetch(self._destination, self._window)
                await take_over(self._destination, arriving=postcopy)
                await finish(self._go(running))
            except BaseException:
                await finish(self._go_back(leaving))
                raise
            # From here on the guest is there, and nothing leads back.
            now = time.monotonic()
            downtime = await finish(self._make_known(leaving, link, running))
            end = now
            if postcopy:
                info = await finish(self._fetch(leaving))
                end = time.monotonic()
        finally:
            self._wire.close()
            link.close()
        numbers = info.get("ram", {})
        return MigrationResult(
            source=source.name,
            destination=self._destination.name,
            route=options.route,
            total_ms=1000 * (end - begin),
            pause_ms=1000 * (now - stopped),
            guest_downtime_ms=downtime,
            qemu_downtime_ms=int(info.get("downtime", 0)),
            qemu_total_ms=int(info.get("total-time", 0)),
            transferred=int(numbers.get("transferred", 0)),
            document=document,
            pages_differing=differing,
            passes=int(numbers.get("dirty-sync-count", 0)) if options.live else 0,
            fetch_ms=1000 * (end - now),
            page_requests=int(numbers.get("postcopy-requests", 0)),
        )

    async def _send_while_running(self, leaving: Source, link: BackendLink) -> tuple[bool, float, int, dict[str, Any]]:
        """QEMU begins while the vCPUs run: all up to the point where it has sent what the destination needs. Returns
        whether they ran, when they were stopped, the bytes of the document, and what QEMU says.
        """
        options = self._options
        postcopy = options.route == POSTCOPY
        boots = await self._boots(link)
        running = await leaving.runs()  # before: with little to send, QEMU stops the vCPUs at once
        await leaving.prepare(options, early=True)
        await leaving.watch(live=options.live)
        await leaving.begin(self._wire.uri, options)
        stopped = await leaving.converge(postcopy=postcopy)
        document = await leaving.switch_over()
        compared = options.compared or options.route == SHARED  # the same RAM is that of a reset as well
        if postcopy and compared:
            compared = not len(self._ram) % TRACKED
            if compared:
                await self._wire.drained()
                await self._compare()
        if await self._boots(link) != boots and not compared:
            # What is loaded at a reset QEMU does not see being written.
            raise GuestError("the guest was reset while its RAM was being sent, and RAM is not to be compared")
        await self._hand_over_document()
        return running, stopped, document, await leaving.complete(postcopy=postcopy)

    async def _go(self, running: bool) -> None:
        await self._destination.inherit(self._source)
        if running:
            await execute(self._destination, "cont")

    async def _make_known(self, leaving: Source, link: BackendLink, running: bool) -> float | None:
        """Tell clients where the guest is. Returns its downtime in milliseconds, if it has shown itself."""
        self._wire.close()
        with contextlib.suppress(SdeiError):
            # It only tells them where to go: what counts is done.
            control = str(self._destination.path / rundir.CONTROL)
            await link.request("moved", name=self._destination.name, control=control)
        if leaving.sign_ns is not None and running and (sign_ns := await first_sign(self._destination)) is not None:
            return (sign_ns - leaving.sign_ns) / 1e6
        return None

    @staticmethod
    async def _boots(link: BackendLink) -> int:
        return int((await link.request("hello"))["epoch"])

    async def _hand_over_document(self) -> None:
        """Copy the document, and have the destination's backend check it before anything cannot be taken back."""
        try:
            await asyncio.to_thread(
                shutil.copyfile, self._source.path / rundir.STATE, self._destination.path / rundir.STATE
            )
        except OSError as error:  # a full disk, or the destination has ended and its directory with it
            raise GuestError(f"the state document could not be handed over: {error.strerror}") from None
        await check(self._destination)

    async def _fetch(self, leaving: Source) -> dict[str, Any]:
        """The guest runs at the destination: wait until its RAM is there too."""
        try:
            try:
                info = await leaving.fetched()
            except (UnreachableError, LostGuestError):
                info = {}  # QMP is gone; whether QEMU is too, the destination sees
                if not await fetched(self._destination, self._options.timeout):
                    raise
            await complete(self._destination)
        except SdeiError as error:
            raise LostInPostcopyError(
                f"the guest went on as {self._destination.name!r}, and then the rest of its RAM could not be fetched: "
                f"{error}"
            ) from None
        return info

    async def _prepare(self) -> None:
        await self._destination.start(self._start_timeout)
        if self._options.route == POSTCOPY:
            await self._check_postcopy()
        await Source.capabilities(self._destination, self._options, early=self._early)
        await self._wire.listen()

    async def _check_postcopy(self) -> None:
        """Raise `UsageError` unless both sides are the same QEMU, and one that does not lose the guest."""
        here, there = [await execute(side, "query-version") for side in (self._source, self._destination)]
        names = [
            ".".join(str(version["qemu"][part]) for part in ("major", "minor", "micro")) + f" {version['package']}"
            for version in (here, there)
        ]
        if (here["qemu"]["major"], here["qemu"]["minor"]) > LAST_POSTCOPY:
            raise UsageError(
                f"postcopy is not for QEMU {names[0].strip()}: {'.'.join(map(str, LAST_POSTCOPY))} is the last one of "
                "which it is known that no pages are lost (11.1 loses some); choose another route"
            )
        if here != there:
            # What it cannot take the destination finds out too late: the source's QEMU does not go on any more.
            raise UsageError(
                f"postcopy is only for two QEMUs of one version: the guest runs in QEMU {names[0].strip()}, the other "
                f"one is {names[1].strip()}; choose another route"
            )

    async def _compare(self) -> int:
        """Compare RAM, and repair it. Returns how many pages were not the same, those of the window not counted."""
        self._report(Step("verify"))
        base = self._ram.start
        apart = range(self._window.start - base, self._window.stop - base)
        return len(await asyncio.to_thread(ram.compare, *self._ram_fds, len(self._ram), apart=apart))

    async def _go_back(self, leaving: Source) -> None:
        """It did not work: the guest goes on at the source."""
        self._destination.give_back()
        with contextlib.suppress(SdeiError):
            # Never both: with shared RAM the other one must not even look.
            await execute(self._destination, "quit")
        try:
            await leaving.go_on()
        except GuestError as error:
            if self._options.route != POSTCOPY or isinstance(error, StandsStillError):
                raise
            raise LostInPostcopyError(
                f"the guest is lost: the destination could not take it, and the source's QEMU does not let it go on: "
                f"{error}"
            ) from None
