"""The order of things when a guest moves on one host. Until the destination is told to go on, the source can.

    source                                  destination
                                            QEMU (-incoming defer -S) and backend (--incoming) start
    QMP stop: vCPUs stand still
    backend: freeze -> state document
    QMP migrate                      --->   device state, and RAM where it is not shared
                                            RAM compared and repaired
                                            backend: restore <- state document, all of it checked first
                                            QMP cont                      <- from here on there is no way back
    backend: moved -> clients
    both end

The vCPUs stop *before* QEMU migrates: QEMU 7.2's TCG loses pages that are written during a live migration, and in
secure SRAM, which cannot be compared from outside, that would be the monitor's own state (docs/concepts.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from pathlib import Path
from typing import Any, Final, Protocol

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, GuestTimeoutError, LostGuestError, NotDeliveredError, SdeiError
from qemu_sdei.migration import ram
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.options import COPY, SHARED, Hold, MigrationOptions, MigrationResult, Report, Step

_POLL: Final = 0.005
_BUSY_TRIES: Final = 100
_SETTLE: Final = 10.0
"""Seconds for what happens at once, or not at all."""
_SOCKET: Final = "migration.sock"
_OVER: Final = frozenset(("completed", "failed", "cancelled"))
MAX_BANDWIDTH: Final = 1 << 40
"""Bytes a second: QEMU's default of 128 MiB/s is for networks that others use too."""


class Side(Protocol):
    """One QEMU with its backend."""

    @property
    def name(self) -> str:
        """The guest's name there."""

    @property
    def path(self) -> Path:
        """The run directory."""

    async def start(self, timeout: float) -> None:
        """Start the processes; for a destination."""

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """QMP. Raises `GuestError`."""

    def suspend(self) -> None:
        """The guest is being handed over: a backend that dies is not replaced, and what is typed is kept."""

    def resume(self) -> None:
        """The guest goes on here after all."""

    async def inherit(self, source: Any) -> None:
        """The guest is about to go on here and not at `source`."""


