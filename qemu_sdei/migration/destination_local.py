"""A destination on this host: another QEMU and backend, in a run directory of their own. RAM is a file of both."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, SdeiError, UsageError
from qemu_sdei.host.lost_pages import TRACKED
from qemu_sdei.migration import arrival, ram
from qemu_sdei.migration.options import (
    LAST_POSTCOPY,
    POSTCOPY,
    SHARED,
    MigrationOptions,
    MigrationResult,
    Report,
    Step,
)
from qemu_sdei.migration.qemu_connection import Wire
from qemu_sdei.migration.source import Side, Source, execute

T = TypeVar("T")

_HAND_BACK: Final = 5.0
"""Seconds until a backend that is to let go of a guest is taken to hang; the guest is paused meanwhile."""


class LocalDestination:
    """A `sequence.Destination` on this host."""

    def __init__(
        self,
        source: Side,
        side: Side,
        options: MigrationOptions,
        report: Report,
        *,
        start_timeout: float,
        ram_fds: tuple[int, int],
        ram_range: range,
        window: range,
    ) -> None:
        """`side`: not yet started. `ram_fds`: RAM of source and destination; `ram_range`, `window`: physical addresses
        of RAM, and of what of it the backend shares with the monitor.
        """
        self._source = source
        self._side = side
        self._options = options
        self._report = report
        self._start_timeout = start_timeout
        self._ram_fds, self._ram, self._window = ram_fds, ram_range, window
        self._wire = Wire(source, side, options)
        self._restored = False
        """The backend may have taken the guest over."""
        self._go_ns = 0
        self._told = False
        """QEMU was told to have the guest run, whether it has heard of that or not."""

    @property
    def name(self) -> str:
        """The guest's name there."""
        return self._side.name

    @property
    def whereabouts(self) -> tuple[str, str]:
        """Its name and its control socket."""
        return self._side.name, str(self._side.path / rundir.CONTROL)

    async def prepare(self, *, early: bool) -> str:
        """Start QEMU and the backend; connect the two QEMUs."""
        self._report(Step("start"))
        await self._side.start(self._start_timeout)
        if self._options.route == POSTCOPY:
            await self._check_postcopy()
        await Source.capabilities(self._side, self._options, early=early)
        await self._wire.listen()
        return self._wire.uri

    async def _check_postcopy(self) -> None:
        """Raise `UsageError` unless both sides are the same QEMU, and one that does not lose the guest."""
        here, there = [await execute(side, "query-version") for side in (self._source, self._side)]
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

    async def attend(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`: when the destination's QEMU ends, the source's finds out by itself."""
        return await work

    async def compare_early(self) -> bool:
        """Compare RAM once the destination has dealt with all that was sent; only RAM of which QEMU loses pages."""
        if not len(self._ram) % TRACKED:
            await self._wire.drained()
            await self.verify()
            return True
        return False

    async def check(self, document: Path) -> None:
        """Copy the document, and have the backend check it."""
        try:
            await asyncio.to_thread(shutil.copyfile, document, self._side.path / rundir.STATE)
        except OSError as error:  # a full disk, or the destination has ended and its directory with it
            raise GuestError(f"the state document could not be handed over: {error.strerror}") from None
        await arrival.check(self._side)

    async def arrived(self, *, postcopy: bool) -> None:
        """Wait until QEMU has taken the guest."""
        await arrival.arrived(self._side, postcopy=postcopy)

    async def verify(self) -> int:
        """Compare RAM, and repair it. Returns how many pages were not the same, those of the window not counted."""
        self._report(Step("verify"))
        base = self._ram.start
        apart = range(self._window.start - base, self._window.stop - base)
        return len(await asyncio.to_thread(ram.compare, *self._ram_fds, len(self._ram), apart=apart))

    async def restore(self, *, postcopy: bool) -> None:
        """Have the backend take the guest over; with `postcopy`, once the window's pages are there."""
        if postcopy:
            await arrival.fetch(self._side, self._window)
        self._restored = True
        await arrival.take_over(self._side, arriving=postcopy)

    async def take_history(self) -> None:
        """Nothing: `go` takes it, from one process to itself."""

    async def go(self, *, running: bool) -> int:
        """Take over what is the supervisor's, and have QEMU go on."""
        await self._side.inherit(self._source)
        self._go_ns = time.perf_counter_ns()
        if running:
            self._told = True
            await execute(self._side, "cont")
        self._wire.close()
        return self._go_ns

    async def confirm(self, *, expected: bool) -> float | None:
        """Ask the backend when it saw the first heartbeat."""
        if not expected or (first_ns := await arrival.first_heartbeat(self._side)) is None:
            return None
        return (first_ns - self._go_ns) / 1e6

    async def fetched(self, timeout: float) -> bool:
        """Wait until QEMU has fetched all RAM."""
        return await arrival.fetched(self._side, timeout)

    async def complete(self) -> None:
        """Tell the backend that all RAM is there."""
        await arrival.complete(self._side)

    async def abandon(self) -> None:
        """End QEMU; what was the source's is the source's again."""
        self._side.give_back()
        if self._restored and self._options.route == SHARED:
            # The backend ends some time after QEMU: until then it would answer calls that the guest makes at the
            # source, because it looks at the same RAM.
            with contextlib.suppress(SdeiError):
                control = str(self._source.path / rundir.CONTROL)
                await arrival.hand_back(self._side, self._source.name, control, _HAND_BACK)
        if self._told:
            await self._side.kill()  # the answer may be all that was lost: by QMP it would hear of its end no sooner
            return
        with contextlib.suppress(SdeiError):
            await execute(self._side, "quit")

    async def close(self) -> None:
        """Leave the connection to the two QEMUs."""
        self._wire.close()

    def result(self, result: MigrationResult) -> MigrationResult:
        """As it is."""
        return result
