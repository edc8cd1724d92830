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
from typing import Final

from qemu_sdei import rundir
from qemu_sdei.errors import SdeiError
from qemu_sdei.migration import ram
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.destination import arrived, take_over
from qemu_sdei.migration.options import COPY, SHARED, MigrationOptions, MigrationResult, Report, Step
from qemu_sdei.migration.source import Side, Source, execute

_SOCKET: Final = "migration.sock"


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

    async def run(self, ram_fds: tuple[int, int], ram_size: int) -> MigrationResult:
        """Move the guest; `ram_fds` are source's and destination's RAM.

        Raises:
            SdeiError: it did not work; the guest goes on at the source, and the destination must be ended. `GuestError`
            below it where a QEMU or a backend went away.
        """
        source, options = self._source, self._options
        link = await BackendLink.open(source.path / rundir.CONTROL)
        try:
            leaving = Source(source, link, options.hold, self._report, options.timeout)
            await leaving.reach_hold_point()
            begin = time.monotonic()
            self._report(Step("start"))
            await self._prepare()
            stopped = time.monotonic()
            try:
                running, document = await leaving.stand_still()
                await asyncio.to_thread(
                    shutil.copyfile, source.path / rundir.STATE, self._destination.path / rundir.STATE
                )
                info = await leaving.transfer(self._uri, shared=options.route == SHARED)
                await arrived(self._destination)
                differing = await self._verify(ram_fds, ram_size)
                self._report(Step("restore"))
                await take_over(self._destination)
                await self._destination.inherit(source)
                if running:
                    await execute(self._destination, "cont")
            except BaseException:
                await asyncio.shield(self._go_back(leaving))
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

    @property
    def _uri(self) -> str:
        return f"unix:{self._destination.path / _SOCKET}"

    async def _prepare(self) -> None:
        await self._destination.start(self._start_timeout)
        await Source.capabilities(self._destination, self._options.route == SHARED)
        await execute(self._destination, "migrate-incoming", uri=self._uri)

    async def _verify(self, fds: tuple[int, int], size: int) -> int | None:
        if self._options.route != COPY or not self._options.verify:
            return None
        self._report(Step("verify"))
        return len(await asyncio.to_thread(ram.compare, *fds, size))

    async def _go_back(self, leaving: Source) -> None:
        """It did not work: the guest goes on at the source."""
        with contextlib.suppress(SdeiError):
            # Never both: with shared RAM the other one must not even look.
            await execute(self._destination, "quit")
        await leaving.go_on()