class Handover:
    """One migration. `run` once."""

    def __init__(
        self, source: Side, destination: Side, options: MigrationOptions, report: Report, *, start_timeout: float
    ) -> None:
        self._source = source
        self._destination = destination
        self._options = options
        self._report = report
        self._start_timeout = start_timeout
        self._migrating = False
        self._stopped_by_us = False

    async def run(self, ram_fds: tuple[int, int], ram_size: int) -> MigrationResult:
        """Move the guest; `ram_fds` are source's and destination's RAM.

        Raises:
            SdeiError: it did not work; the guest goes on at the source, and the destination must be ended. `GuestError`
            below it where a QEMU or a backend went away.
        """
        source, options = self._source, self._options
        link = await BackendLink.open(source.path / rundir.CONTROL)
        try:
            hold = options.hold
            if hold is not None:
                await self._hold(link, hold)
            begin = time.monotonic()
            self._report(Step("start"))
            await self._prepare()
            source.suspend()
            try:
                running = await self._stop()
                stopped = time.monotonic()
                document = await self._freeze(link)
                info = await self._transfer()
                differing = await self._verify(ram_fds, ram_size)
                await self._restore()
                await self._destination.inherit(source)
                if running:
                    await self._execute(self._destination, "cont")
            except BaseException:
                await asyncio.shield(self._go_on(link))
                raise
            now = time.monotonic()
            with contextlib.suppress(SdeiError):
                # It only tells clients where to go: what counts is done.
                control = str(self._destination.path / rundir.CONTROL)
                await link.request("moved", name=self._destination.name, control=control)
        finally:
            link.close()
        return MigrationResult(
            source=source.name,
            destination=self._destination.name,
            route=options.route,
            total_ms=1000 * (now - begin),
            pause_ms=1000 * (now - stopped),
            qemu_downtime_ms=int(info.get("downtime", 0)),
            qemu_total_ms=int(info.get("total-time", 0)),
            transferred=int(info.get("ram", {}).get("transferred", 0)),
            document=document,
            pages_differing=differing,
        )

    async def _hold(self, link: BackendLink, hold: Hold) -> None:
        await link.request("hold", state=hold.state, event=hold.event, vcpu=hold.vcpu)
        self._report(Step("hold"))
        try:
            await link.request("held", timeout=hold.timeout)
        except GuestTimeoutError:
            raise GuestTimeoutError(
                f"hold point {hold.state!r} of event {hold.event:#x} on vCPU {hold.vcpu} was not reached within "
                f"{hold.timeout:g} s"
            ) from None

    @staticmethod
    async def _execute(side: Side, command: str, **arguments: object) -> Any:
        return await side.execute(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    async def _prepare(self) -> None:
        destination = self._destination
        await destination.start(self._start_timeout)
        capabilities = [
            {"capability": "events", "state": True},
            {"capability": "x-ignore-shared", "state": self._options.route == SHARED},
        ]
        for side in (destination, self._source):
            await self._execute(side, "migrate-set-capabilities", capabilities=capabilities)
        await self._execute(self._source, "migrate-set-parameters", max_bandwidth=MAX_BANDWIDTH)
        await self._execute(destination, "migrate-incoming", uri=f"unix:{destination.path / _SOCKET}")

    async def _stop(self) -> bool:
        """Stop the vCPUs. Returns whether they ran."""
        status = (await self._execute(self._source, "query-status"))["status"]
        if status not in ("running", "paused"):
            raise GuestError(f"the guest cannot be migrated while QEMU says that it is {status!r}")
        if status == "running":
            self._stopped_by_us = True
            await self._execute(self._source, "stop")
        return bool(status == "running")

    async def _freeze(self, link: BackendLink) -> int:
        """Have the backend write the state document, and give it to the destination. Returns its size."""
        hold = self._options.hold
        for _ in range(_BUSY_TRIES):
            try:
                answer = await link.request("freeze", drain=hold is None or hold.drain)
                break
            except NotDeliveredError:
                # A service is amid its micro-operations. They take microseconds: let the guest run on so far.
                if not self._stopped_by_us or hold is not None:
                    raise
                await self._execute(self._source, "cont")
                await asyncio.sleep(_POLL)
                await self._execute(self._source, "stop")
        else:
            raise NotDeliveredError("a service of the guest was busy with micro-operations each time that it was asked")
        await asyncio.to_thread(
            shutil.copyfile, self._source.path / rundir.STATE, self._destination.path / rundir.STATE
        )
        return int(answer["bytes"])

    async def _transfer(self) -> dict[str, Any]:
        """Have QEMU migrate, to the end on both sides."""
        self._migrating = True
        await self._execute(self._source, "migrate", uri=f"unix:{self._destination.path / _SOCKET}")
        deadline = time.monotonic() + self._options.timeout
        begin = time.monotonic()
        while True:
            info: dict[str, Any] = await self._execute(self._source, "query-migrate")
            status = info.get("status")
            numbers = info.get("ram", {})
            total, left = int(numbers.get("total", 0)), int(numbers.get("remaining", 0))
            elapsed = max(time.monotonic() - begin, 1e-3)
            self._report(Step("ram", total - left, total, (total - left) / elapsed))
            if status in _OVER:
                break
            if time.monotonic() > deadline:
                raise GuestTimeoutError(f"QEMU did not transfer the guest within {self._options.timeout:g} s")
            await asyncio.sleep(_POLL)
        self._migrating = False
        if status != "completed":
            raise GuestError(f"QEMU's migration has {status}: {info.get('error-desc', 'it does not say why')}")
        await self._arrived()
        return info

    async def _arrived(self) -> None:
        deadline = time.monotonic() + _SETTLE
        while True:
            there: dict[str, Any] = await self._execute(self._destination, "query-migrate")
            state = (await self._execute(self._destination, "query-status"))["status"]
            if there.get("status") == "completed" and state != "inmigrate":
                return
            if there.get("status") == "failed" or time.monotonic() > deadline:
                raise GuestError(f"the destination's QEMU did not take the guest: {there.get('status')}, {state}")
            await asyncio.sleep(_POLL)

    async def _verify(self, fds: tuple[int, int], size: int) -> int | None:
        if self._options.route != COPY or not self._options.verify:
            return None
        self._report(Step("verify"))
        return len(await asyncio.to_thread(ram.compare, *fds, size))

    async def _restore(self) -> None:
        self._report(Step("restore"))
        link = await BackendLink.open(self._destination.path / rundir.CONTROL)
        try:
            await link.request("restore")
        finally:
            link.close()
            with contextlib.suppress(OSError):
                (self._destination.path / rundir.STATE).unlink()

    async def _go_on(self, link: BackendLink) -> None:
        """It did not work: the guest goes on at the source, as if nothing had been."""
        source = self._source
        with contextlib.suppress(SdeiError):
            # Never both: with shared RAM the other one must not even look.
            await self._execute(self._destination, "quit")
        with contextlib.suppress(LostGuestError):
            if self._migrating:
                with contextlib.suppress(GuestError):
                    await self._execute(source, "migrate_cancel")
                await self._wait_cancelled()
            # Closed, not asked to thaw: whatever it has heard of this connection, that ends the freeze.
            link.close()
            source.resume()
            if self._stopped_by_us:
                await self._execute(source, "cont")

    async def _wait_cancelled(self) -> None:
        deadline = time.monotonic() + _SETTLE
        while (await self._execute(self._source, "query-migrate")).get("status") not in _OVER:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(_POLL)
